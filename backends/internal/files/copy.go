// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"errors"
	"fmt"

	"github.com/sregfs/sregfs/backends"
)

// A Copier copies within the store: backends.Copier and Tagger.
type Copier struct {
	push *Pusher
	dup  Duplicator
}

// NewCopier returns a Copier of the files that p writes.
func NewCopier(p *Pusher, d Duplicator) *Copier { return &Copier{push: p, dup: d} }

// Copy implements backends.Copier within one remote: the service copies by itself.
func (c *Copier) Copy(ctx context.Context, src backends.CopySource, to backends.Ref) (backends.Image, error) {
	from, ok := src.Backend.(interface{ reader() *Reader })
	if !ok || from.reader() != c.push.read {
		return backends.Image{}, fmt.Errorf("%w: it is in another store", errors.ErrUnsupported)
	}
	return c.duplicate(ctx, src.Image, to, src.Replaces, src.Commit)
}

// Tag implements backends.Tagger: the tag is a copy, which the service makes by itself.
func (c *Copier) Tag(ctx context.Context, img backends.Image, tag, replaces string) (backends.Image, error) {
	to := img.Ref
	to.Tag, to.Version = tag, ""
	return c.duplicate(ctx, img, to, replaces, nil)
}

func (c *Copier) duplicate(ctx context.Context, img backends.Image, to backends.Ref, replaces string, commit func() error) (backends.Image, error) {
	f, err := c.push.read.Current(ctx, img)
	if err != nil {
		return backends.Image{}, err
	}
	old, err := c.push.old(ctx, to, img.Format)
	if err != nil {
		return backends.Image{}, err
	}
	src := backends.Source{Size: f.Size, Format: img.Format, Replaces: replaces, Commit: commit}
	if err := c.push.allowed(to, src, old); err != nil {
		same := len(old) > 0
		if same {
			var readErr error
			if same, readErr = c.push.alike(ctx, f, old[0]); readErr != nil {
				return backends.Image{}, readErr
			}
		}
		if same {
			return c.push.read.image(ctx, to, old[0])
		}
		return backends.Image{}, err
	}
	path, version := c.push.target(to, img.Format, replaces, old)
	made, err := c.dup.Duplicate(ctx, f, path, version, commit)
	if err != nil {
		return backends.Image{}, err
	}
	if err := c.push.removeOthers(ctx, to, made, old); err != nil {
		return backends.Image{}, err
	}
	return c.push.read.image(ctx, to, made)
}

// A Mover moves within the store: backends.Mover.
type Mover struct {
	push   *Pusher
	rename func(ctx context.Context, f File, path, old string) (File, error)
}

// NewMover returns a Mover of the files that p writes. Where the service cannot rename, it
// copies and removes.
func NewMover(p *Pusher, w Writer) *Mover {
	m := &Mover{push: p}
	switch w := w.(type) {
	case Renamer:
		m.rename = w.Rename
	case Duplicator:
		m.rename = func(ctx context.Context, f File, path, old string) (File, error) {
			return copyAndRemove(ctx, w, f, path, old)
		}
	default:
		panic("files: a Mover of a store that neither renames nor copies")
	}
	return m
}

// copyAndRemove takes the copy back where the original has changed meanwhile.
func copyAndRemove(ctx context.Context, d Duplicator, f File, path, old string) (File, error) {
	made, err := d.Duplicate(ctx, f, path, old, nil)
	if err != nil {
		return File{}, err
	}
	if err = d.Remove(ctx, f); err != nil && old == "" {
		err = errors.Join(err, d.Remove(ctx, made))
	}
	return made, err
}

// Move implements backends.Mover.
func (m *Mover) Move(ctx context.Context, img backends.Image, to backends.Ref, replaces string) (backends.Image, error) {
	f, err := m.push.read.Current(ctx, img)
	if err != nil {
		return backends.Image{}, err
	}
	old, err := m.push.old(ctx, to, img.Format)
	if err != nil {
		return backends.Image{}, err
	}
	if len(old) > 0 && old[0].Path == f.Path {
		return m.push.read.image(ctx, to, f) // onto itself
	}
	src := backends.Source{Size: f.Size, Format: img.Format, Replaces: replaces}
	if err := m.push.allowed(to, src, old); err != nil {
		return backends.Image{}, err
	}
	path, version := m.push.target(to, img.Format, replaces, old)
	made, err := m.rename(ctx, f, path, version)
	if err != nil {
		return backends.Image{}, err
	}
	if err := m.push.removeOthers(ctx, to, made, old); err != nil {
		return backends.Image{}, err
	}
	return m.push.read.image(ctx, to, made)
}
