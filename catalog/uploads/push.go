// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

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
	current, err := u.cat.Ask(ctx, r, func(ctx context.Context) (backends.Image, error) { return r.Client.StatSource(ctx, ref, src) })
	switch {
	case err == nil && current.Digest == src.Digest && backends.SameName(ref, current.Ref) == nil:
		return current, nil
	case err == nil || errors.Is(err, fs.ErrNotExist):
		if refused := src.ReplaceAllowed(ref, current, err == nil); refused != nil && !perhapsSame(current, src) {
			return backends.Image{}, pushError(r.Name, ref, refused)
		}
	case !errors.Is(err, fs.ErrPermission): // a login that may write need not be allowed to read
		return backends.Image{}, &doubtful{err}
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

// pushError adds to err which push failed, unless it says so.
func pushError(remote string, ref backends.Ref, err error) error {
	if _, ok := errors.AsType[*backends.Error](err); ok {
		return err
	}
	return &backends.Error{Op: "push", Remote: remote, Ref: ref, Err: err}
}
