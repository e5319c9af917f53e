// SPDX-License-Identifier: Apache-2.0

package drive

import (
	"context"
	"crypto/md5" //nolint:gosec // compared with what the service says, not trusted
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
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/google"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

// Uploads are resumable sessions: pieces in order, and a question that tells how many bytes
// are stored. The file appears with the last one, under a hidden name.
// https://developers.google.com/workspace/drive/api/guides/manage-uploads#resumable

const (
	pieceSize = 32 << 20           // client.piece
	lifetime  = 6 * 24 * time.Hour // of a session; Drive drops it after seven days
	maxFile   = 5 << 40            // bytes
)

// A pushState is what is known of an earlier try of a push.
type pushState struct {
	Session string    `json:"session,omitempty"` // address of the upload
	Started time.Time `json:"started,omitzero"`
	ID      string    `json:"id,omitempty"` // of the file, once it is whole
}

// An upload is one call of Put, up to the whole file under its hidden name.
type upload struct {
	*client
	src  backends.Source
	memo *uploads.Memo[pushState]

	hashed int64
	whole  hash.Hash
	md5    hash.Hash
}

// upload returns the file with the bytes of src. It goes on with what an earlier try has
// stored.
func (c *client) upload(ctx context.Context, memo *uploads.Memo[pushState], src backends.Source) (file, error) {
	if src.Size > maxFile {
		return file{}, fmt.Errorf("%w: %d bytes (Drive takes at most %d)", fs.ErrInvalid, src.Size, int64(maxFile))
	}
	u := &upload{client: c, src: src, memo: memo, whole: sha256.New(), md5: md5.New()} //nolint:gosec // as above
	if id := memo.State.ID; id != "" {
		f, err := c.get(ctx, id)
		if err == nil && !f.Trashed && f.digest() == src.Digest {
			return f, nil
		}
		if err != nil && !lost(err) {
			return file{}, err
		}
		memo.Forget()
	}
	f, err := u.store(ctx)
	if gone(err) {
		memo.Forget()
		return file{}, fmt.Errorf("%w: Drive lost the upload: %v", backends.ErrUnavailable, err)
	}
	if err != nil {
		return file{}, err
	}
	if err := u.check(f); err != nil {
		memo.Forget()
		return file{}, errors.Join(err, c.erase(context.WithoutCancel(ctx), f.ID))
	}
	memo.State = pushState{ID: f.ID}
	memo.Save()
	return f, nil
}

// errSession is a session that is no more.
var errSession = errors.New("no such session")

// gone reports whether err says that a session cannot be gone on with.
func gone(err error) bool { return errors.Is(err, errSession) }

// store sends what is not stored yet, and returns the file that becomes of it.
func (u *upload) store(ctx context.Context) (file, error) {
	stored := int64(0)
	if u.memo.State.Session != "" && time.Since(u.memo.State.Started) < lifetime {
		n, f, err := u.probe(ctx)
		if err != nil || f != nil {
			return value(f), err
		}
		stored = n
	} else if err := u.start(ctx); err != nil {
		return file{}, err
	}
	for {
		n := min(u.piece, u.src.Size-stored)
		if err := u.hash(stored + n); err != nil {
			return file{}, err
		}
		now, f, err := u.send(ctx, stored, n)
		if err != nil || f != nil {
			return value(f), err
		}
		if now <= stored || now > stored+n {
			return file{}, fmt.Errorf("%w: of %d bytes at %d, Drive has stored up to %d", backends.ErrUnavailable, n, stored, now)
		}
		if stored = now; u.src.Progress != nil {
			u.src.Progress(stored)
		}
	}
}

func value(f *file) file {
	if f == nil {
		return file{}
	}
	return *f
}

// start begins a session.
func (u *upload) start(ctx context.Context) error {
	root, err := u.makeBase(ctx)
	if err != nil {
		return err
	}
	state := stateUpload
	body := change{
		Name: files.Hidden + rand.Text(), MimeType: imageType, Parents: []string{root}, Modified: stamp(u.src.Modified),
		Properties: map[string]*string{stateKey: &state},
	}
	query := all("uploadType", "resumable", "fields", "kind,"+fileFields)
	req, err := httpx.NewRequest(ctx, http.MethodPost, u.Address()+"/upload/drive/v3/files?"+query.Encode(), body)
	if err != nil {
		return err
	}
	req.Header.Set("X-Upload-Content-Type", imageType)
	req.Header.Set("X-Upload-Content-Length", strconv.FormatInt(u.src.Size, 10))
	resp, err := u.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := httpx.ReadAll(resp.Body); err != nil {
		return err
	}
	session, err := u.home.Parse(resp.Header.Get("Location"))
	// The login goes with each piece, so nowhere else.
	if err != nil || session.Scheme != u.home.Scheme || session.Host != u.home.Host || session.User != nil || !strings.HasPrefix(session.Path, "/upload/") {
		return fmt.Errorf("%w: an upload without a session", backends.ErrBadAnswer)
	}
	u.memo.State = pushState{Session: session.String(), Started: time.Now()}
	u.memo.Save()
	return nil
}

// hash reads up to end. With the last byte it compares the digest: nothing appears before.
func (u *upload) hash(end int64) error {
	if n := end - u.hashed; n > 0 {
		read, err := io.Copy(io.MultiWriter(u.whole, u.md5), io.NewSectionReader(u.src.Content, u.hashed, n))
		if err == nil && read < n {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("read what is to be pushed: %w", err)
		}
		u.hashed = end
	}
	if end < u.src.Size {
		return nil
	}
	if sum := fmt.Sprintf("sha256:%x", u.whole.Sum(nil)); sum != u.src.Digest {
		u.memo.Forget()
		return fmt.Errorf("%w: the bytes to be pushed are %s, not %s", backends.ErrCorrupt, sum, u.src.Digest)
	}
	return nil
}

// send sends n bytes at off.
func (u *upload) send(ctx context.Context, off, n int64) (stored int64, f *file, err error) {
	part := func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(u.src.Content, off, n)), nil }
	span := fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, u.src.Size)
	if n == 0 {
		part = nil
		if span = ""; off > 0 {
			return u.probe(ctx) // all is there, and only the answer is missing
		}
	}
	return u.put(ctx, span, n, part)
}

// probe asks how many bytes are stored.
func (u *upload) probe(ctx context.Context) (stored int64, f *file, err error) {
	return u.put(ctx, fmt.Sprintf("bytes */%d", u.src.Size), 0, nil)
}

// put returns how many bytes are stored or, after the last one, the file.
func (u *upload) put(ctx context.Context, span string, n int64, body func() (io.ReadCloser, error)) (stored int64, f *file, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, u.memo.State.Session, http.NoBody)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %v", errSession, err)
	}
	if span != "" {
		req.Header.Set("Content-Range", span)
	}
	if body != nil {
		req.ContentLength, req.GetBody = n, body
		if req.Body, err = body(); err != nil {
			return 0, nil, err
		}
	}
	resp, err := u.do(req, http.StatusPermanentRedirect)
	if status := google.Status(err); status == http.StatusNotFound || status == http.StatusGone || status == http.StatusBadRequest {
		return 0, nil, fmt.Errorf("%w: %v", errSession, err)
	}
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusPermanentRedirect {
		if _, err := httpx.ReadAll(resp.Body); err != nil {
			return 0, nil, err
		}
		stored, err = storedBytes(resp.Header.Get("Range"), u.src.Size)
		return stored, nil, err
	}
	var made file
	if err := decode(resp.Body, &made); err != nil {
		return 0, nil, err
	}
	return 0, &made, made.check()
}

// storedBytes reads the Range of a 308: "bytes=0-LAST", or nothing for no byte.
func storedBytes(header string, size int64) (int64, error) {
	if header == "" {
		return 0, nil
	}
	last, err := strconv.ParseInt(strings.TrimPrefix(header, "bytes=0-"), 10, 64)
	if err != nil || last < 0 || last >= size {
		return 0, fmt.Errorf("%w: Range %.60q of an upload of %d bytes", backends.ErrBadAnswer, header, size)
	}
	return last + 1, nil
}

// check compares what Drive has stored with what was sent.
func (u *upload) check(f file) error {
	size, err := f.size()
	if err != nil {
		return err
	}
	want := u.src.Digest
	if strings.HasPrefix(f.digest(), "md5:") {
		if err := u.hash(u.src.Size); err != nil {
			return err
		}
		want = fmt.Sprintf("md5:%x", u.md5.Sum(nil))
	}
	if size != u.src.Size || f.digest() != "" && f.digest() != want {
		return fmt.Errorf("%w: Drive stored %d bytes with %s of %d with %s", backends.ErrCorrupt, size, f.digest(), u.src.Size, want)
	}
	return nil
}

// stamp is a time as Drive takes it; "" for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}
