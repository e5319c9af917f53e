// SPDX-License-Identifier: Apache-2.0

package webdav

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
)

// Nextcloud takes large files in chunks, as its developer manual describes ("Chunked file
// upload", version 2; ownCloud's is the same but for a header that it ignores): a folder for the
// upload, numbered files in it, and a MOVE of ".file" that puts them together. What it has is
// listed, so an upload that broke off goes on with what is missing. It forgets one after a day.

const (
	chunkSize    = 16 << 20 // bytes; the manual demands 5 MB to 5 GB
	maxChunks    = 10_000
	parallel     = 4 // chunks of one push under way
	filesFolder  = "/remote.php/dav/files/"
	uploadFolder = "/remote.php/dav/uploads/"
)

// chunkFolder returns the address of the folder for uploads that goes with home; "" if home is
// not the files of a user of Nextcloud's.
func chunkFolder(home *url.URL) string {
	before, after, ok := strings.Cut(home.EscapedPath(), filesFolder)
	user, _, _ := strings.Cut(after, "/")
	if !ok || user == "" {
		return ""
	}
	return home.Scheme + "://" + home.Host + before + uploadFolder + user
}

// chunked reports whether the push goes in chunks.
func (p *push) chunked() bool { return p.chunks != "" && !p.noChunks.Load() && p.src.Size > p.chunk }

// sendChunks stores all bytes as chunks, and has them put together as the stage.
func (p *push) sendChunks(ctx context.Context, folder string) error {
	stored, err := p.begin(ctx, folder)
	if err != nil {
		return err
	}
	u := &chunkUpload{push: p, stored: stored}
	if err := u.run(ctx); err != nil {
		return u.lost(err)
	}
	p.memo.State.Assembled = true
	p.memo.Save()
	header := p.chunkHeader()
	maps.Copy(header, p.facts())
	header.Set("Overwrite", "T")
	err = p.send(ctx, question{method: "MOVE", address: p.upload() + "/.file", header: header}, http.StatusOK, http.StatusCreated, http.StatusNoContent)
	return u.lost(err)
}

// upload is the address of the folder with the chunks.
func (p *push) upload() string { return p.chunks + "/" + p.memo.State.Upload }

func (p *push) chunkHeader() http.Header {
	return http.Header{"Destination": {p.address(p.memo.State.Stage)}, "Oc-Total-Length": {strconv.FormatInt(p.src.Size, 10)}}
}

// begin returns the sizes of the chunks that an earlier try has stored, by number, or begins
// an upload.
func (p *push) begin(ctx context.Context, folder string) (map[int64]int64, error) {
	if p.memo.State.Upload != "" && p.memo.State.Chunk > 0 {
		stored, err := p.listChunks(ctx)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return stored, err
		}
	}
	if err := p.makeFolder(ctx, folder); err != nil { // Nextcloud looks at it
		return nil, err
	}
	p.memo.State = pushState{
		Stage: newStage(folder), Upload: strings.ToLower("sregfs-" + rand.Text()),
		Chunk: max(p.chunk, (p.src.Size+maxChunks-1)/maxChunks),
	}
	p.memo.Save()
	err := p.send(ctx, question{method: "MKCOL", address: p.upload(), header: p.chunkHeader()}, http.StatusCreated)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) { // ownCloud Infinite Scale, for one
		p.noChunks.Store(true)
		p.memo.Forget()
	}
	return nil, err
}

func (p *push) listChunks(ctx context.Context) (map[int64]int64, error) {
	stored := map[int64]int64{}
	_, err := p.properties(ctx, p.upload()+"/", "1", func(r response) error {
		path, _ := hrefPath(r.Href)
		_, base := files.Split(path)
		if n, err := strconv.ParseInt(base, 10, 64); err == nil && len(stored) < maxChunks {
			f, err := r.file(base)
			stored[n] = f.Size
			return err
		}
		return nil
	})
	return stored, err
}

// A chunkUpload is the sending of all chunks.
type chunkUpload struct {
	*push
	stored map[int64]int64

	mu   sync.Mutex // guards the field below
	done int64      // bytes
}

// run sends the chunks that are missing, several at once, and compares the digest of the whole
// meanwhile. The goroutines end before it returns.
func (u *chunkUpload) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel + 1)
	g.Go(func() error {
		return backends.Guard(u.log, func() error {
			whole := newContent(backends.Source{Content: u.src.Content, Size: u.src.Size})
			if _, err := io.Copy(io.Discard, contextReader{ctx, whole}); err != nil {
				return err
			}
			return whole.check(u.src.Digest)
		})
	})
	size := u.memo.State.Chunk
	for n := int64(1); (n-1)*size < u.src.Size && ctx.Err() == nil; n++ {
		off := (n - 1) * size
		length := min(size, u.src.Size-off)
		if u.stored[n] == length {
			u.progress(length)
			continue
		}
		g.Go(func() error { return backends.Guard(u.log, func() error { return u.chunk(ctx, n, off, length) }) })
	}
	return backends.Raise(g.Wait())
}

func (u *chunkUpload) chunk(ctx context.Context, n, off, length int64) error {
	err := u.send(ctx, question{
		method: http.MethodPut, address: fmt.Sprintf("%s/%05d", u.upload(), n), header: u.chunkHeader(), size: length,
		body: func() io.Reader { return io.NewSectionReader(u.src.Content, off, length) },
	}, http.StatusOK, http.StatusCreated, http.StatusNoContent)
	if err == nil {
		u.progress(length)
	}
	return err
}

func (u *chunkUpload) progress(n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done += n
	if u.src.Progress != nil {
		u.src.Progress(u.done)
	}
}

// lost makes of an error that says that the server has forgotten the upload one after which
// the push begins anew.
func (u *chunkUpload) lost(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist):
		u.memo.Forget()
		return fmt.Errorf("%w: the server lost the upload: %v", backends.ErrUnavailable, err)
	case errors.Is(err, backends.ErrCorrupt):
		u.discardUpload()
	}
	return err
}

// discardUpload removes the chunks: they are not what was promised.
func (p *push) discardUpload() {
	ctx, cancel := context.WithTimeout(context.Background(), undoTime)
	defer cancel()
	if err := p.send(ctx, question{method: http.MethodDelete, address: p.upload()}, http.StatusOK, http.StatusNoContent); err != nil {
		p.log.Warn("chunks of an upload are not removed", "upload", p.memo.State.Upload, "err", err)
	}
	p.memo.Forget()
}

// A contextReader ends with its context.
type contextReader struct {
	ctx context.Context //nolint:containedctx // of the one copy that reads it
	io.Reader
}

func (r contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}
