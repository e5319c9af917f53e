// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/libapi"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

// An upload is what is known of a push from one try to the next.
type upload struct {
	Hidden  string `json:"hidden"`            // the name under which its bytes are
	Version string `json:"version,omitempty"` // what they are there, once they are whole
}

const (
	// maxSameTimes is how often a file is written anew that would have the version of the one it
	// replaces.
	maxSameTimes = 3
	// clockStep is the least difference of two times that Globus tells.
	clockStep = time.Second
)

// Put implements files.Writer: the bytes go to a hidden name, which becomes path by a rename.
// Globus can neither create nor replace under a condition: what path is, is looked at right
// before that.
func (s store) Put(ctx context.Context, path string, src backends.Source, old string) (files.File, error) {
	p, err := s.resolve(ctx, path)
	if err != nil {
		return files.File{}, err
	}
	if _, err := s.address(ctx, p); err != nil {
		return files.File{}, err // before a folder is made for nothing
	}
	if err := s.makeFolder(ctx, parent(p)); err != nil {
		return files.File{}, err
	}
	memo := uploads.Recall[upload](&s.unsaved, path, src, s.log)
	if !strings.HasPrefix(memo.State.Hidden, files.Hidden) || strings.Contains(memo.State.Hidden, "/") {
		memo.State = upload{Hidden: files.Hidden + rand.Text()}
		memo.Save()
	}
	hidden := place{p.endpoint, parent(p).path + "/" + memo.State.Hidden}
	stored, whole, err := s.written(ctx, hidden, path, memo.State.Version, old)
	if err == nil && !whole {
		if stored, err = s.write(ctx, hidden, path, src, old); err == nil {
			memo.State.Version = stored.Version
			memo.Save()
		}
	}
	if err == nil {
		err = s.commit(ctx, hidden, p, old, src.MayCommit)
	}
	if err != nil {
		if !errors.Is(err, backends.ErrUnavailable) && !errors.Is(err, backends.ErrRateLimited) { // those are tried again
			s.discard(ctx, hidden)
			memo.Forget()
		}
		return files.File{}, err
	}
	memo.Forget()
	return stored, nil
}

// written reports whether an earlier try has stored the bytes: only they, of the right digest,
// have that version.
func (s store) written(ctx context.Context, hidden place, path, version, old string) (f files.File, whole bool, err error) {
	if version == "" || version == old {
		return f, false, nil
	}
	f, err = s.statAt(ctx, hidden, path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, false, nil
	}
	return f, err == nil && f.Version == version, err
}

// write stores the bytes under a hidden name, and returns what path will be with them: another
// version than old.
func (s store) write(ctx context.Context, hidden place, path string, src backends.Source, old string) (files.File, error) {
	for range maxSameTimes {
		if err := s.upload(ctx, hidden, src); err != nil {
			return files.File{}, err
		}
		f, err := s.statAt(ctx, hidden, path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return files.File{}, fmt.Errorf("%w: the upload succeeded, but the file is not there", backends.ErrBadAnswer)
		case err != nil:
			return files.File{}, err
		case f.Size != src.Size:
			return files.File{}, fmt.Errorf("%w: the collection has %d bytes of %d", backends.ErrCorrupt, f.Size, src.Size)
		case f.Version != old:
			return f, nil
		}
		if err := wait(ctx, clockStep); err != nil {
			return files.File{}, err
		}
	}
	return files.File{}, fmt.Errorf("%w: the collection gives every file the same time", backends.ErrBadAnswer)
}

// upload sends the bytes.
func (s store) upload(ctx context.Context, hidden place, src backends.Source) error {
	u, err := s.address(ctx, hidden)
	if err != nil {
		return err
	}
	var content *libapi.Hashed
	resp, err := s.loggedIn(ctx, hidden.endpoint, func(token string) (*http.Response, error) {
		if content != nil {
			_ = content.Failed() // of the request that was refused nothing more is read
		}
		content = libapi.NewHashed(src.Content, 0, src.Size)
		content.Check = func() error { return libapi.SameDigest(src, content.SHA256()) }
		var sent int64
		content.Tell = func(n int) {
			if sent += int64(n); src.Progress != nil {
				src.Progress(sent)
			}
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, u.String(), io.NopCloser(content))
		if err != nil {
			return nil, err
		}
		req.ContentLength = src.Size
		req.Header.Set("Content-Type", "application/octet-stream")
		authorize(req, token)
		return httpx.Answer(s.http, req)
	})
	if content != nil {
		if failed := content.Failed(); failed != nil {
			err = failed
		}
	}
	if resp != nil {
		resp.Body.Close()
	}
	if errors.Is(err, backends.ErrUnavailable) {
		s.http.CloseIdleConnections() // see notFound
	}
	return err
}

// commit makes p what is under the hidden name, provided that it still is the version old.
func (s store) commit(ctx context.Context, hidden, p place, old string, may func() error) error {
	now, err := s.statAt(ctx, p, "")
	switch {
	case errors.Is(err, fs.ErrNotExist) && (old == "" || old == backends.ReplaceAny):
	case errors.Is(err, fs.ErrNotExist):
		return backends.ErrChanged
	case err != nil:
		return err
	case old == "":
		return backends.Saying(fs.ErrExist, "the tag is taken")
	case old != now.Version && old != backends.ReplaceAny:
		return backends.ErrChanged
	}
	if may != nil {
		if err := may(); err != nil {
			return err
		}
	}
	err = s.rename(ctx, hidden, p)
	if !errors.Is(err, fs.ErrExist) || old == "" {
		return err
	}
	// Some storage does not rename over what is there.
	aside := hiddenBeside(p)
	if err := s.rename(ctx, p, aside); err != nil {
		return err
	}
	if err := s.rename(ctx, hidden, p); err != nil {
		return errors.Join(err, s.putBack(ctx, aside, p))
	}
	s.discard(ctx, aside)
	return nil
}

// Remove implements files.Writer. A task that deletes waits its turn, and what it finds then may
// be another file: so the file is renamed first, and looked at under a name that nobody else
// knows.
func (s store) Remove(ctx context.Context, f files.File) error {
	p, err := s.resolve(ctx, f.Path)
	if err != nil {
		return err
	}
	now, err := s.statAt(ctx, p, f.Path)
	if err == nil && now.Version != f.Version {
		err = backends.ErrChanged
	}
	if err != nil {
		return err
	}
	aside := hiddenBeside(p)
	if err := s.rename(ctx, p, aside); err != nil {
		return err
	}
	if now, err = s.statAt(ctx, aside, f.Path); err == nil && now.Version != f.Version {
		err = backends.ErrChanged
	}
	var task string
	if err == nil {
		task, err = s.submitDelete(ctx, aside)
	}
	if err == nil {
		err = s.await(ctx, task)
	}
	if err == nil || task != "" && ctx.Err() != nil {
		return err // the task goes on without us
	}
	back := s.putBack(ctx, aside, p)
	if task != "" && errors.Is(back, errNoPath) {
		return nil // it was done, and only its end was not told
	}
	return errors.Join(err, back)
}

// putBack gives a file its name again. It does not take a name that somebody else has given
// meanwhile: then both are left, and the error says where.
//
// Errors: errNoPath if the file is gone.
func (s store) putBack(ctx context.Context, aside, p place) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTime)
	defer cancel()
	_, err := s.statAt(ctx, p, "")
	switch {
	case err == nil:
		err = fs.ErrExist
	case errors.Is(err, fs.ErrNotExist):
		err = s.rename(ctx, aside, p)
	}
	if err != nil {
		return fmt.Errorf("what it was is %q now: %w", aside.path, err)
	}
	return nil
}

// Rename implements files.Renamer.
func (s store) Rename(ctx context.Context, f files.File, path, old string) (files.File, error) {
	from, err := s.resolve(ctx, f.Path)
	if err != nil {
		return files.File{}, err
	}
	to, err := s.resolve(ctx, path)
	if err != nil {
		return files.File{}, err
	}
	if from.endpoint != to.endpoint {
		return files.File{}, fmt.Errorf("%w: it would have to be transferred to another Globus collection", errors.ErrUnsupported)
	}
	now, err := s.statAt(ctx, from, path)
	if err == nil && now.Version != f.Version {
		err = backends.ErrChanged
	}
	if err == nil {
		err = s.makeFolder(ctx, parent(to))
	}
	if err == nil {
		err = s.commit(ctx, from, to, old, nil)
	}
	return now, err
}

// parent returns the folder that something lies in.
func parent(p place) place {
	return place{p.endpoint, p.path[:max(strings.LastIndexByte(p.path, '/'), 0)]}
}

// hiddenBeside returns a name that nobody knows, in the folder of p.
func hiddenBeside(p place) place {
	return place{p.endpoint, parent(p).path + "/" + files.Hidden + rand.Text()}
}

// makeFolder makes a folder and those above it, as far as they are missing.
func (s store) makeFolder(ctx context.Context, p place) error {
	if p.path == "" {
		return nil
	}
	d, err := s.stat(ctx, p)
	if err == nil && d.Type != "dir" {
		return backends.Saying(fs.ErrExist, "a file is where a folder has to be")
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.makeFolder(ctx, parent(p)); err != nil {
		return err
	}
	err = s.operate(ctx, p.endpoint, "mkdir", map[string]string{"DATA_TYPE": "mkdir", "path": p.path}, "mkdir_result")
	if errors.Is(err, fs.ErrExist) {
		return nil // somebody was faster
	}
	return err
}

// rename gives a file another path. An answer that is lost does not leave open whether it did.
func (s store) rename(ctx context.Context, from, to place) error {
	body := map[string]string{"DATA_TYPE": "rename", "old_path": from.path, "new_path": to.path}
	err := s.operate(ctx, from.endpoint, "rename", body, "result")
	if !errors.Is(err, backends.ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	if _, gone := s.statAt(ctx, from, ""); !errors.Is(gone, fs.ErrNotExist) {
		return err
	}
	if _, there := s.statAt(ctx, to, ""); there != nil {
		return err
	}
	return nil
}

// operate has the Transfer API do something, and checks that its answer says so.
func (s store) operate(ctx context.Context, endpoint, name string, body any, want string) error {
	var d document
	if err := s.call(ctx, http.MethodPost, operation(endpoint, name), nil, body, &d); err != nil {
		return err
	}
	return d.is(want)
}
