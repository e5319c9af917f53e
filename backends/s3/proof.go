// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
)

// A proof is what is known of how a server takes conditions. Some know none, and replace what
// they were told not to replace, without a word; so the first push tries it, on an object of
// its own, and each process asks once.
type proof struct {
	mu    sync.Mutex // held while it is tried
	small verdict    // of what goes in one request
	parts verdict    // of what goes in parts
}

type verdict struct {
	known bool
	err   error // nil: conditions hold
}

// prove reports whether a push on condition that a key means old is safe.
//
// Errors: errors.ErrUnsupported if the server ignores conditions; those of refusal.
func (b *bucket) prove(ctx context.Context, old string, inParts bool) error {
	if old == backends.ReplaceAny || b.lookFirst {
		return nil
	}
	b.proof.mu.Lock()
	defer b.proof.mu.Unlock()
	v, try := &b.proof.small, b.trySmall
	if inParts {
		v, try = &b.proof.parts, b.tryParts
	}
	if v.known {
		return v.err
	}
	err := b.onProbe(ctx, try)
	if err == nil || errors.Is(err, errIgnored) {
		v.known, v.err = true, nil
		if err != nil {
			v.err = fmt.Errorf("%w: %s ignores If-None-Match and If-Match, so an image could be replaced by accident; "+
				"set look_first = true for the remote %s if nobody else pushes there at the same time", errors.ErrUnsupported, b.home.Host, b.remote)
		}
		return v.err
	}
	return err
}

var errIgnored = errors.New("a condition was ignored")

// noTag is an ETag that nothing has.
const noTag = "00000000000000000000000000000000"

// onProbe calls try with the path of an object that is there meanwhile, and that no listing
// shows.
func (b *bucket) onProbe(ctx context.Context, try func(ctx context.Context, path string) error) error {
	path := files.Hidden + "probe-" + strings.ToLower(rand.Text())
	if err := b.putProbe(ctx, path, backends.ReplaceAny); err != nil {
		return err
	}
	err := try(ctx, path)
	if removeErr := b.removeProbe(ctx, path); removeErr != nil {
		b.log.Warn("a probe stays at the service", "remote", b.remote, "key", b.key(path), "err", removeErr)
	}
	return err
}

func (b *bucket) putProbe(ctx context.Context, path, old string) error {
	header := conditions(old)
	header.Set("Content-Type", "text/plain")
	resp, err := b.do(ctx, request{method: http.MethodPut, key: b.key(path), header: header, body: []byte("sregfs looks whether this can be replaced\n")})
	if err == nil {
		resp.Body.Close()
	}
	return err
}

// removeProbe removes all versions of a probe, where the bucket keeps them.
func (b *bucket) removeProbe(ctx context.Context, path string) error {
	ids := []string{""}
	for o, err := range b.versions(ctx, b.key(path)) {
		if err != nil {
			break
		}
		if q := byID(o.VersionID); o.Key == b.key(path) && q != nil {
			ids = append(ids, o.VersionID)
		}
	}
	if len(ids) > 1 {
		ids = ids[1:] // without a marker on top of them
	}
	for _, id := range ids {
		resp, err := b.do(ctx, request{method: http.MethodDelete, key: b.key(path), query: byID(id)})
		if err != nil {
			return err
		}
		resp.Body.Close()
	}
	return nil
}

// refused makes of the answer to a request that had to be refused what that says.
func refused(err error) error {
	switch {
	case err == nil, errors.Is(err, errors.ErrUnsupported):
		return errIgnored
	case errors.Is(err, fs.ErrExist), errors.Is(err, backends.ErrChanged):
		return nil
	}
	return err
}

func (b *bucket) trySmall(ctx context.Context, path string) error {
	for _, old := range []string{"", noTag} {
		if err := refused(b.putProbe(ctx, path, old)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bucket) tryParts(ctx context.Context, path string) error {
	id, err := b.begin(ctx, path, nil)
	if err != nil {
		return err
	}
	b.ledger.note(b.where(), b.key(path), id)
	defer func() {
		if err := b.abort(ctx, b.key(path), id); err != nil {
			b.log.Warn("the upload of a probe stays at the service for now", "remote", b.remote, "key", b.key(path), "err", err)
			return
		}
		b.ledger.forget(id)
	}()
	resp, err := b.do(ctx, request{method: http.MethodPut, key: b.key(path), query: partOf(id, 0), body: []byte("probe\n")})
	if err != nil {
		return err
	}
	resp.Body.Close()
	tags := []string{unquote(resp.Header.Get("ETag"))}
	for _, old := range []string{"", noTag} {
		_, err := b.complete(ctx, path, id, tags, old, nil)
		if err := refused(err); err != nil {
			return err
		}
	}
	return nil
}
