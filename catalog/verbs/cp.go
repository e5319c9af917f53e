// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/inspect"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// CopyOptions say what Copy may do.
type CopyOptions struct {
	PushOptions
	// All copies a container image for every architecture that its tag has.
	All bool `json:"all,omitempty"`
}

// Copied is an image that was copied.
type Copied struct {
	Image Record `json:"image"`
	From  Record `json:"from"`
	Here  bool   `json:"here_before"` // nothing had to be done
}

// Copy makes to name the image that from means. Where the services can, they do it among
// themselves, or an image stays the parts that it is there (backends.Copier); else the bytes
// travel through this process, from one service to the other, without a file here. If to ends
// with a slash it is a collection, or a remote, in which the image keeps its name.
//
// An image of which no SHA-256 is known before it is read (one that is made of layers, or of
// a service that tells none), and one of a service that gives no ranges, is brought into the
// cache first, as by Pull.
//
// Errors: those of Resolve and Lookup; those of Push.
func (v *transfers) Copy(ctx context.Context, from, to string, o CopyOptions, p catalog.Progress) (Copied, error) {
	if p == nil {
		p = func(int64, int64) {}
	}
	var done Copied
	err := v.withImage(ctx, from, func(r catalog.Remote, img backends.Image) error {
		d, ref, err := v.copyTarget(ctx, to, img.Ref)
		if err != nil {
			return err
		}
		c := &copying{transfers: v, from: r, img: img, to: d, ref: ref, CopyOptions: o, progress: p}
		done.Image, done.Here, err = c.run(ctx)
		done.From = v.record(r.Name, img)
		return err
	})
	return done, err
}

// copyTarget resolves where an image is to be copied to.
func (v *transfers) copyTarget(ctx context.Context, to string, from backends.Ref) (catalog.Remote, backends.Ref, error) {
	folder := strings.HasSuffix(to, "/")
	if folder {
		to += "x" // an image in it has a name like this
	}
	r, ref, err := v.Resolve(ctx, to, Writing)
	if err != nil || !folder {
		return r, ref, err
	}
	if from.Tag == "" {
		return r, ref, backends.Saying(fs.ErrInvalid, "%s does not say under which tag to store it: write %s%s:TAG", to, strings.TrimSuffix(to, "x"), from.Name)
	}
	if u, err := backends.ParseURI(to); err == nil && !u.Bare {
		from.Collection = ref.Collection
	}
	from.Version = ""
	return r, from, nil
}

// A copying is one copy on its way.
type copying struct {
	*transfers
	CopyOptions
	from, to catalog.Remote
	img      backends.Image
	ref      backends.Ref
	progress catalog.Progress
}

func (c *copying) fail(err error) error {
	if _, ok := errors.AsType[*backends.Error](err); ok || err == nil {
		return err
	}
	return &backends.Error{Op: "copy", Remote: c.to.Name, Ref: c.ref, Err: err}
}

func (c *copying) run(ctx context.Context) (Record, bool, error) {
	none := func(err error) (Record, bool, error) { return Record{}, false, c.fail(err) }
	if err := c.to.Takes(c.ref); err != nil {
		return none(err)
	}
	if c.from.Client == nil {
		return none(c.from.Unopened())
	}
	there, err := c.cat.Ask(ctx, c.to, func(ctx context.Context) (backends.Image, error) { return c.to.Client.Stat(ctx, c.ref) })
	switch {
	case err == nil:
		same := c.uploads.Compare(ctx, c.from, c.img, c.to, there)
		if same == uploads.Same && !c.All {
			return c.record(c.to.Name, there), true, nil
		}
		if same == uploads.Different && !c.Force {
			return none(errTaken)
		}
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission): // a login that may write need not be allowed to read
		return none(err)
	}
	if c.DryRun {
		return c.record(c.to.Name, backends.Image{Ref: c.ref, Size: c.img.Size, Digest: c.img.Digest, Format: c.img.Format}), false, nil
	}
	img, err := c.take(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		img, err = c.send(ctx)
	}
	if errors.Is(err, fs.ErrExist) && !c.Force {
		err = errTaken
	}
	if err != nil {
		return none(err)
	}
	c.uploads.NoteCopied(c.from, c.img, c.to, img)
	return c.record(c.to.Name, img), there.Version != "" && there.Version == img.Version, nil
}

var errTaken = backends.Saying(fs.ErrExist, "the tag is taken by another image (--force replaces it)")

func (c *copying) replaces() string {
	if c.Force {
		return backends.ReplaceAny
	}
	return ""
}

// take has the service take the image over. Errors: errors.ErrUnsupported if it cannot.
func (c *copying) take(ctx context.Context) (backends.Image, error) {
	if !c.to.Client.Caps().Has(backends.CanCopy) {
		return backends.Image{}, errors.ErrUnsupported
	}
	var files []io.Closer
	var mu sync.Mutex
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	watched := backends.Source{Size: c.img.Size}
	defer c.watch(&watched)()
	return c.uploads.Copy(ctx, c.from, c.to, c.ref, backends.CopySource{
		Image: c.img, All: c.All, Replaces: c.replaces(),
		Progress: func(stored, total int64) {
			watched.Progress(stored)
			c.progress(stored, total)
		},
		Content: func(blob backends.Image) io.ReaderAt {
			f, err := c.openHere(ctx, c.from, blob)
			if c.from.Local() || err != nil || f == nil {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			files = append(files, f)
			return f
		},
	})
}

// watch shows the copy in status until the result is called.
func (c *copying) watch(src *backends.Source) (done func()) {
	uri := func(remote string, ref backends.Ref) string { return backends.URI{Remote: remote, Ref: ref}.String() }
	return c.pushes.watch(uri(c.to.Name, c.ref), uri(c.from.Name, c.img.Ref), src)
}

// send pushes the bytes.
func (c *copying) send(ctx context.Context) (backends.Image, error) {
	if c.img.Format == backends.FormatArchive {
		return backends.Image{}, backends.Saying(errors.ErrUnsupported,
			"%s is a container image of which no SIF can be made: it can be copied to an OCI registry only", c.img.Ref)
	}
	f, err := c.openHere(ctx, c.from, c.img)
	if err != nil {
		return backends.Image{}, err
	}
	if f != nil {
		defer f.Close()
		return c.sendFile(ctx, f, c.progress)
	}
	// Who reads and writes at one service may have one slot there.
	if index.IsSHA256(c.img.Digest) && c.img.Size >= 0 && c.from.Name != c.to.Name {
		img, err := c.sendStream(ctx)
		if !errors.Is(err, errors.ErrUnsupported) {
			return img, err
		}
	}
	var img backends.Image
	fetched := func(done, total int64) { c.progress(done, 2*total) }
	err = c.fetchWhole(ctx, c.from, c.img, fetched, func(f *os.File) (err error) {
		img, err = c.sendFile(ctx, f, func(done, total int64) { c.progress(total+done, 2*total) })
		return err
	})
	return img, err
}

// sendFile pushes a file that has all bytes.
func (c *copying) sendFile(ctx context.Context, f *os.File, p catalog.Progress) (backends.Image, error) {
	info, err := f.Stat()
	if err != nil {
		return backends.Image{}, backends.DiskError("read "+f.Name(), err)
	}
	src := c.source(p, info.Size())
	src.Content, src.Path, src.Digest = f, f.Name(), c.img.Digest
	if c.from.Local() {
		src.Mode = info.Mode().Perm()
	}
	if format, err := inspect.Complete(f, info.Size()); err == nil {
		src.Format = format
	}
	if c.from.Local() || !index.IsSHA256(src.Digest) { // of what is in the cache it was compared
		if src.Digest, err = uploads.Digest(ctx, io.NewSectionReader(f, 0, src.Size)); err != nil {
			return backends.Image{}, cmp.Or(ctx.Err(), backends.DiskError("read "+f.Name(), err))
		}
	}
	defer c.watch(&src)()
	return c.uploads.Send(ctx, c.to, c.ref, src)
}

// source is what a push of the image is, but for its bytes.
func (c *copying) source(p catalog.Progress, size int64) backends.Source {
	return backends.Source{
		Size: size, Format: c.img.Format, Modified: c.img.Modified, Replaces: c.replaces(),
		Progress: func(stored int64) { p(stored, size) },
	}
}

// sendStream pushes the bytes as they come.
//
// Errors: errors.ErrUnsupported if the service gives no ranges.
func (c *copying) sendStream(ctx context.Context) (backends.Image, error) {
	in := &stream{RangeReader: c.from.Client.RangeReader(ctx, c.img), size: c.img.Size, digest: c.img.Digest, sum: sha256.New()}
	defer in.Close()
	if c.cat.BlobInfo(c.from.Name, c.img).State == cache.Partial {
		s, err := c.cat.State()
		if err != nil {
			return backends.Image{}, err
		}
		if in.here, err = s.Cache.Blob(ctx, c.from.Client, c.img); err == nil {
			defer func() { _ = in.here.Close() }()
		} else {
			in.here = nil
		}
	}
	src := c.source(c.progress, c.img.Size)
	src.Content, src.Digest = in, c.img.Digest
	src.Commit = in.verify
	defer c.watch(&src)()
	img, err := c.uploads.Send(ctx, c.to, c.ref, src)
	if why := in.reason(); err != nil && why != nil && ctx.Err() == nil {
		err = why // not the fault of whom it was sent to
	}
	return img, err
}

// A stream is an image that is read from its service, but for what is in the cache, and
// hashed on its way.
type stream struct {
	*backends.RangeReader
	here   *cache.Blob // nil if nothing is
	size   int64
	digest string

	mu     sync.Mutex // guards the fields below
	read   bool
	sum    hash.Hash // of the bytes before hashed
	hashed int64
	err    error // the bytes are not those of the digest
}

// ReadAt implements io.ReaderAt. Whoever reads in order does not get the last bytes if the
// digest is another one: a request that carries them breaks off.
//
// Errors: those of RangeReader; backends.ErrCorrupt.
func (s *stream) ReadAt(p []byte, off int64) (n int, err error) {
	if s.here != nil && s.here.Has(off, int64(len(p))) {
		n, err = s.here.ReadAt(p, off)
	} else {
		n, err = s.RangeReader.ReadAt(p, off)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = true
	if end := off + int64(n); off <= s.hashed && s.hashed < end {
		s.sum.Write(p[s.hashed-off : n])
		s.hashed = end
		if got := s.digestAt(end); got != "" && got != s.digest {
			s.err = fmt.Errorf("%w: what was read is %s, not %s", backends.ErrCorrupt, got, s.digest)
		}
	}
	if s.err != nil {
		return 0, s.err
	}
	return n, err
}

// digestAt returns the digest if all is hashed by now, else "".
func (s *stream) digestAt(end int64) string {
	if end < s.size {
		return ""
	}
	return fmt.Sprintf("%s%x", index.SHA256Prefix, s.sum.Sum(nil))
}

// verify makes sure that all bytes were compared: it reads those that were not read in order,
// as after an upload that was taken up in the middle. If none was read, the service has them
// by their digest, or reads them after this.
//
// Errors: those of ReadAt.
func (s *stream) verify() error {
	s.mu.Lock()
	at, read, err := s.hashed, s.read, s.err
	s.mu.Unlock()
	if !read || err != nil {
		return err
	}
	rest := io.NewSectionReader(s, at, s.size-at)
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, rest, make([]byte, 1<<20))
	return err
}

// reason returns why reading failed, if it did.
func (s *stream) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.err, s.Err())
}
