// SPDX-License-Identifier: Apache-2.0

package swift

import (
	"context"
	"crypto/md5" //nolint:gosec // what Swift compares; the SHA-256 is checked too
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
)

// maxWhole is how large one object can be where the service does not say: Swift's default.
const maxWhole = 5 << 30

// Put implements files.Writer. Swift takes If-None-Match: * when an object is made, and no
// condition when one is replaced: then a look goes before.
func (s *store) Put(ctx context.Context, path string, src backends.Source, old string) (files.File, error) {
	o := s.at(path)
	if err := s.ensure(ctx, o.container); err != nil {
		return files.File{}, err
	}
	if src.Size > s.part {
		l, err := s.capabilities(ctx)
		switch largest := maxObjectSize(l); {
		case err != nil:
			return files.File{}, err
		case l.SLO != nil:
			return s.putLarge(ctx, path, src, old, l)
		case src.Size > largest:
			return files.File{}, fmt.Errorf("%w: %d bytes (this service takes at most %d: it says nothing of large objects)", fs.ErrInvalid, src.Size, largest)
		}
	}
	sum, err := sumsOf(ctx, src)
	if err != nil {
		return files.File{}, err
	}
	c := change{path: path, old: old, commit: src.MayCommit, etag: sum}
	return s.change(ctx, c, func(ctx context.Context, create bool) error {
		meter := &meter{src: src}
		resp, err := s.do(ctx, http.MethodPut, o, nil, func(req *http.Request) error {
			setContent(req, src, 0, src.Size, meter, nil)
			describe(req, src, create)
			req.Header.Set("ETag", sum)
			return nil
		}, http.StatusUnprocessableEntity)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusUnprocessableEntity {
			return fmt.Errorf("%w: other bytes than were sent have arrived", backends.ErrCorrupt)
		}
		return nil
	})
}

// maxObjectSize is how large an object in one piece can be.
func maxObjectSize(l *limits) int64 {
	if l != nil && l.Swift.MaxFile > 0 {
		return l.Swift.MaxFile
	}
	return maxWhole
}

// sumsOf reads all bytes of src, compares their digest, and returns their MD5.
func sumsOf(ctx context.Context, src backends.Source) (string, error) {
	whole, sum := sha256.New(), md5.New() //nolint:gosec // as above
	if err := copyContent(ctx, io.MultiWriter(whole, sum), src, 0, src.Size); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), sameDigest(src, whole.Sum(nil))
}

func sameDigest(src backends.Source, sum []byte) error {
	if got := fmt.Sprintf("sha256:%x", sum); got != src.Digest {
		return fmt.Errorf("%w: the bytes to be pushed are %s, not %s", backends.ErrCorrupt, got, src.Digest)
	}
	return nil
}

// copyContent writes n bytes of src to w, until ctx ends.
func copyContent(ctx context.Context, w io.Writer, src backends.Source, off, n int64) error {
	section := io.NewSectionReader(src.Content, off, n)
	copied, err := io.Copy(w, readerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return section.Read(p)
	}))
	if err == nil && copied < n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("read what is to be pushed: %w", err)
	}
	return err
}

type readerFunc func([]byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// setContent makes n bytes of src the body of a request, which sum, if not nil, sees too.
func setContent(req *http.Request, src backends.Source, off, n int64, m *meter, sum io.Writer) {
	if req.ContentLength = n; n == 0 {
		req.Body = http.NoBody
		return
	}
	section := io.NewSectionReader(src.Content, off, n)
	req.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
		read, err := section.Read(p)
		if sum != nil {
			_, _ = sum.Write(p[:read]) // a hash's does not fail
		}
		m.add(read)
		return read, err
	}))
}

// describe sets what is kept with an object.
func describe(req *http.Request, src backends.Source, create bool) {
	req.Header.Set("Content-Type", "application/octet-stream")
	if sum, ok := strings.CutPrefix(src.Digest, "sha256:"); ok {
		req.Header.Set(sumHeader, sum)
	}
	if !src.Modified.IsZero() {
		req.Header.Set(timeHeader, fmt.Sprintf("%d.%09d", src.Modified.Unix(), src.Modified.Nanosecond()))
	}
	if create {
		req.Header.Set("If-None-Match", "*")
	}
}

// A change is what gives a path other bytes.
type change struct {
	path   string
	old    string // as in files.Writer
	commit func() error
	etag   string // of the new object
}

// change has write make the object, if what is there now is what is to be replaced. With create
// write must see to it that nothing is.
func (s *store) change(ctx context.Context, c change, write func(ctx context.Context, create bool) error) (files.File, error) {
	unlock, err := s.locks.Lock(ctx, c.path)
	if err != nil {
		return files.File{}, err
	}
	defer unlock()
	before, err := s.look(ctx, c.path, c.old)
	if err != nil {
		return files.File{}, err
	}
	if err := c.commit(); err != nil {
		return files.File{}, err
	}
	err = write(ctx, c.old == "")
	if errors.Is(err, fs.ErrNotExist) { // a container that was there: the next try makes it
		s.known.Delete(s.at(c.path).container)
		s.known.Delete(s.at(c.path).container + segments)
	}
	switch {
	case errors.Is(err, fs.ErrExist) && c.old == "":
		return files.File{}, errTaken
	case errors.Is(err, fs.ErrExist):
		return files.File{}, fmt.Errorf("%w: %v", backends.ErrChanged, err)
	case err != nil:
		return files.File{}, err
	}
	s.removeSegments(ctx, before)
	made, _, err := s.head(ctx, c.path, newest)
	if err == nil && made.Version != c.etag {
		err = fmt.Errorf("%w: somebody else has replaced it at the same time", backends.ErrChanged)
	}
	return made, err
}

var errTaken = backends.Saying(fs.ErrExist, "the tag was taken meanwhile")

// look compares what a path means with what is to be replaced, and returns the segments that
// nothing is made of then.
func (s *store) look(ctx context.Context, path, old string) ([]object, error) {
	now, h, err := s.head(ctx, path, newest)
	switch {
	case errors.Is(err, fs.ErrNotExist) && old != "" && old != backends.ReplaceAny:
		return nil, backends.ErrChanged
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case old == "":
		return nil, errTaken
	case old != backends.ReplaceAny && now.Version != old:
		return nil, backends.ErrChanged
	}
	return s.segmentsOf(ctx, path, h)
}

// Remove implements files.Writer. Swift knows no condition for that either.
func (s *store) Remove(ctx context.Context, f files.File) error {
	unlock, err := s.locks.Lock(ctx, f.Path)
	if err != nil {
		return err
	}
	defer unlock()
	now, h, err := s.head(ctx, f.Path, newest)
	if err != nil {
		return err
	}
	if now.Version != f.Version {
		return backends.ErrChanged
	}
	var parts []object
	if h.Get(dynamicHeader) != "" {
		if parts, err = s.segmentsOf(ctx, f.Path, h); err != nil {
			return err
		}
	}
	if err := s.remove(ctx, s.at(f.Path), isLarge(h)); err != nil {
		return err
	}
	s.removeSegments(ctx, parts)
	return nil
}

// remove removes an object, with its segments if it is a large one.
func (s *store) remove(ctx context.Context, o object, large bool) error {
	query := url.Values{}
	if large {
		query.Set("multipart-manifest", "delete")
	}
	resp, err := s.do(ctx, http.MethodDelete, o, query, func(req *http.Request) error {
		req.Header.Set("Accept", "application/json")
		return nil
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !large || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	return bulkResult(resp)
}

// Duplicate implements files.Duplicator.
func (s *store) Duplicate(ctx context.Context, f files.File, path, old string, commit func() error) (files.File, error) {
	from, to := s.at(f.Path), s.at(path)
	if err := s.ensure(ctx, to.container); err != nil {
		return files.File{}, err
	}
	if commit == nil {
		commit = func() error { return nil }
	}
	before, h, err := s.head(ctx, f.Path, newest)
	switch {
	case err != nil:
		return files.File{}, err
	case before.Version != f.Version:
		return files.File{}, backends.ErrChanged
	case isLarge(h):
		return s.duplicateLarge(ctx, f, path, old, commit)
	case h.Get(dynamicHeader) != "":
		return files.File{}, fmt.Errorf("%w: it is a dynamic large object", errors.ErrUnsupported)
	}
	return s.change(ctx, change{path: path, old: old, commit: commit, etag: f.Version}, func(ctx context.Context, _ bool) error {
		return s.copy(ctx, from, to, f.Version, "")
	})
}

// copy has Swift copy an object in one piece, if it still has that ETag. What it has by now at
// the other end is replaced: the condition is on the original alone.
func (s *store) copy(ctx context.Context, from, to object, etag, expires string) error {
	resp, err := s.do(ctx, "COPY", from, nil, func(req *http.Request) error {
		req.Header.Set("Destination", url.PathEscape(to.container)+"/"+escapeName(to.name))
		req.Header.Set("If-Match", strconv.Quote(etag))
		if expires != "" {
			req.Header.Set("X-Delete-At", expires)
		}
		return nil
	}, http.StatusPreconditionFailed)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusPreconditionFailed {
		return backends.ErrChanged
	}
	return nil
}

// ensure makes the container that an object is to be put into, if it is not there.
func (s *store) ensure(ctx context.Context, container string) error {
	if known, _ := s.known.Get(container); known {
		return nil
	}
	resp, err := s.do(ctx, http.MethodHead, object{container: container}, nil, nil, http.StatusForbidden, http.StatusNotFound)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		if err := s.create(ctx, container, nil); err != nil {
			return err
		}
	}
	// Who may not look at it may write into it all the same.
	s.known.Put(container, true)
	return nil
}

func (s *store) create(ctx context.Context, container string, h http.Header) error {
	resp, err := s.do(ctx, http.MethodPut, object{container: container}, nil, func(req *http.Request) error {
		for name := range h {
			req.Header.Set(name, h.Get(name))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
