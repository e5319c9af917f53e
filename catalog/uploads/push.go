// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
)

// Send pushes a file of the user's, without a draft. If the name has the same bytes
// already, that is success. How much was sent is stored, so that a push that was killed
// is resumed when it is repeated.
//
// Errors: catalog.Options.State's; those of backends.Pusher; fs.ErrExist if the tag is taken
// and src does not say that it may be replaced.
func (u *Uploads) Send(ctx context.Context, r catalog.Remote, ref backends.Ref, src backends.Source) (backends.Image, error) {
	if !r.Local() {
		s, err := u.cat.State()
		if err != nil {
			return backends.Image{}, err
		}
		src.Session = u.session(s.Index, r, ref, src.Digest)
	}
	release, err := u.turns.Lock(ctx, nameOf(r.Name, ref))
	if err != nil {
		return backends.Image{}, pushError(r.Name, ref, err)
	}
	defer release()
	img, err := u.push(ctx, r, ref, src)
	if err == nil {
		u.cat.Published(r, ref, img)
	}
	return img, err
}

// nameOf returns one string for all drafts that are published under one name.
func nameOf(remote string, ref backends.Ref) string { return string(index.ImageKey(remote, ref)) }

// push is Client.Push with a check before it, which saves sending what is there or will be
// refused, and one after it: the registry must have stored what was sent. If the first
// check fails, the error is doubtful, never a refusal.
func (u *Uploads) push(ctx context.Context, r catalog.Remote, ref backends.Ref, src backends.Source) (backends.Image, error) {
	current, same, err := u.Check(ctx, r, ref, src)
	if err != nil || same {
		return current, err
	}
	img, err := r.Client.Push(ctx, ref, src)
	u.cat.Note(r.Name, err)
	if err == nil {
		if err := verifyPushed(img, src); err != nil {
			return backends.Image{}, pushError(r.Name, ref, err)
		}
		return withDigest(index.Clean(img), src), nil
	}
	return backends.Image{}, judged(err)
}

// Check tells what a push would meet, and changes nothing: the image that has the name now, if
// the service tells it, and whether that is the one that is pushed.
//
// Errors: those of a push that is refused before anything is sent.
func (u *Uploads) Check(ctx context.Context, r catalog.Remote, ref backends.Ref, src backends.Source) (current backends.Image, same bool, err error) {
	current, err = u.cat.Ask(ctx, r, func(ctx context.Context) (backends.Image, error) { return r.Client.StatSource(ctx, ref, src) })
	switch {
	case err == nil && current.Digest == src.Digest && backends.SameName(ref, current.Ref) == nil:
		return current, true, nil
	case err == nil:
		err = src.ReplaceAllowed(ref, current)
	case errors.Is(err, fs.ErrNotExist):
		err = src.CreateAllowed()
	case errors.Is(err, fs.ErrPermission): // a login that may write need not be allowed to read
		return backends.Image{}, false, nil
	default:
		return backends.Image{}, false, &doubtful{err}
	}
	if err != nil && !perhapsSame(current, src) {
		return backends.Image{}, false, pushError(r.Name, ref, err)
	}
	return current, false, nil
}

// perhapsSame reports whether the image that has the name can be the one that is pushed.
// If the service has no SHA-256, the backend decides.
func perhapsSame(current backends.Image, src backends.Source) bool {
	return !index.IsSHA256(current.Digest) && (current.Size < 0 || current.Size == src.Size)
}

// verifyPushed compares what the registry says it stored with what was sent.
func verifyPushed(img backends.Image, src backends.Source) error {
	if index.IsSHA256(img.Digest) && img.Digest != src.Digest {
		return fmt.Errorf("%w: sent %s, stored %s", backends.ErrCorrupt, src.Digest, img.Digest)
	}
	if img.Size >= 0 && img.Size != src.Size {
		return fmt.Errorf("%w: sent %d bytes, stored %d", backends.ErrCorrupt, src.Size, img.Size)
	}
	return nil
}

// withDigest adds what was sent, where the service does not say it.
func withDigest(img backends.Image, src backends.Source) backends.Image {
	if !index.IsSHA256(img.Digest) {
		img.Digest = src.Digest
	}
	if img.Size < 0 {
		img.Size = src.Size
	}
	if img.Format == "" {
		img.Format = src.Format
	}
	return img
}

// sessionLife is how long the state of a push is kept: services keep what was sent for a
// day to a week.
const sessionLife = 7 * 24 * time.Hour

// A pushSession is the backends.Session of a user's file, so that a push that was killed
// can be resumed. (That of a draft is in its journal.)
type pushSession struct {
	store *index.Index
	key   []byte
	now   func() time.Time
	log   *slog.Logger
}

var _ backends.Session = (*pushSession)(nil)

// session returns the session of the push of those bytes to ref. It is another one if the
// remote's name means another service now.
func (u *Uploads) session(s *index.Index, r catalog.Remote, ref backends.Ref, digest string) *pushSession {
	k := index.SessionKey(r.Name, ref.String(), digest, r.Client.Origin())
	return &pushSession{store: s, key: k, now: u.cat.Now, log: u.log}
}

// Load implements backends.Session.
func (p *pushSession) Load() []byte {
	saved, err := p.store.Get(p.key)
	if at, ok := sessionTime(saved); err != nil || !ok || p.now().Sub(at) > sessionLife {
		return nil
	}
	return saved[8:]
}

// Save implements backends.Session. It drops what is too old of others.
func (p *pushSession) Save(state []byte) error {
	changes := []index.KV{{Key: p.key}}
	if state != nil {
		changes[0].Value = append(binary.BigEndian.AppendUint64(nil, uint64(p.now().Unix())), state...)
	}
	for kv, err := range p.store.Scan(index.SessionPrefix(), nil) {
		if err != nil {
			break
		}
		if at, ok := sessionTime(kv.Value); !ok || p.now().Sub(at) > sessionLife {
			changes = append(changes, index.KV{Key: append([]byte(nil), kv.Key...)})
		}
	}
	err := p.store.Apply(changes...)
	if errors.Is(err, fs.ErrInvalid) {
		p.log.Debug("how far a push came is too much to remember", "bytes", len(state))
		return nil
	}
	return err
}

func sessionTime(saved []byte) (time.Time, bool) {
	if len(saved) < 8 {
		return time.Time{}, false
	}
	return time.Unix(int64(binary.BigEndian.Uint64(saved)), 0), true
}
