// SPDX-License-Identifier: Apache-2.0

package webdav

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/sregfs/sregfs/backends/internal/files"
)

// A server that ignores what it is told not to do answers as one that does it. So it is tried,
// once, with two empty hidden files.

// A proof is what was found out.
type proof struct {
	done       bool
	overwrites bool // a MOVE with "Overwrite: F" replaces
	careless   bool // a DELETE with an If header that does not hold removes
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
	s.proof = proof{done: true, overwrites: overwrites, careless: careless}
	return s.proof, nil
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
