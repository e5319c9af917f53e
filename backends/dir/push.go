// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
)

var tmpDir = filepath.Join(private, "tmp")

// staleAfter is when a file that no push has written to is taken for the
// remains of one that was killed.
const staleAfter = 24 * time.Hour

// Push implements backends.Pusher. The bytes are made durable beside the tree;
// then one rename gives them their name, which has their digest in it; only
// then the version that they replace is removed. Killed anywhere, it leaves
// either image, or both with the new one as the tag. The time of the file comes last.
func (c *client) Push(ctx context.Context, ref backends.Ref, src backends.Source) (backends.Image, error) {
	sum, ok := strings.CutPrefix(src.Digest, "sha256:")
	if !ok || len(sum) != hexDigits {
		return backends.Image{}, fmt.Errorf("%w: a push needs a sha256 digest", fs.ErrInvalid)
	}
	ref.Version = ""
	if err := os.MkdirAll(c.path, 0o777); err != nil {
		return backends.Image{}, localError(err)
	}
	t, err := c.open()
	if err != nil {
		return backends.Image{}, localError(err)
	}
	defer t.Close()
	c.sweep.Do(t.sweep)
	// Before the copying, for a quick no; and again when the lock is held.
	if _, err := t.replaced(ctx, ref, src); err != nil {
		return backends.Image{}, err
	}
	tmp, err := t.stage(ctx, src)
	if err != nil {
		return backends.Image{}, localError(err)
	}
	img, err := t.publish(ctx, ref, src, tmp, layout(ref, sum, extension(src.Format)))
	if err != nil {
		_ = t.Remove(tmp)
		return backends.Image{}, localError(err)
	}
	if src.Progress != nil {
		src.Progress(src.Size)
	}
	return img, nil
}

// replaced returns the file that ref means now, if any.
// Errors: those of Source.ReplaceAllowed.
func (t *tree) replaced(ctx context.Context, ref backends.Ref, src backends.Source) (*file, error) {
	f, err := t.find(ctx, ref)
	if errors.Is(err, fs.ErrNotExist) {
		r, err := t.recorded(ctx, ref)
		if err != nil {
			return nil, src.CreateAllowed()
		}
		return nil, src.ReplaceAllowed(ref, r.image(&t.view))
	}
	if err != nil {
		return nil, err
	}
	return &f, src.ReplaceAllowed(ref, t.describe(f, ""))
}

// publish gives the staged file its name.
func (t *tree) publish(ctx context.Context, ref backends.Ref, src backends.Source, tmp, target string) (backends.Image, error) {
	unlock, err := t.lock(ctx)
	if err != nil {
		return backends.Image{}, err
	}
	defer unlock()
	old, err := t.replaced(ctx, ref, src)
	if err != nil {
		return backends.Image{}, err
	}
	// The newest version is what the tag means, so this one must be the newest
	// whatever the clock says.
	now := time.Now()
	if old != nil && !now.After(old.info.ModTime()) {
		now = old.info.ModTime().Add(time.Millisecond)
	}
	// Its own time at once, where that makes it the newest: whoever sees the file
	// takes the time for a part of its version.
	versions, err := t.versions(ref)
	dated := err == nil && !src.Modified.IsZero() && !slices.ContainsFunc(versions, func(v file) bool {
		return !v.info.ModTime().Before(src.Modified)
	})
	if dated {
		now = src.Modified
	}
	if err := t.Chtimes(tmp, now, now); err != nil {
		return backends.Image{}, err
	}
	info, err := t.Lstat(tmp)
	if err != nil {
		return backends.Image{}, err
	}
	if err := src.MayCommit(); err != nil {
		return backends.Image{}, err
	}
	f := file{dir: path.Dir(target), base: path.Base(target), ref: ref, format: src.Format, info: info}
	img, err := t.become(tmp, f, src.Digest, old)
	if err == nil {
		t.noteStored(ctx, f, old)
	}
	if err != nil || dated || src.Modified.IsZero() {
		return img, err
	}
	return t.date(f, src, img), nil
}

// noteStored drops the record that a file replaced, and has the database know the file.
func (t *tree) noteStored(ctx context.Context, f file, old *file) {
	was := ""
	if old != nil {
		was = t.abs(old.dir, old.base)
	} else if r, err := t.recorded(ctx, f.ref); err == nil {
		was = r.Path
		if err := t.records.dropOwn(f.ref); err != nil {
			t.records.log.Warn("a record that was replaced could not be removed", "image", f.ref.String(), "err", err)
		}
	}
	t.records.update(ctx, f.ref, record{Tag: f.ref.Tag, Path: t.abs(f.dir, f.base), Client: localClient, Created: time.Now()}, was)
}

// date gives the file f, which is what the tag means, the time of the file that was
// pushed, unless an older version that is kept would then be the newest.
func (t *tree) date(f file, src backends.Source, now backends.Image) backends.Image {
	versions, err := t.versions(f.ref)
	if err != nil || slices.ContainsFunc(versions, func(v file) bool {
		return (v.dir != f.dir || v.base != f.base) && !v.info.ModTime().Before(src.Modified)
	}) {
		return now
	}
	name := filepath.FromSlash(path.Join(f.dir, f.base))
	if err := t.Chtimes(name, src.Modified, src.Modified); err != nil {
		return now
	}
	if f.info, err = t.Lstat(name); err != nil {
		return now
	}
	defer t.changed(f.dir)
	t.note(f, src.Digest)
	return t.describe(f, src.Digest)
}

// become makes the file at from f, which replaces old.
func (t *tree) become(from string, f file, digest string, old *file) (backends.Image, error) {
	defer t.changed(f.dir)
	t.note(f, digest)
	if err := t.rename(from, path.Join(f.dir, f.base)); err != nil {
		return backends.Image{}, err
	}
	if old != nil && (old.dir != f.dir || old.base != f.base) {
		defer t.changed(old.dir)
		if err := t.Remove(filepath.FromSlash(path.Join(old.dir, old.base))); err == nil {
			_ = t.syncDir(old.dir) // it may come back after a power cut, but as an older version
			t.removeEmpty(old.dir, ".")
		}
	}
	return t.describe(f, digest), nil
}

// note remembers the digest of a file, if it is known.
func (t *tree) note(f file, digest string) {
	if digest != "" {
		t.remember(f.dir, fact{file: f.base, digest: digest, size: f.info.Size(), modTime: f.info.ModTime().UnixNano(), inode: inode(f.info)})
	}
}

// rename moves the staged file to its place for good.
func (t *tree) rename(tmp, target string) error {
	dir := path.Dir(target)
	for try := 0; ; try++ {
		if err := t.MkdirAll(filepath.FromSlash(dir), 0o777); err != nil {
			return err
		}
		err := t.Rename(tmp, filepath.FromSlash(target))
		// Another process may just have removed the directory as an empty one.
		if errors.Is(err, fs.ErrNotExist) && try < 3 {
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	for ; ; dir = path.Dir(dir) {
		if err := t.syncDir(dir); err != nil {
			return err
		}
		if dir == "." {
			return nil
		}
	}
}

// stage brings the bytes into the store under a name that nobody sees, checked
// and durable: by a hard link or a clone where that can be, else by copying.
func (t *tree) stage(ctx context.Context, src backends.Source) (string, error) {
	if err := t.MkdirAll(tmpDir, 0o777); err != nil {
		return "", err
	}
	tmp := filepath.Join(tmpDir, rand.Text())
	out, err := t.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, readers(src.Mode))
	if err != nil {
		return "", err
	}
	defer out.Close()
	if src.Path != "" && src.Give && t.adopt(src, out, tmp) == nil {
		return tmp, nil
	}
	if err := errors.Join(fill(ctx, out, src), out.Close()); err != nil {
		_ = t.Remove(tmp)
		return "", err
	}
	return tmp, nil
}

// readers returns the permissions of an image that was copied from a file of that mode,
// before the umask: whoever could read it may run it, and nobody else.
func readers(mode fs.FileMode) fs.FileMode {
	perm := fs.FileMode(0o777)
	if mode != 0 && mode&0o040 == 0 {
		perm &^= 0o070
	}
	if mode != 0 && mode&0o004 == 0 {
		perm &^= 0o007
	}
	return perm
}

func fill(ctx context.Context, out *os.File, src backends.Source) error {
	if src.Path == "" || cloneFrom(out, src) != nil {
		if err := copyTo(ctx, out, src); err != nil {
			return err
		}
	}
	return out.Sync()
}

// adopt puts the file that is given away in the place of the new and empty one
// at tmp, whose mode and group it gets: these are what the umask and a setgid
// directory say. Errors: any means that it must be copied into fresh.
func (t *tree) adopt(src backends.Source, fresh *os.File, tmp string) error {
	in, err := openSource(src)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := likeNew(in, fresh); err != nil {
		return err
	}
	// The new name must not look like the remains of an old push (see sweep).
	now := time.Now()
	if err := os.Chtimes(src.Path, now, now); err != nil {
		return err
	}
	link := tmp + ".link"
	if err := t.linkFrom(src.Path, link); err != nil {
		return err
	}
	// The link must be the file that was looked at.
	linked, err := t.Lstat(link)
	if err == nil {
		var info fs.FileInfo
		if info, err = in.Stat(); err == nil && !os.SameFile(info, linked) {
			err = backends.ErrChanged
		}
	}
	if err == nil {
		err = in.Sync()
	}
	if err == nil {
		err = t.Rename(link, tmp)
	}
	if err != nil {
		_ = t.Remove(link)
	}
	return err
}

// openSource opens the file that has the bytes already.
func openSource(src backends.Source) (*os.File, error) {
	in, err := backends.OpenRegular(src.Path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	if info, err := in.Stat(); err != nil || info.Size() != src.Size {
		in.Close()
		return nil, fmt.Errorf("%w: %s is not the file that was told", fs.ErrInvalid, src.Path)
	}
	return in, nil
}

// cloneFrom makes out share the blocks of the source's file.
func cloneFrom(out *os.File, src backends.Source) error {
	in, err := openSource(src)
	if err != nil {
		return err
	}
	defer in.Close()
	return disk.Clone(out, in)
}

// copyTo copies and checks.
// Errors: backends.ErrCorrupt if the content is not what src says.
func copyTo(ctx context.Context, out *os.File, src backends.Source) error {
	// A full disk is better found before ten gigabytes than after.
	if err := reserve(out, src.Size); err != nil {
		return err
	}
	sum := sha256.New()
	to := &progress{ctx: ctx, Writer: io.MultiWriter(out, sum), tell: src.Progress}
	n, err := io.CopyBuffer(to, io.NewSectionReader(src.Content, 0, src.Size), make([]byte, 1<<20))
	if err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); n != src.Size || got != src.Digest {
		return fmt.Errorf("%w: %d bytes with %s, not %d with %s", backends.ErrCorrupt, n, got, src.Size, src.Digest)
	}
	return nil
}

// progress tells how far a copy is, and ends it with its context.
type progress struct {
	io.Writer
	ctx   context.Context //nolint:containedctx // io.Copy takes none
	tell  func(int64)
	total int64
}

func (p *progress) Write(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.Writer.Write(b)
	p.total += int64(n)
	if p.tell != nil {
		p.tell(p.total)
	}
	return n, err
}

// sweep removes what pushes that were killed left behind.
func (t *tree) sweep() {
	d, err := openDir(t.Root, tmpDir)
	if err != nil {
		return
	}
	defer d.Close()
	entries, _ := d.ReadDir(-1)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > staleAfter {
			_ = t.Remove(filepath.Join(tmpDir, e.Name()))
		}
	}
}
