// SPDX-License-Identifier: Apache-2.0

package webdav

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
)

// A server that ignores what it is told not to do answers as one that does it. So it is tried,
// once, with two empty hidden files.

// A proof is what was found out.
type proof struct {
	done       bool
	overwrites bool // a MOVE with "Overwrite: F" replaces
	careless   bool // a DELETE with an If header that does not hold removes
	folds      bool // a name in another case is the same file
}

var errOverwrites = fmt.Errorf("%w: the server replaces files although it is told not to (it ignores \"Overwrite: F\"), so nothing can be stored there safely", errors.ErrUnsupported)

// prove tries the server in a folder that is there.
//
// Errors: those of do.
func (s *store) prove(ctx context.Context, folder string) (proof, error) {
	s.proving.Lock()
	defer s.proving.Unlock()
	if s.proof.done {
		return s.proof, nil
	}
	a, b := newStage(folder), newStage(folder)
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	for _, path := range []string{a, b} {
		if err := s.send(ctx, question{method: http.MethodPut, address: s.address(path)}, http.StatusOK, http.StatusCreated, http.StatusNoContent); err != nil {
			return proof{}, err
		}
		defer s.discard(undo, path)
	}
	_, err := s.Stat(ctx, files.Join(folder, strings.ToLower(strings.TrimPrefix(a, folder+"/"))))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return proof{}, err
	}
	folds := err == nil
	overwrites, err := s.accepts(ctx, question{
		method: "MOVE", address: s.address(a), header: http.Header{"Destination": {s.address(b)}, "Overwrite": {"F"}},
	})
	if err != nil {
		return proof{}, err
	}
	careless, err := s.accepts(ctx, question{
		method: http.MethodDelete, address: s.address(b), header: http.Header{"If": {fmt.Sprintf(`<%s> (["sregfs-no-such-version"])`, s.address(b))}},
	})
	if err != nil {
		return proof{}, err
	}
	s.proof = proof{done: true, overwrites: overwrites, careless: careless, folds: folds}
	return s.proof, nil
}

// spelled reports whether what is at a path has that name, where the server has one file for
// "Hello" and "hello": else a push to the one would replace the other.
//
// Errors: fs.ErrInvalid with the name that the server has.
func (s *store) spelled(ctx context.Context, path string) error {
	for ; path != ""; path, _ = files.Split(path) {
		folder, _ := files.Split(path)
		other := ""
		for f, err := range s.List(ctx, folder, "") {
			if err != nil {
				return err
			}
			if f.Path == path {
				other = ""
				break
			}
			if strings.EqualFold(f.Path, path) {
				other = f.Path
			}
		}
		if other != "" {
			return backends.Saying(fs.ErrInvalid, "the server would store this at %q: use that name, or another one", other)
		}
	}
	return nil
}

// accepts reports whether the server does what it should answer with 412.
func (s *store) accepts(ctx context.Context, q question) (bool, error) {
	resp, err := s.do(ctx, q, http.StatusPreconditionFailed)
	if err != nil {
		return false, err
	}
	resp.Body.Close()
	return resp.StatusCode != http.StatusPreconditionFailed, nil
}

// removeAside removes a file of a server that neither locks nor compares: under a name that
// nobody else changes it is looked at again.
func (s *store) removeAside(ctx context.Context, f files.File) error {
	folder, _ := files.Split(f.Path)
	aside := newStage(folder)
	move := func(from, to string) error {
		return s.guarded(ctx, question{
			method: "MOVE", address: s.address(from), header: http.Header{"Destination": {s.address(to)}, "Overwrite": {"F"}},
		}, to)
	}
	if err := move(f.Path, aside); err != nil {
		return err
	}
	if err := s.check(ctx, condition{path: aside, version: f.Version}); err != nil {
		return errors.Join(err, move(aside, f.Path))
	}
	return s.send(ctx, question{method: http.MethodDelete, address: s.address(aside)}, http.StatusOK, http.StatusNoContent)
}

var errCareless = fmt.Errorf("%w: the server neither locks files nor looks at conditions, so what is there cannot be replaced safely: remove it first", errors.ErrUnsupported)

// careful reports whether the server holds others off a file that is locked, or that a request
// names with its version.
//
// Errors: those of prove; errCareless.
func (s *store) careful(ctx context.Context, held condition) error {
	if held.token != "" {
		return nil
	}
	folder, _ := files.Split(held.path)
	found, err := s.prove(ctx, folder)
	if err == nil && (found.careless || !strings.HasPrefix(held.version, `"`)) {
		return errCareless
	}
	return err
}
