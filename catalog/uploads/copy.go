// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
)

// Copy has the service of the one remote take over an image of the other: see
// backends.Copier. How far it came is stored, as by Send.
//
// Errors: catalog.Options.State's; those of backends.Client.Copy.
func (u *Uploads) Copy(ctx context.Context, from, to catalog.Remote, ref backends.Ref, src backends.CopySource) (backends.Image, error) {
	if !to.Local() {
		s, err := u.cat.State()
		if err != nil {
			return backends.Image{}, err
		}
		src.Session = func(digest string) backends.Session { return u.session(s.Index, to, ref, digest) }
	}
	release, err := u.turns.Lock(ctx, nameOf(to.Name, ref))
	if err != nil {
		return backends.Image{}, &backends.Error{Op: "copy", Remote: to.Name, Ref: ref, Err: err}
	}
	defer release()
	img, err := to.Client.Copy(ctx, from.Client, src, ref)
	if e, ok := errors.AsType[*backends.Error](err); !ok || e.Remote == to.Name {
		u.cat.Note(to.Name, err)
	}
	if err != nil {
		return backends.Image{}, err
	}
	img = index.Clean(img)
	u.cat.Published(to, ref, img)
	return img, nil
}

// Whether two images are the same.
const (
	Unknown = iota // only their bytes would tell
	Same
	Different
)

// Compare reports whether an image of the one remote is the image of the other, without
// reading either: by their digests, or by what NoteCopied stored.
func (u *Uploads) Compare(ctx context.Context, from catalog.Remote, img backends.Image, to catalog.Remote, there backends.Image) int {
	if from.Name == to.Name && img.Version == there.Version && img.Version != "" {
		return Same
	}
	if u.copiedFrom(to.Name, there) == sourceName(from, img) {
		return Same
	}
	if to.Local() && index.IsSHA256(img.Digest) {
		src := backends.Source{Digest: img.Digest, Size: img.Size}
		if same, err := to.Client.StatSource(ctx, there.Ref, src); err == nil && same.Version == there.Version {
			there.Digest = same.Digest
		}
	}
	kind, _, _ := strings.Cut(img.Digest, ":")
	other, _, _ := strings.Cut(there.Digest, ":")
	switch {
	case kind != "" && img.Digest == there.Digest:
		return Same
	case kind != "" && kind == other:
		return Different
	case kind == other || index.IsSHA256(img.Digest) || index.IsSHA256(there.Digest):
		// The bytes are one file's, so that their number tells.
		if img.Size >= 0 && there.Size >= 0 && img.Size != there.Size {
			return Different
		}
	}
	return Unknown
}

// NoteCopied stores that an image is a copy of another one. If that is lost, it is compared
// again.
func (u *Uploads) NoteCopied(from catalog.Remote, img backends.Image, to catalog.Remote, there backends.Image) {
	if there.Version == "" {
		return
	}
	s, err := u.cat.State()
	if err == nil {
		err = s.Index.Apply(index.KV{Key: index.CopiedKey(to.Name, there.Ref), Value: []byte(sourceName(from, img) + "\x00" + there.Version)})
	}
	if err != nil {
		u.log.Warn("what an image was copied from could not be stored", "image", there.Ref.String(), "err", err)
	}
}

// copiedFrom returns what NoteCopied stored of the version that an image has, "" if nothing.
func (u *Uploads) copiedFrom(remote string, there backends.Image) string {
	s, err := u.cat.State()
	if err != nil || there.Version == "" {
		return ""
	}
	ref := there.Ref
	ref.Version = ""
	value, err := s.Index.Get(index.CopiedKey(remote, ref))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		u.log.Debug("what an image was copied from is not known", "image", there.Ref.String(), "err", err)
	}
	source, version, _ := strings.Cut(string(value), "\x00")
	if version != there.Version {
		return ""
	}
	return source
}

// sourceName names what an image is, wherever its name leads later.
func sourceName(from catalog.Remote, img backends.Image) string {
	if img.Digest != "" && !from.Local() {
		return img.Digest
	}
	return strings.Join([]string{from.Name, from.Client.Origin(), img.Ref.Collection, img.Ref.Name, img.Ref.Tag, img.Version}, "\n")
}
