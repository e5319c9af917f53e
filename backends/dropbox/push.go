// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	sdk "github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox"
	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/files"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

// maxSize is the largest file that Dropbox takes, in bytes.
const maxSize = 1<<41 - 1<<22

// Push implements backends.Pusher. Dropbox compares and swaps: a name is given
// to the new bytes only if it still means the rev that is replaced, and each
// request's bytes are compared with their content_hash before that.
func (c *client) Push(ctx context.Context, ref backends.Ref, src backends.Source) (backends.Image, error) {
	if src.Size > maxSize {
		return backends.Image{}, fmt.Errorf("%w: %d bytes (Dropbox takes at most %d)", fs.ErrInvalid, src.Size, int64(maxSize))
	}
	p := &push{client: c, ref: ref, path: c.path(ref, src.Format), src: src}
	p.memo = uploads.Recall[pushState](&c.unsaved, p.path, src, c.log)
	old, err := p.old(ctx)
	if err != nil {
		return backends.Image{}, err
	}
	if f := p.stored(old); f != nil {
		return p.done(ctx, f, old)
	}
	if err := p.allowed(ctx, old); err != nil {
		if len(old) > 0 && p.isTarget(old[0]) && p.same(old[0]) {
			return p.image(ctx, old[0])
		}
		return backends.Image{}, err
	}
	commit := p.commitSmall
	if src.Size > c.piece {
		commit, err = p.upload(ctx)
		if err != nil {
			return backends.Image{}, err
		}
	} else if err := p.readSmall(ctx); err != nil {
		return backends.Image{}, err
	}
	defer p.slots.leave(p.small)
	f, err := p.commit(ctx, old, commit)
	if err != nil {
		return backends.Image{}, err
	}
	return p.done(ctx, f, old)
}

// A push is one call of Push.
type push struct {
	*client
	ref   backends.Ref
	path  string
	src   backends.Source
	memo  *uploads.Memo[pushState]
	small []byte // all bytes, where they go in one request
	fresh bool   // the collection is not there
}

// old returns the files that the name is now, the one that it means first.
func (p *push) old(ctx context.Context) ([]*files.FileMetadata, error) {
	if backends.Ext(p.src.Format) == ".sif" {
		f, err := p.metadata(ctx, p.path)
		if err == nil {
			return []*files.FileMetadata{f}, nil // nothing goes before that
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	found, err := p.find(ctx, p.ref)
	if errors.Is(err, fs.ErrNotExist) {
		p.fresh = errors.Is(err, errNoCollection)
		return nil, nil
	}
	return found, err
}

// stored returns the file that an earlier try of this push made, if its answer
// was lost.
func (p *push) stored(old []*files.FileMetadata) *files.FileMetadata {
	for _, f := range old {
		if p.memo.State.Hash != "" && f.ContentHash == p.memo.State.Hash && p.isTarget(f) {
			return f
		}
	}
	return nil
}

// same reports whether f has the bytes that are pushed, which are read for that.
func (p *push) same(f *files.FileMetadata) bool {
	if int64(f.Size) != p.src.Size || f.ContentHash == "" {
		return false
	}
	sum := newContentHash()
	_, err := io.Copy(sum, io.NewSectionReader(p.src.Content, 0, p.src.Size))
	return err == nil && sum.sum() == f.ContentHash
}

// isTarget reports whether f is at the path that is pushed to, where Dropbox
// makes no difference between cases.
func (p *push) isTarget(f *files.FileMetadata) bool {
	return strings.ToLower(f.Name) == strings.ToLower(names.Base(p.ref, p.src.Format)) //nolint:staticcheck // EqualFold folds more than Dropbox
}

// allowed decides whether the name may be replaced. Dropbox finds a name in any
// case and keeps that of the first one, so a new name in another case would be
// stored as the old one.
func (p *push) allowed(ctx context.Context, old []*files.FileMetadata) error {
	stored, err := p.spelling(ctx, p.ref)
	if err != nil {
		return err
	}
	now := backends.Image{Ref: p.ref}
	if len(old) > 0 {
		now.Version = old[0].Rev
		if parsed, ok := names.Parse(old[0].Name); ok && p.isTarget(old[0]) {
			stored.Name, stored.Tag = parsed.Name, parsed.Tag
		}
	}
	if err := backends.SameName(p.ref, stored); err != nil {
		return err
	}
	if len(old) == 0 {
		return p.src.CreateAllowed()
	}
	return p.src.ReplaceAllowed(p.ref, now)
}

// spelling returns ref with the names of the folders that are there already.
func (p *push) spelling(ctx context.Context, ref backends.Ref) (backends.Ref, error) {
	parts := strings.Split(ref.Collection, "/")
	n := len(parts)
	if p.fresh {
		n-- // that the last one is not there is known
	}
	for ; n > 0 && ref.Collection != ""; n-- {
		own, err := p.spell(ctx, p.paths(strings.Join(parts[:n], "/"))[0])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		ref.Collection = strings.Join(append([]string{own}, parts[n:]...), "/")
		return ref, err
	}
	return ref, nil
}

// readSmall reads all bytes into memory, where they are few.
func (p *push) readSmall(ctx context.Context) error {
	text, err := p.slots.take(ctx, p.src.Size)
	if err != nil {
		return err
	}
	if n, readErr := p.src.Content.ReadAt(text, 0); int64(n) < p.src.Size {
		err = fmt.Errorf("read what is to be pushed: %w", readErr)
	} else if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(text)); sum != p.src.Digest {
		err = fmt.Errorf("%w: the bytes to be pushed are %s, not %s", backends.ErrCorrupt, sum, p.src.Digest)
	}
	if err != nil {
		p.slots.leave(text)
		return err
	}
	p.small, p.memo.State.Hash = text, hashOf(text)
	return nil
}

// A commit gives the name to bytes.
type commit func(ctx context.Context, info *files.CommitInfo) (*files.FileMetadata, error)

func (p *push) commitSmall(ctx context.Context, info *files.CommitInfo) (*files.FileMetadata, error) {
	arg := &files.UploadArg{CommitInfo: *info, ContentHash: p.memo.State.Hash}
	var body io.Reader // nil if empty, so that there is a Content-Length
	if len(p.small) > 0 {
		body = bytes.NewReader(p.small)
	}
	f, err := p.files.UploadContext(ctx, arg, body)
	return f, translate(ctx, err)
}

// commit calls do as the one change under way. That it was tried is saved
// before: if the answer does not come, the next try knows its own file.
func (p *push) commit(ctx context.Context, old []*files.FileMetadata, do commit) (*files.FileMetadata, error) {
	unlock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := p.src.MayCommit(); err != nil {
		return nil, err
	}
	p.memo.Save()
	f, err := do(ctx, p.info(old))
	switch {
	case err == nil && f == nil:
		return nil, fmt.Errorf("%w: an answer that is none", backends.ErrBadAnswer)
	case has(err, "folder", "file_ancestor"):
		return nil, fmt.Errorf("%w: a folder or file stands in the way of %q", fs.ErrInvalid, p.path)
	case has(err, "conflict"):
		p.memo.State.Hash = "" // the answer is here: what is there is not ours
		p.memo.Save()
		if p.src.Replaces == "" {
			return nil, backends.Saying(fs.ErrExist, "the tag was taken meanwhile")
		}
		return nil, backends.ErrChanged
	}
	return f, err
}

// info says under which condition the bytes get the name.
func (p *push) info(old []*files.FileMetadata) *files.CommitInfo {
	info := files.NewCommitInfo(p.path)
	info.StrictConflict = true
	if !p.src.Modified.IsZero() {
		modified := sdk.DBXTime(p.src.Modified.UTC().Truncate(time.Second))
		info.ClientModified = &modified
	}
	info.Mode = &files.WriteMode{Tagged: sdk.Tagged{Tag: files.WriteModeAdd}}
	if p.src.Replaces == backends.ReplaceAny {
		info.Mode.Tag = files.WriteModeOverwrite
		return info
	}
	for _, f := range old {
		if p.isTarget(f) {
			info.Mode = &files.WriteMode{Tagged: sdk.Tagged{Tag: files.WriteModeUpdate}, Update: f.Rev}
		}
	}
	return info
}

// lock waits until no other change is under way.
func (c *client) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case c.commits <- struct{}{}:
		return func() { <-c.commits }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// done looks at what was stored, and takes away what else the name was.
func (p *push) done(ctx context.Context, f *files.FileMetadata, old []*files.FileMetadata) (backends.Image, error) {
	if err := checkFile(f); err != nil {
		return backends.Image{}, err
	}
	if int64(f.Size) != p.src.Size || f.ContentHash != "" && f.ContentHash != p.memo.State.Hash {
		err := fmt.Errorf("%w: Dropbox stored %d bytes with the content_hash %s of %d with %s",
			backends.ErrCorrupt, f.Size, f.ContentHash, p.src.Size, p.memo.State.Hash)
		return backends.Image{}, errors.Join(err, p.undo(ctx, f, old))
	}
	for _, other := range old {
		name, _ := names.Parse(other.Name)
		if !name.Is(p.ref) || name.Version != "" || other.Name == f.Name {
			continue // a name of its own, a kept version, or what was replaced
		}
		if err := p.remove(ctx, other); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return backends.Image{}, err
		}
	}
	p.memo.Forget()
	if p.src.Progress != nil {
		p.src.Progress(p.src.Size)
	}
	return p.image(ctx, f)
}

// undo gives the name back to what it meant before.
func (p *push) undo(ctx context.Context, f *files.FileMetadata, old []*files.FileMetadata) error {
	p.memo.Forget()
	for _, before := range old {
		if before.Name == f.Name {
			_, err := p.files.RestoreContext(ctx, files.NewRestoreArg(p.path, before.Rev))
			return translate(ctx, err)
		}
	}
	return p.remove(ctx, f)
}
