// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

const (
	pieceSize = 8 << 20            // of a part; what is not larger goes in one request
	maxParts  = 10_000             // of an object
	parallel  = 4                  // parts of one push under way
	inMemory  = 8 * pieceSize      // bytes of all pushes of a remote
	lifetime  = 6 * 24 * time.Hour // of an upload that is gone on with
)

// An upload is the sending of one image in parts.
type upload struct {
	*bucket
	path  string
	src   backends.Source
	memo  *uploads.Memo[pushState]
	whole hash.Hash

	mu     sync.Mutex // guards the memo's state and the field below
	stored int64      // bytes
}

// putParts is Put for what takes several requests. Parts that an earlier try stored are read
// (the digest of the whole is checked) but not sent. What an error leaves that another try
// cannot use is removed; the rest is for that try, and in the ledger.
func (b *bucket) putParts(ctx context.Context, path string, src backends.Source, old string) (files.File, error) {
	u := &upload{bucket: b, path: path, src: src, memo: b.recall(path, src), whole: sha256.New()}
	f, err := u.put(ctx, old)
	switch {
	case err == nil:
		u.ledger.forget(u.memo.State.Upload)
		u.memo.Forget()
	case code(err) == noSuchUpload:
		u.ledger.forget(u.memo.State.Upload)
		u.memo.Forget()
		// An earlier try may have ended it, and its answer was lost.
		if now, _, statErr := b.stat(ctx, path, nil); statErr == nil && now.Digest == src.Digest && now.Size == src.Size {
			return now, nil
		}
	case errors.Is(err, backends.ErrCorrupt), errors.Is(err, fs.ErrExist), errors.Is(err, backends.ErrChanged):
		u.abandon(ctx)
	}
	return f, err
}

func (u *upload) put(ctx context.Context, old string) (files.File, error) {
	if err := u.start(ctx); err != nil {
		return files.File{}, err
	}
	if err := u.send(ctx); err != nil {
		return files.File{}, err
	}
	if sum := fmt.Sprintf("sha256:%x", u.whole.Sum(nil)); sum != u.src.Digest {
		return files.File{}, fmt.Errorf("%w: the bytes to be pushed are %s, not %s", backends.ErrCorrupt, sum, u.src.Digest)
	}
	tag, err := u.complete(ctx, u.path, u.memo.State.Upload, u.memo.State.Tags, old, u.src.MayCommit)
	if err != nil {
		return files.File{}, err
	}
	return u.bucket.stored(ctx, u.path, u.src, tag)
}

// start begins an upload unless one was saved.
func (u *upload) start(ctx context.Context) error {
	state := &u.memo.State
	if state.Upload != "" && time.Since(state.Started) < lifetime && state.Piece > 0 && int64(len(state.Tags)) == parts(u.src.Size, state.Piece) {
		return nil
	}
	u.sweep(ctx)
	piece := u.piece
	for parts(u.src.Size, piece) > maxParts {
		piece *= 2
	}
	id, err := u.begin(ctx, u.path, metadata(u.src))
	if err != nil {
		return err
	}
	*state = pushState{Upload: id, Started: time.Now(), Piece: piece, Tags: make([]string, parts(u.src.Size, piece))}
	u.ledger.note(u.where(), u.key(u.path), id)
	u.memo.Save()
	return nil
}

func parts(size, piece int64) int64 { return (size + piece - 1) / piece }

// begin begins an upload in parts.
func (b *bucket) begin(ctx context.Context, path string, header http.Header) (id string, err error) {
	var begun struct {
		XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
		UploadID string   `xml:"UploadId"`
	}
	err = b.ask(ctx, request{method: http.MethodPost, key: b.key(path), query: url.Values{"uploads": {""}}, header: header}, &begun)
	if err == nil && begun.UploadID == "" {
		err = fmt.Errorf("%w: an upload without an id", backends.ErrBadAnswer)
	}
	return begun.UploadID, err
}

// send reads the file in order and sends its parts, several at once. The goroutines end before
// it returns.
func (u *upload) send(ctx context.Context) error {
	// After an error no more parts are read, but those under way go on: what is stored need not
	// be sent again.
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	var err error
	for i := range u.memo.State.Tags {
		off := int64(i) * u.memo.State.Piece
		n := min(u.memo.State.Piece, u.src.Size-off)
		held := min(n, inMemory)
		if err = u.memory.Acquire(reading, held); err != nil {
			break
		}
		text := make([]byte, n)
		if got, readErr := u.src.Content.ReadAt(text, off); int64(got) < n {
			u.memory.Release(held)
			err = fmt.Errorf("read what is to be pushed: %w", readErr)
			break
		}
		u.whole.Write(text)
		if u.has(i, n) {
			u.memory.Release(held)
			continue
		}
		g.Go(func() error {
			defer u.memory.Release(held)
			return backends.Guard(nil, func() error {
				tag, err := u.part(ctx, i, text)
				if err == nil {
					u.done(i, n, tag)
				}
				return err
			})
		})
	}
	if waitErr := backends.Raise(g.Wait()); waitErr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = waitErr // the reader only stopped because of it
	}
	return err
}

// has reports whether a part of n bytes is stored, and counts it then.
func (u *upload) has(i int, n int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.memo.State.Tags[i] == "" {
		return false
	}
	u.count(n)
	return true
}

// done keeps that a part of n bytes is stored.
func (u *upload) done(i int, n int64, tag string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.memo.State.Tags[i] = tag
	u.memo.Save()
	u.count(n)
}

func (u *upload) count(n int64) {
	u.stored += n
	if u.src.Progress != nil {
		u.src.Progress(u.stored)
	}
}

// part stores one part.
func (u *upload) part(ctx context.Context, i int, text []byte) (tag string, err error) {
	r := request{method: http.MethodPut, key: u.key(u.path), query: partOf(u.memo.State.Upload, i), body: text}
	resp, err := u.do(ctx, r)
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	if tag = unquote(resp.Header.Get("ETag")); tag == "" {
		err = fmt.Errorf("%w: a part was stored, without an ETag", backends.ErrBadAnswer)
	}
	return tag, err
}

func partOf(upload string, i int) url.Values {
	return url.Values{"uploadId": {upload}, "partNumber": {strconv.Itoa(i + 1)}}
}

type completed struct {
	XMLName xml.Name        `xml:"CompleteMultipartUpload"`
	Parts   []completedPart `xml:"Part"`
}

type completedPart struct {
	PartNumber int
	ETag       string
}

// complete gives a path to the parts, on condition that it still means old. commit, if not nil,
// is asked right before.
func (b *bucket) complete(ctx context.Context, path, upload string, tags []string, old string, commit func() error) (tag string, err error) {
	var list completed
	for i, tag := range tags {
		list.Parts = append(list.Parts, completedPart{i + 1, quote(tag)})
	}
	var body bytes.Buffer
	if err := xml.NewEncoder(&body).Encode(list); err != nil {
		return "", err
	}
	header, err := b.condition(ctx, path, old)
	if err != nil {
		return "", err
	}
	header.Set("Content-Type", "application/xml")
	if commit != nil {
		if err := commit(); err != nil {
			return "", err
		}
	}
	var made struct {
		XMLName xml.Name `xml:"CompleteMultipartUploadResult"`
		ETag    string
	}
	r := request{method: http.MethodPost, key: b.key(path), query: url.Values{"uploadId": {upload}}, header: header, body: body.Bytes()}
	if err = b.ask(ctx, r, &made); err != nil {
		return "", b.lostTo(ctx, err, path, old)
	}
	return made.ETag, nil
}

// abandon removes the upload and what is known of it.
func (u *upload) abandon(ctx context.Context) {
	id := u.memo.State.Upload
	u.memo.Forget()
	if id == "" {
		return
	}
	if err := u.abort(ctx, u.key(u.path), id); err != nil {
		u.log.Warn("an upload that is no use stays at the service", "remote", u.remote, "key", u.key(u.path), "err", err)
		return // it is in the ledger
	}
	u.ledger.forget(id)
}

// abort removes an upload in parts. That it is gone is success.
func (b *bucket) abort(ctx context.Context, key, id string) error {
	resp, err := b.do(ctx, request{method: http.MethodDelete, key: key, query: url.Values{"uploadId": {id}}})
	if errors.Is(err, fs.ErrNotExist) || code(err) == noSuchUpload {
		return nil
	}
	if err != nil {
		return err
	}
	resp.Body.Close()
	return nil
}
