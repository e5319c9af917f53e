// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"crypto/md5" //nolint:gosec // compared with what the service says, not trusted
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// A Pusher is the writing half of a backend: backends.Pusher and Deleter.
type Pusher struct {
	read   *Reader
	writer Writer
}

// NewPusher returns a Pusher to the store of r, which is w.
func NewPusher(r *Reader, w Writer) *Pusher { return &Pusher{read: r, writer: w} }

// Push implements backends.Pusher. The path that another program gave the image in the same
// format is kept; of its other files those that the name would still mean are removed.
func (p *Pusher) Push(ctx context.Context, ref backends.Ref, src backends.Source) (backends.Image, error) {
	old, err := p.old(ctx, ref, src.Format)
	if err != nil {
		return backends.Image{}, err
	}
	if allowed := p.allowed(ref, src, old); allowed != nil {
		if len(old) > 0 {
			same, err := p.same(ctx, old[0], src)
			if err != nil {
				return backends.Image{}, err
			}
			if same {
				return p.read.image(ctx, ref, old[0])
			}
		}
		return backends.Image{}, allowed
	}
	path, replaces := p.target(ref, src.Format, src.Replaces, old)
	f, err := p.writer.Put(ctx, path, src, replaces)
	if err != nil {
		return backends.Image{}, err
	}
	if err := p.removeOthers(ctx, ref, f, old); err != nil {
		return backends.Image{}, err
	}
	if src.Progress != nil {
		src.Progress(src.Size)
	}
	return p.read.image(ctx, ref, f)
}

// old returns the files that a name is now, the one that it means first.
func (p *Pusher) old(ctx context.Context, ref backends.Ref, format string) ([]File, error) {
	if format == "" || format == backends.FormatSIF {
		f, err := p.read.store.Stat(ctx, p.read.Path(ref, backends.FormatSIF))
		if err == nil {
			return []File{f}, nil // nothing goes before that
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	all, err := p.read.find(ctx, ref)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		all[0], err = p.read.whole(ctx, all[0])
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, backends.ErrChanged // between the two
	}
	return all, err
}

func (p *Pusher) allowed(ref backends.Ref, src backends.Source, old []File) error {
	if len(old) == 0 {
		return src.CreateAllowed()
	}
	now := ref
	if q, _ := p.read.Parse(base(old[0])); !q.IsOld(ref) {
		now, _ = p.read.Ref(old[0].Path) // another name where the service does not tell cases apart
	}
	return src.ReplaceAllowed(ref, backends.Image{Ref: now, Version: old[0].Version})
}

// target returns the path to write to, and the version that is replaced there.
func (p *Pusher) target(ref backends.Ref, format, replaces string, old []File) (path, version string) {
	path = p.read.Path(ref, format)
	for _, f := range old {
		folder, name := Split(f.Path)
		q, _ := p.read.Parse(name)
		if q.Is(ref) && q.Version == "" && q.Format == strings.TrimPrefix(backends.Ext(format), ".") {
			return f.Path, f.Version
		}
		path = Join(folder, p.read.Base(ref, format)) // beside what it is now
	}
	if replaces == backends.ReplaceAny {
		return path, replaces
	}
	return path, ""
}

// removeOthers removes what else the name was: not a name of its own, nor a kept version.
func (p *Pusher) removeOthers(ctx context.Context, ref backends.Ref, f File, old []File) error {
	for _, other := range old {
		q, _ := p.read.Parse(base(other))
		if !q.Is(ref) || q.Version != "" || other.Path == f.Path {
			continue
		}
		if err := p.writer.Remove(ctx, other); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// same reports whether f has the bytes that are pushed. Where no digest tells, they are read:
// a push that is repeated, since an answer was lost, must not be refused.
func (p *Pusher) same(ctx context.Context, f File, src backends.Source) (bool, error) {
	if f.Size != src.Size && f.Size >= 0 {
		return false, nil
	}
	switch algorithm, _, _ := strings.Cut(f.Digest, ":"); algorithm {
	case "sha256":
		return f.Digest == src.Digest, nil
	case "md5":
		sum := md5.New() //nolint:gosec // as above
		_, err := io.Copy(sum, io.NewSectionReader(src.Content, 0, src.Size))
		return fmt.Sprintf("md5:%x", sum.Sum(nil)) == f.Digest, err
	}
	now, err := p.sum(ctx, f)
	return now == src.Digest, err
}

// alike reports whether two files have the same bytes. Where no digest tells, they are read.
func (p *Pusher) alike(ctx context.Context, a, b File) (bool, error) {
	switch {
	case a.Path == b.Path && a.Version == b.Version:
		return true, nil
	case a.Size != b.Size || a.Size < 0:
		return false, nil
	case a.Digest != "" && a.Digest == b.Digest:
		return true, nil
	}
	var sums [2]string
	for i, f := range []File{a, b} {
		if sums[i] = f.Digest; strings.HasPrefix(f.Digest, "sha256:") {
			continue
		}
		var err error
		if sums[i], err = p.sum(ctx, f); err != nil {
			return false, err
		}
	}
	return sums[0] == sums[1], nil
}

// sum reads a file.
func (p *Pusher) sum(ctx context.Context, f File) (string, error) {
	body, err := p.read.store.Open(ctx, f, 0, f.Size)
	if err != nil {
		return "", err
	}
	defer body.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, body); err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", sum.Sum(nil)), nil
}

// Delete implements backends.Deleter. The name is gone afterwards, so all files that it is are;
// with img.Ref.Version set only the one of that version.
func (p *Pusher) Delete(ctx context.Context, img backends.Image) error {
	ref := img.Ref
	ref.Version = ""
	all, err := p.read.find(ctx, ref)
	if err != nil {
		return err
	}
	if all[0], err = p.read.whole(ctx, all[0]); err != nil { // not every listing tells versions
		return err
	}
	if q, _ := p.read.Parse(base(all[0])); !q.Is(ref) {
		return backends.NotFound("no such image")
	}
	if img.Ref.Version != "" {
		i := slices.IndexFunc(all, func(f File) bool { return f.Version == img.Version })
		if i < 0 {
			return backends.ErrChanged
		}
		return p.writer.Remove(ctx, all[i])
	}
	if all[0].Version != img.Version {
		return backends.ErrChanged
	}
	// The one that the name means goes last: broken off half-way, it still does.
	for _, f := range slices.Backward(all) {
		if err := p.writer.Remove(ctx, f); err != nil {
			return err
		}
	}
	return nil
}
