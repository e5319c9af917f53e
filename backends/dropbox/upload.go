// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"slices"
	"sync"
	"time"

	sdk "github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox"
	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/files"
	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
)

const (
	// pieceSize is client.piece: sessions with parallel requests demand a
	// multiple of 4 MiB. What is not larger goes in one request without a session.
	pieceSize = 8 << 20
	parallel  = 4                  // pieces of one push under way
	inMemory  = 8                  // pieces of all pushes of a remote in memory
	lifetime  = 6 * 24 * time.Hour // of a session; Dropbox drops it after seven days
)

// upload stores all bytes where nobody sees them, and returns what makes them
// the file. Pieces that an earlier try stored are read (the digest of the whole
// is checked) but not sent.
func (p *push) upload(ctx context.Context) (commit, error) {
	if err := p.start(ctx); err != nil {
		return nil, err
	}
	u := &upload{push: p, whole: sha256.New(), all: newContentHash()}
	last, err := u.pieces(ctx)
	defer p.slots.leave(last.text)
	if err == nil {
		err = u.check()
	}
	if err == nil {
		err = u.end(ctx, last)
	}
	if lost(err) {
		p.memo.Forget()
		return nil, fmt.Errorf("%w: Dropbox lost the upload: %v", backends.ErrUnavailable, err)
	}
	return p.commitSession, err
}

// lost reports whether err says that a session cannot be gone on with.
func lost(err error) bool {
	return has(err, "lookup_failed", "not_found", "closed", "not_closed", "too_large", "incorrect_offset",
		files.UploadSessionFinishErrorConcurrentSessionMissingData, files.UploadSessionFinishErrorConcurrentSessionNotClosed,
		files.UploadSessionLookupErrorConcurrentSessionInvalidOffset, files.UploadSessionLookupErrorConcurrentSessionInvalidDataSize)
}

// Slots bound the memory of all pushes together: each is a piece. A buffer is
// not used twice, since a transport may still read it after its answer.
type slots chan struct{}

// take waits for a slot and returns a buffer of n bytes.
func (s slots) take(ctx context.Context, n int64) ([]byte, error) {
	select {
	case s <- struct{}{}:
		return make([]byte, n), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// leave gives the slot of a buffer back; nil has none.
func (s slots) leave(buf []byte) {
	if buf != nil {
		<-s
	}
}

// start begins a session unless one was saved.
func (p *push) start(ctx context.Context) error {
	if p.memo.State.Session != "" && time.Since(p.memo.State.Started) < lifetime && p.memo.State.Piece == p.piece {
		return nil
	}
	arg := files.NewUploadSessionStartArg()
	arg.SessionType = &files.UploadSessionType{Tagged: sdk.Tagged{Tag: files.UploadSessionTypeConcurrent}}
	res, err := p.files.UploadSessionStartContext(ctx, arg, nil)
	if err != nil {
		return translate(ctx, err)
	}
	if res == nil || res.SessionId == "" {
		return fmt.Errorf("%w: an upload session without an id", backends.ErrBadAnswer)
	}
	p.memo.State = pushState{Session: res.SessionId, Started: time.Now(), Piece: p.piece}
	p.memo.Save()
	return nil
}

// An upload is the sending of all pieces.
type upload struct {
	*push
	whole hash.Hash
	all   *contentHash

	mu     sync.Mutex // guards the push's state and the field below
	stored int64      // bytes
}

// A piece is a part of the file in one of the buffers.
type piece struct {
	off  int64
	text []byte
}

// pieces reads the file in order and sends all pieces but the last, several at
// once. The goroutines end before it returns.
func (u *upload) pieces(ctx context.Context) (last piece, err error) {
	// After an error no more pieces are read, but those under way go on: what
	// is stored need not be sent again.
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	before := pushState{Piece: u.piece, Stored: slices.Clone(u.memo.State.Stored)}
	for off := int64(0); off < u.src.Size && err == nil; off += u.piece {
		var next piece
		if next, err = u.read(reading, off); err != nil {
			break
		}
		if off+u.piece >= u.src.Size {
			last = next
			break
		}
		if before.has(off) {
			u.done(next, false)
			u.slots.leave(next.text)
			continue
		}
		g.Go(func() error {
			defer u.slots.leave(next.text)
			err := backends.Guard(nil, func() error { return u.send(ctx, next, false) })
			u.done(next, err == nil)
			return err
		})
	}
	if waitErr := backends.Raise(g.Wait()); waitErr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = waitErr // the reader only stopped because of it
	}
	return last, err
}

// read reads the piece at off into a buffer that is free.
func (u *upload) read(ctx context.Context, off int64) (piece, error) {
	text, err := u.slots.take(ctx, min(u.piece, u.src.Size-off))
	if err != nil {
		return piece{}, err
	}
	if n, err := u.src.Content.ReadAt(text, off); n < len(text) {
		u.slots.leave(text)
		return piece{}, fmt.Errorf("read what is to be pushed: %w", err)
	}
	u.whole.Write(text)
	u.all.Write(text) //nolint:errcheck // does not fail
	return piece{off: off, text: text}, nil
}

func (u *upload) send(ctx context.Context, p piece, closing bool) error {
	arg := files.NewUploadSessionAppendArg(files.NewUploadSessionCursor(u.memo.State.Session, uint64(p.off)))
	arg.Close, arg.ContentHash = closing, hashOf(p.text)
	return translate(ctx, u.files.UploadSessionAppendV2Context(ctx, arg, bytes.NewReader(p.text)))
}

// done counts a piece and, if it was sent, saves that.
func (u *upload) done(p piece, sent bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if sent {
		u.memo.State.set(p.off)
		u.memo.Save()
	}
	if u.memo.State.has(p.off) {
		u.stored += int64(len(p.text))
		if u.src.Progress != nil {
			u.src.Progress(u.stored)
		}
	}
}

// check compares what was read with what was promised, before anybody can see it.
func (u *upload) check() error {
	if sum := fmt.Sprintf("sha256:%x", u.whole.Sum(nil)); sum != u.src.Digest {
		u.memo.Forget()
		return fmt.Errorf("%w: the bytes to be pushed are %s, not %s", backends.ErrCorrupt, sum, u.src.Digest)
	}
	u.memo.State.Hash = u.all.sum()
	return nil
}

// end sends the last piece, which closes the session.
func (u *upload) end(ctx context.Context, last piece) error {
	if u.memo.State.has(last.off) {
		return nil
	}
	err := u.send(ctx, last, true)
	if has(err, files.UploadSessionAppendErrorClosed) {
		err = nil // an earlier try's answer was lost; the commit tells if not
	}
	if err == nil {
		u.done(last, true)
	}
	return err
}

func (p *push) commitSession(ctx context.Context, info *files.CommitInfo) (*files.FileMetadata, error) {
	arg := files.NewUploadSessionFinishArg(files.NewUploadSessionCursor(p.memo.State.Session, uint64(p.src.Size)), info)
	f, err := p.files.UploadSessionFinishContext(ctx, arg, nil)
	err = translate(ctx, err)
	if lost(err) && !has(err, "path") {
		p.memo.Forget()
		return nil, fmt.Errorf("%w: Dropbox lost the upload: %v", backends.ErrUnavailable, err)
	}
	return f, err
}

// A pushState is what is known of an earlier try of a push.
type pushState struct {
	Session string    `json:"session,omitempty"` // of the upload
	Started time.Time `json:"started,omitzero"`
	Piece   int64     `json:"piece,omitempty"`  // size in bytes
	Stored  []byte    `json:"stored,omitempty"` // one bit for each piece
	// Hash is the content_hash of the whole. It is set when the file is about
	// to get its name, so a file that has it may be ours.
	Hash string `json:"hash,omitempty"`
}

// has reports whether the piece at off is stored. s.Piece is not 0.
func (s *pushState) has(off int64) bool {
	i := off / s.Piece
	return i/8 < int64(len(s.Stored)) && s.Stored[i/8]&(1<<(i%8)) != 0
}

func (s *pushState) set(off int64) {
	i := off / s.Piece
	for i/8 >= int64(len(s.Stored)) {
		s.Stored = append(s.Stored, 0)
	}
	s.Stored[i/8] |= 1 << (i % 8)
}
