// SPDX-License-Identifier: Apache-2.0

package webdav

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

// How an image is pushed: its bytes go to a hidden name beside the one that it shall have (a
// stage), are looked at there, and get their name by one MOVE. What is killed on the way leaves
// a hidden file, which a later push to the folder removes.

const (
	dayLayout   = "20060102"
	leftoverAge = 7 * 24 * time.Hour
	maxNoted    = 100 // leftovers of one folder
	undoTime    = 10 * time.Second
)

// A pushState is what is known of an earlier try of a push.
type pushState struct {
	Stage   string `json:"stage,omitempty"`   // path of the hidden file
	Version string `json:"version,omitempty"` // of it, once it is whole

	Upload    string `json:"upload,omitempty"` // name of the folder with the chunks
	Chunk     int64  `json:"chunk,omitempty"`  // bytes of one of them
	Assembled bool   `json:"assembled,omitempty"`
}

// newStage returns a hidden path in a folder. It tells the day: the file's own time can be the
// image's.
func newStage(folder string) string {
	return files.Join(folder, files.Hidden+time.Now().UTC().Format(dayLayout)+"-"+rand.Text())
}

// A push is one call of Put.
type push struct {
	*store
	src  backends.Source
	memo *uploads.Memo[pushState]
}

// Put implements files.Writer.
func (s *store) Put(ctx context.Context, path string, src backends.Source, old string) (files.File, error) {
	p := &push{store: s, src: src, memo: uploads.Recall[pushState](&s.unsaved, path, src, s.log)}
	folder, _ := files.Split(path)
	staged, err := p.stage(ctx, folder)
	if err != nil {
		return files.File{}, err
	}
	f, err := s.publish(ctx, staged, path, old, src.MayCommit)
	switch {
	case err == nil:
		p.memo.Forget()
		s.sweep(ctx, folder)
	case errors.Is(err, fs.ErrNotExist): // another push of the same bytes had the same stage
		p.memo.Forget()
		err = fmt.Errorf("%w: the upload is gone: %v", backends.ErrUnavailable, err)
	case !errors.Is(err, backends.ErrUnavailable) && ctx.Err() == nil:
		p.drop(ctx)
	}
	return f, err
}

// stage stores the bytes under a hidden name in a folder.
func (p *push) stage(ctx context.Context, folder string) (files.File, error) {
	if staged, ok, err := p.staged(ctx); ok || err != nil {
		return staged, err
	}
	var err error
	if p.chunked() {
		err = p.sendChunks(ctx, folder)
	}
	if !p.chunked() { // or it has been found out that there are none
		err = p.sendWhole(ctx, folder)
	}
	if err != nil {
		return files.File{}, err
	}
	staged, err := p.Stat(ctx, p.memo.State.Stage)
	if err != nil {
		return files.File{}, err
	}
	if staged.Size != p.src.Size || staged.Digest != "" && staged.Digest != p.src.Digest {
		p.drop(ctx)
		return files.File{}, fmt.Errorf("%w: the server stored %d bytes (%s) of %d (%s)", backends.ErrBadAnswer, staged.Size, staged.Digest, p.src.Size, p.src.Digest)
	}
	if err := p.describe(ctx, &staged, p.src.Digest, p.src.Modified); err != nil {
		return files.File{}, err
	}
	p.memo.State.Version = staged.Version
	p.memo.Save()
	return staged, nil
}

// staged returns what an earlier try has stored whole.
func (p *push) staged(ctx context.Context) (f files.File, ok bool, err error) {
	state := &p.memo.State
	switch {
	case state.Stage == "":
		return f, false, nil
	case state.Version == "" && state.Upload != "" && !state.Assembled:
		return f, false, nil // goes on
	}
	f, err = p.Stat(ctx, state.Stage)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return f, false, err
	case err == nil && f.Size == p.src.Size && (f.Version == state.Version || state.Version == "" && state.Assembled):
		return f, true, nil
	case err == nil:
		p.drop(ctx) // half of it; who knows whether that request still writes
	case state.Upload != "": // not put together yet, or published since: what the server has of it tells
		state.Assembled, state.Version = false, ""
	default:
		p.memo.Forget()
	}
	return f, false, nil
}

// drop removes the stage. If that fails the next try of this push does it, or it is a leftover.
func (p *push) drop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if p.discard(ctx, p.memo.State.Stage) {
		p.memo.Forget()
	}
}

// discard removes a hidden file, and reports whether it is gone.
func (s *store) discard(ctx context.Context, path string) bool {
	err := s.send(ctx, question{method: http.MethodDelete, address: s.address(path)}, http.StatusOK, http.StatusNoContent)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("an upload is not removed", "path", path, "err", err)
		return false
	}
	return true
}

// sendWhole stores all bytes by one PUT.
func (p *push) sendWhole(ctx context.Context, folder string) error {
	p.memo.State = pushState{Stage: newStage(folder)}
	p.memo.Save()
	err := p.put(ctx)
	if missing(err) {
		if err = p.makeFolder(ctx, folder); err == nil {
			err = p.put(ctx)
		}
	}
	if err != nil {
		p.drop(ctx)
	}
	return err
}

// missing reports whether err can mean that a folder above is not there: 409, and 404 from
// some (RFC 4918, 9.7.1).
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) }

func (p *push) put(ctx context.Context) error {
	var body *content
	err := p.send(ctx, question{
		method: http.MethodPut, address: p.address(p.memo.State.Stage), header: p.facts(),
		body: func() io.Reader { body = newContent(p.src); return body }, size: p.src.Size,
	}, http.StatusOK, http.StatusCreated, http.StatusNoContent)
	if err != nil {
		if body != nil {
			return cmp.Or(body.failed(), err)
		}
		return err
	}
	if body == nil {
		body = newContent(p.src) // nothing
	}
	return body.check(p.src.Digest)
}

// facts are the headers with which Nextcloud and ownCloud keep the time and the digest.
func (p *push) facts() http.Header {
	h := http.Header{"Content-Type": {"application/octet-stream"}, "Oc-Checksum": {"SHA256:" + strings.TrimPrefix(p.src.Digest, "sha256:")}}
	if !p.src.Modified.IsZero() {
		h.Set("X-OC-Mtime", strconv.FormatInt(p.src.Modified.Unix(), 10))
	}
	return h
}

// A content is the body of a PUT, hashed as it goes. A server may answer while the transport
// still reads it.
type content struct {
	from     io.Reader
	size     int64
	progress func(int64)

	mu   sync.Mutex // guards the fields below
	sum  hash.Hash
	sent int64
	err  error // that the source gave
}

func newContent(src backends.Source) *content {
	return &content{from: io.NewSectionReader(src.Content, 0, src.Size), size: src.Size, sum: sha256.New(), progress: src.Progress}
}

func (c *content) Read(b []byte) (int, error) {
	n, err := c.from.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum.Write(b[:n])
	c.sent += int64(n)
	if n > 0 && c.progress != nil {
		c.progress(c.sent)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = fmt.Errorf("read what is to be pushed: %w", err)
	}
	return n, err
}

func (c *content) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// check compares what was sent.
//
// Errors: backends.ErrCorrupt for another digest; backends.ErrBadAnswer if not all was sent,
// though the server says that it has it.
func (c *content) check(digest string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent != c.size {
		return fmt.Errorf("%w: the server took %d bytes for %d", backends.ErrBadAnswer, c.sent, c.size)
	}
	if sum := fmt.Sprintf("sha256:%x", c.sum.Sum(nil)); sum != digest {
		return fmt.Errorf("%w: the bytes to be pushed are %s, not %s", backends.ErrCorrupt, sum, digest)
	}
	return nil
}

// makeFolder makes a folder and those above it that are missing.
func (s *store) makeFolder(ctx context.Context, folder string) error {
	resp, err := s.do(ctx, question{method: "MKCOL", address: s.folder(folder)},
		http.StatusMethodNotAllowed, http.StatusConflict, http.StatusNotFound)
	if errors.Is(err, fs.ErrPermission) && s.isFolder(ctx, folder) { // so says Apache if another request just made it
		return nil
	}
	if err != nil {
		return err
	}
	resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusCreated || resp.StatusCode == http.StatusMethodNotAllowed: // 405: it is there
		return nil
	case resp.StatusCode/100 == 2:
		return fmt.Errorf("%w: status %d for MKCOL", backends.ErrBadAnswer, resp.StatusCode)
	case folder == "":
		return backends.NotFound("the folder of the remote, nor the one above it (make it on the server, or correct url)")
	}
	above, _ := files.Split(folder)
	if err := s.makeFolder(ctx, above); err != nil {
		return err
	}
	err = s.send(ctx, question{method: "MKCOL", address: s.folder(folder)}, http.StatusCreated)
	if err != nil && s.isFolder(ctx, folder) {
		return nil
	}
	return err
}

func (s *store) isFolder(ctx context.Context, folder string) (is bool) {
	_, err := s.properties(ctx, s.folder(folder), "0", func(r response) error {
		f, err := r.file(folder)
		is = f.Folder
		return err
	})
	return is && err == nil
}

// noteLeftover notes a hidden file of a listing that no push can need any more.
func (s *store) noteLeftover(folder string, f files.File) {
	_, base := files.Split(f.Path)
	rest, ok := strings.CutPrefix(base, files.Hidden)
	day, _, dated := strings.Cut(rest, "-")
	made, err := time.Parse(dayLayout, day)
	if !ok || !dated || err != nil || f.Folder || time.Since(made) < leftoverAge {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if noted := s.leftovers[folder]; len(noted) < maxNoted {
		s.leftovers[folder] = append(noted, f)
	}
}

// sweep removes the leftovers that were noted in a folder.
func (s *store) sweep(ctx context.Context, folder string) {
	s.mu.Lock()
	noted := s.leftovers[folder]
	delete(s.leftovers, folder)
	s.mu.Unlock()
	for _, f := range noted {
		s.discard(ctx, f.Path)
	}
}
