// SPDX-License-Identifier: Apache-2.0

package gcs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/google"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

// What is large is sent in a session, which Google forgets after a week. Nothing of it can
// be seen, or costs, before its last byte is there.
// https://cloud.google.com/storage/docs/performing-resumable-uploads

// lifetime is how long a session is gone on with.
const lifetime = 6 * 24 * time.Hour

// statusCancelled is how Google says that a session was cancelled.
const statusCancelled = 499

// A session is what is known of an earlier try of a push.
type session struct {
	URL     string    `json:"url,omitempty"` // whoever knows it can go on with the upload
	Started time.Time `json:"started,omitzero"`
	Old     string    `json:"old,omitempty"` // the condition that it began with
}

// An upload is a push in a session.
type upload struct {
	*push
	memo  *uploads.Memo[session]
	asked bool // whether it may commit
}

// putLarge goes on with the session of an earlier try, if there is one.
func (p *push) putLarge(ctx context.Context) (files.File, error) {
	u := &upload{push: p, memo: uploads.Recall[session](&p.unsaved, p.prefix+p.path, p.src, p.log)}
	f, err := u.run(ctx)
	switch {
	case err == nil:
		u.memo.Forget()
	case hopeless(err) && ctx.Err() == nil:
		u.cancel(ctx)
	}
	return f, conflict(err, p.old)
}

// hopeless reports whether the answer to another try with the same session would be the same.
func hopeless(err error) bool {
	for _, status := range []int{http.StatusBadRequest, http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable} {
		if google.Status(err) == status {
			return true
		}
	}
	return errors.Is(err, backends.ErrBadAnswer) || errors.Is(err, backends.ErrCorrupt)
}

func (u *upload) run(ctx context.Context) (files.File, error) {
	f, at, err := u.start(ctx)
	for err == nil && f == nil {
		u.tell(at)
		from := at
		f, at, err = u.send(ctx, at)
		if err == nil && f == nil && at <= from {
			err = fmt.Errorf("%w: Google keeps none of what is sent", backends.ErrUnavailable)
		}
	}
	if err != nil {
		return files.File{}, err
	}
	return *f, nil
}

func (u *upload) tell(stored int64) {
	if u.src.Progress != nil {
		u.src.Progress(stored)
	}
}

// start returns how much is stored already, or the file if all is.
func (u *upload) start(ctx context.Context) (f *files.File, at int64, err error) {
	if old := u.memo.State; old.URL != "" {
		if time.Since(old.Started) < lifetime && old.Old == u.old && u.isOurs(old.URL) {
			f, at, err = u.ask(ctx, fmt.Sprintf("bytes */%d", u.src.Size), 0, nil)
			if u.memo.State.URL != "" {
				return f, at, err
			}
		}
		u.cancel(ctx) // it would replace something else, or is gone
	}
	address, about, err := u.upload("resumable")
	if err != nil {
		return nil, 0, err
	}
	req, err := request(ctx, http.MethodPost, address, int64(len(about)), func() io.Reader { return bytes.NewReader(about) })
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Content-Type", "application/json; charset=UTF-8")
	req.Header.Set("X-Upload-Content-Type", mediaType)
	req.Header.Set("X-Upload-Content-Length", strconv.FormatInt(u.src.Size, 10))
	resp, err := u.login.Do(req)
	if err != nil {
		return nil, 0, err
	}
	resp.Body.Close()
	location := resp.Header.Get("Location")
	if !u.isOurs(location) {
		return nil, 0, fmt.Errorf("%w: a session that is not at %s", backends.ErrBadAnswer, u.base)
	}
	u.memo.State = session{URL: location, Started: time.Now(), Old: u.old}
	u.memo.Save()
	return nil, 0, nil
}

// isOurs reports whether an address is the service's: the bytes and the login go there.
func (s *store) isOurs(address string) bool {
	home, _ := url.Parse(s.base)
	u, err := url.Parse(address)
	return err == nil && home != nil && u.Scheme == home.Scheme && u.Host == home.Host && u.User == nil
}

// send sends the next chunk. With the last one the object is made.
func (u *upload) send(ctx context.Context, at int64) (*files.File, int64, error) {
	n := min(u.chunk, u.src.Size-at)
	if n <= 0 {
		return nil, 0, fmt.Errorf("%w: Google has all %d bytes and makes nothing of them", backends.ErrBadAnswer, at)
	}
	if at+n == u.src.Size && !u.asked {
		if err := u.src.MayCommit(); err != nil {
			return nil, 0, err
		}
		u.asked = true
	}
	return u.ask(ctx, fmt.Sprintf("bytes %d-%d/%d", at, at+n-1, u.src.Size), n, func() io.Reader { return io.NewSectionReader(u.src.Content, at, n) })
}

// ask sends n bytes, or none, and returns how many are stored, or the file if all are.
//
// Errors: backends.ErrUnavailable if the session is gone, which is then forgotten.
func (u *upload) ask(ctx context.Context, contentRange string, n int64, body func() io.Reader) (*files.File, int64, error) {
	req, err := request(ctx, http.MethodPut, u.memo.State.URL, n, body)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Content-Range", contentRange)
	resp, err := u.login.Do(req, http.StatusPermanentRedirect, http.StatusNotFound, http.StatusGone, statusCancelled)
	if err != nil {
		return nil, 0, err
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated:
		f, err := u.made(resp)
		return &f, u.src.Size, err
	case http.StatusPermanentRedirect:
		resp.Body.Close()
		at, err := u.stored(resp.Header.Get("Range"))
		return nil, at, err
	}
	resp.Body.Close()
	u.memo.Forget()
	return nil, 0, fmt.Errorf("%w: Google has lost the upload (HTTP %d)", backends.ErrUnavailable, resp.StatusCode)
}

var storedRange = regexp.MustCompile(`^bytes=0-(\d{1,18})$`)

// stored reads how much is stored: without the header nothing is.
func (u *upload) stored(header string) (int64, error) {
	if header == "" {
		return 0, nil
	}
	if m := storedRange.FindStringSubmatch(header); m != nil {
		if last, err := strconv.ParseInt(m[1], 10, 64); err == nil && last < u.src.Size {
			return last + 1, nil
		}
	}
	return 0, fmt.Errorf("%w: Range %.40q of %d bytes", backends.ErrBadAnswer, header, u.src.Size)
}

// cancel forgets the session. That Google forgets it too is not waited for: it does after a
// week.
func (u *upload) cancel(ctx context.Context) {
	address := u.memo.State.URL
	u.memo.Forget()
	if !u.isOurs(address) {
		return
	}
	req, err := request(ctx, http.MethodDelete, address, 0, nil)
	if err != nil {
		return
	}
	if resp, err := u.login.Do(req, statusCancelled, http.StatusNotFound, http.StatusGone); err == nil {
		resp.Body.Close()
	} else {
		u.log.Debug("an upload was not cancelled", "remote", u.remote, "err", err)
	}
}
