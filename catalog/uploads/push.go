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

// Send pushes a file of the user's, without a draft. The same bytes under that name
// already is success. What was sent of it is remembered, so that a push that was killed
// goes on when it is repeated.
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

// nameOf is the same for two drafts if they are published under one name.
func nameOf(remote string, ref backends.Ref) string { return string(index.ImageKey(remote, ref)) }

// push is Client.Push with a look before it (why send what is there, or will be
// refused?) and one after it: what the registry says it has must be what was sent.
// What an odd answer to the look says is doubtful, never a refusal.
func (u *Uploads) push(ctx context.Context, r catalog.Remote, ref backends.Ref, src backends.Source) (backends.Image, error) {
	current, err := u.cat.Ask(ctx, r, func(ctx context.Context) (backends.Image, error) { return r.Client.StatSource(ctx, ref, src) })
	switch {
	case err == nil && current.Digest == src.Digest && backends.SameName(ref, current.Ref) == nil:
		return current, nil
	case err == nil:
		err = src.ReplaceAllowed(ref, current)
	case errors.Is(err, fs.ErrNotExist):
		err = src.CreateAllowed()
	case !errors.Is(err, fs.ErrPermission): // who may write need not be allowed to read
		return backends.Image{}, &doubtful{err}
	default:
		err = nil
	}
	if err != nil && !perhapsSame(current, src) {
		return backends.Image{}, pushError(r.Name, ref, err)
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

// perhapsSame reports whether an image that is in the way can be what is pushed.
// Where the service tells no SHA-256 the backend decides.
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

// withDigest adds what we know and a service need not keep.
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

// pushError says which push it was that failed, unless err does.
func pushError(remote string, ref backends.Ref, err error) error {
	if _, ok := errors.AsType[*backends.Error](err); ok {
		return err
	}
	return &backends.Error{Op: "push", Remote: remote, Ref: ref, Err: err}
}
