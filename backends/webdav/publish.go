// SPDX-License-Identifier: Apache-2.0

package webdav

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
)

// How what is there is not changed by accident. A name is given with "Overwrite: F". What is
// replaced or removed is locked first where the server has locks, looked at, and named in an If
// header with its ETag (RFC 4918, 10.4): a server that cannot compare ETags there says 412 always
// (Go's, and so rclone's), which is found out once. What a server does with all this is tried, see
// prove.go.

// A condition is one on a file.
type condition struct {
	path    string
	token   string // of our lock; "" if there is none
	version string // that it must have; "" for any
	source  bool   // it is what is copied or moved, and looked at before or afterwards, too
}

// spare reports whether the ETag can be left out where a server cannot compare it.
func (c condition) spare() bool { return c.token != "" || c.source }

// guarded sends q under conditions.
//
// Errors: those of send; backends.ErrChanged if one does not hold; fs.ErrExist if absent, a path
// that nothing may be at, is taken.
func (s *store) guarded(ctx context.Context, q question, absent string, conditions ...condition) error {
	q.header.Del("If")
	header, spare := s.header(conditions)
	if header != "" {
		q.header.Set("If", header)
	}
	resp, err := s.do(ctx, q, http.StatusPreconditionFailed)
	if err != nil {
		return err
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusNoContent:
		return nil
	case http.StatusPreconditionFailed:
	default:
		return fmt.Errorf("%w: status %d for %s", backends.ErrBadAnswer, resp.StatusCode, q.method)
	}
	if absent != "" {
		if _, err := s.Stat(ctx, absent); err == nil {
			return backends.Saying(fs.ErrExist, "the name was taken meanwhile")
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, c := range conditions {
		if err := s.check(ctx, c); err != nil {
			return err
		}
	}
	if !spare {
		return fmt.Errorf("%w: the server says 412 to %s, and nothing has changed", backends.ErrUnavailable, q.method)
	}
	s.noTags.Store(true)
	return s.guarded(ctx, q, absent, conditions...)
}

// header is an If header, "" if there is nothing to say, and whether an ETag is in it that can
// be left out.
func (s *store) header(conditions []condition) (header string, spare bool) {
	var lists []string
	for _, c := range conditions {
		var list []string
		if c.token != "" {
			list = append(list, "<"+c.token+">")
		}
		if strings.HasPrefix(c.version, `"`) && (!c.spare() || !s.noTags.Load()) {
			list, spare = append(list, "["+c.version+"]"), spare || c.spare()
		}
		if list != nil {
			lists = append(lists, fmt.Sprintf("<%s> (%s)", s.address(c.path), strings.Join(list, " ")))
		}
	}
	return strings.Join(lists, " "), spare
}

// check looks whether a condition holds.
//
// Errors: backends.ErrChanged.
func (s *store) check(ctx context.Context, c condition) error {
	if c.version == "" {
		return nil
	}
	now, err := s.Stat(ctx, c.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && now.Version != c.version {
		return backends.ErrChanged
	}
	return err
}

// publish gives the file from, which nobody else changes or which is named by its version, a
// path, and returns what is there then.
func (s *store) publish(ctx context.Context, from files.File, path, old string, commit func() error) (files.File, error) {
	q := question{method: "MOVE", address: s.address(from.Path), header: http.Header{"Destination": {s.address(path)}, "Overwrite": {"T"}}}
	var own []condition
	if _, base := files.Split(from.Path); !strings.HasPrefix(base, files.Hidden) {
		own = []condition{{path: from.Path, version: from.Version, source: true}}
	}
	folder, _ := files.Split(path)
	found, err := s.prove(ctx, folder)
	if err == nil && found.folds {
		err = s.spelled(ctx, path)
	}
	if err != nil {
		return files.File{}, err
	}
	switch old {
	case "":
		if found.overwrites {
			return files.File{}, errOverwrites
		}
		q.header.Set("Overwrite", "F")
		if err = commit(); err == nil {
			err = s.guarded(ctx, q, path, own...)
		}
	case backends.ReplaceAny:
		if err = commit(); err == nil {
			err = s.guarded(ctx, q, "", own...)
		}
	default:
		err = s.exclusively(ctx, path, old, func(held condition) error {
			if err := s.careful(ctx, held); err != nil {
				return err
			}
			if err := commit(); err != nil {
				return err
			}
			return s.guarded(ctx, q, "", append(own, held)...)
		})
	}
	if err != nil {
		return files.File{}, err
	}
	f, err := s.Stat(ctx, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, backends.ErrChanged
	case err == nil && (f.Size != from.Size || f.Digest != "" && from.Digest != "" && f.Digest != from.Digest):
		return f, backends.ErrChanged // by somebody else, since
	}
	return f, err
}

// Rename implements files.Renamer.
func (s *store) Rename(ctx context.Context, f files.File, path, old string) (files.File, error) {
	folder, _ := files.Split(path)
	if from, _ := files.Split(f.Path); from != folder {
		if err := s.makeFolder(ctx, folder); err != nil {
			return files.File{}, err
		}
	}
	if err := s.check(ctx, condition{path: f.Path, version: f.Version}); err != nil {
		return files.File{}, err
	}
	return s.publish(ctx, f, path, old, func() error { return nil })
}

// Duplicate implements files.Duplicator.
func (s *store) Duplicate(ctx context.Context, f files.File, path, old string, commit func() error) (files.File, error) {
	folder, _ := files.Split(path)
	if from, _ := files.Split(f.Path); from != folder {
		if err := s.makeFolder(ctx, folder); err != nil {
			return files.File{}, err
		}
	}
	if commit == nil {
		commit = func() error { return nil }
	}
	stage := newStage(folder)
	made, err := s.duplicate(ctx, f, stage)
	if err == nil {
		made, err = s.publish(ctx, made, path, old, commit)
	}
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		s.discard(undo, stage)
	}
	return made, err
}

func (s *store) duplicate(ctx context.Context, f files.File, stage string) (files.File, error) {
	q := question{method: "COPY", address: s.address(f.Path), header: http.Header{"Destination": {s.address(stage)}, "Overwrite": {"F"}}}
	source := condition{path: f.Path, version: f.Version, source: true}
	if err := s.guarded(ctx, q, stage, source); err != nil {
		return files.File{}, err
	}
	if err := s.check(ctx, source); err != nil {
		return files.File{}, err
	}
	made, err := s.Stat(ctx, stage)
	if err == nil && made.Size != f.Size {
		err = fmt.Errorf("%w: a copy of %d bytes, expected %d", backends.ErrBadAnswer, made.Size, f.Size)
	}
	if err == nil {
		err = s.describe(ctx, &made, f.Digest, f.Modified)
	}
	return made, err
}

// Remove implements files.Writer.
func (s *store) Remove(ctx context.Context, f files.File) error {
	err := s.exclusively(ctx, f.Path, f.Version, func(held condition) error {
		switch err := s.careful(ctx, held); {
		case errors.Is(err, errCareless), errors.Is(err, syscall.EDQUOT), errors.Is(err, fs.ErrPermission):
			return s.removeAside(ctx, f) // which needs no file of ours
		case err != nil:
			return err
		}
		return s.guarded(ctx, question{method: http.MethodDelete, address: s.address(f.Path), header: http.Header{}}, "", held)
	})
	if errors.Is(err, backends.ErrChanged) {
		if _, statErr := s.Stat(ctx, f.Path); errors.Is(statErr, fs.ErrNotExist) {
			return statErr
		}
	}
	return err
}

const lockInfo = `<?xml version="1.0" encoding="utf-8"?>
<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype><owner>sregfs</owner></lockinfo>`

const lockTime = 2 * time.Minute // after which a server takes a forgotten lock away

// exclusively calls do while nobody else can change what is at path, as far as the server has
// locks, and if that is a version.
//
// Errors: backends.ErrChanged if it is another; those of do.
func (s *store) exclusively(ctx context.Context, path, version string, do func(condition) error) error {
	held := condition{path: path, version: version}
	if err := s.check(ctx, held); err != nil { // a lock on what is not there would make it
		return err
	}
	token, made, err := s.lock(ctx, path)
	if err != nil {
		return err
	}
	if token != "" {
		held.token = token
		defer s.unlock(ctx, held)
		if made { // it was removed meanwhile
			_ = s.guarded(ctx, question{method: http.MethodDelete, address: s.address(path), header: http.Header{}}, "", condition{path: path, token: token})
			return backends.ErrChanged
		}
		if err := s.check(ctx, held); err != nil {
			return err
		}
	}
	return do(held)
}

// lock locks a file; token is "" if the server does not. made says that there was none, which
// some servers change then.
func (s *store) lock(ctx context.Context, path string) (token string, made bool, err error) {
	if s.noLocks.Load() {
		return "", false, nil
	}
	resp, err := s.do(ctx, question{
		method: "LOCK", address: s.address(path), body: func() io.Reader { return strings.NewReader(lockInfo) }, size: int64(len(lockInfo)),
		header: http.Header{
			"Depth": {"0"}, "Timeout": {fmt.Sprintf("Second-%d", int(lockTime.Seconds()))},
			"Content-Type": {"application/xml; charset=utf-8"},
		},
	}, noLock...)
	if err != nil {
		return "", false, err
	}
	defer resp.Body.Close()
	if slices.Contains(noLock, resp.StatusCode) {
		s.noLocks.Store(resp.StatusCode == http.StatusMethodNotAllowed || resp.StatusCode == http.StatusNotImplemented)
		return "", false, nil
	}
	token = strings.Trim(resp.Header.Get("Lock-Token"), "<> ")
	if token == "" || strings.ContainsAny(token, "<> \t") {
		return "", false, fmt.Errorf("%w: a lock without a token", backends.ErrBadAnswer)
	}
	return token, resp.StatusCode == http.StatusCreated, nil
}

// noLock are the answers to LOCK of servers that have no locks, or none for this file.
var noLock = []int{
	http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusConflict,
	http.StatusPreconditionFailed, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity, http.StatusNotImplemented,
}

// unlock takes a lock away. If that fails, or the file is gone with it, time does.
func (s *store) unlock(ctx context.Context, held condition) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	resp, err := s.do(ctx, question{method: "UNLOCK", address: s.address(held.path), header: http.Header{"Lock-Token": {"<" + held.token + ">"}}}, noLock...)
	if err != nil {
		s.log.Debug("a lock is not taken away", "path", held.path, "err", err)
		return
	}
	resp.Body.Close()
}

// describe has the server keep the digest and the time of a staged file, where it does not by
// itself and keeps properties.
func (s *store) describe(ctx context.Context, f *files.File, digest string, modified time.Time) error {
	if modified.IsZero() {
		modified = f.Modified
	}
	if digest == "" || f.Digest == digest && f.Modified.Unix() == modified.Unix() || s.noProps.Load() {
		return nil
	}
	own := upload{digest: digest, version: f.Version, modified: modified}
	var text strings.Builder
	if err := xml.EscapeText(&text, []byte(own.String())); err != nil {
		return err
	}
	body := `<?xml version="1.0" encoding="utf-8"?><propertyupdate xmlns="DAV:"><set><prop><upload xmlns="` + ownSpace + `">` +
		text.String() + `</upload></prop></set></propertyupdate>`
	resp, err := s.do(ctx, question{
		method: "PROPPATCH", address: s.address(f.Path), header: http.Header{"Content-Type": {"application/xml; charset=utf-8"}},
		body: func() io.Reader { return strings.NewReader(body) }, size: int64(len(body)),
	}, noLock...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	kept := false
	if resp.StatusCode == http.StatusMultiStatus {
		_, err = readResponses(resp.Body, func(r response) error {
			for _, p := range r.Props {
				kept = kept || strings.Contains(p.Status, " 200 ")
			}
			return nil
		})
	}
	if kept {
		own.tell(f)
	} else {
		s.noProps.Store(err == nil)
	}
	return err
}
