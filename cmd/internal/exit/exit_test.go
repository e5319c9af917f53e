// SPDX-License-Identifier: Apache-2.0

package exit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/inspect"
)

// The table of docs/errors.md.
var table = []struct {
	err  error
	want int
}{
	{nil, OK},
	{errors.New("anything"), Failed},
	{fs.ErrExist, Failed},
	{backends.ErrChanged, Failed},
	{cache.ErrInUse, Locked},
	{cache.ErrClosed, Failed},
	{spool.ErrInUse, Locked},
	{spool.ErrClosed, Failed},
	{inspect.ErrIncomplete, Corrupt},
	{inspect.ErrNotImage, Usage},
	{syscall.ENAMETOOLONG, Usage},
	{syscall.ENOSPC, Failed},
	{syscall.EDQUOT, Failed},
	{syscall.EFBIG, Failed},
	{fs.ErrInvalid, Usage},
	{errors.ErrUnsupported, Usage},
	{fs.ErrNotExist, NotFound},
	{syscall.ENOENT, NotFound},
	{fs.ErrPermission, NotAllowed},
	{backends.ErrUnauthorized, NotAllowed},
	{backends.ErrNoFile, Usage},
	{backends.ErrNoVariant, NotFound},
	{backends.ErrNotAllowed, NotAllowed},
	{backends.ErrReadOnly, NotAllowed},
	{backends.ErrNotImage, NotAllowed},
	{backends.ErrUnavailable, Unreachable},
	{backends.ErrRateLimited, Unreachable},
	{context.DeadlineExceeded, Unreachable},
	{backends.ErrCorrupt, Corrupt},
	{backends.ErrBadAnswer, Failed},
	{WithCode(Locked, errors.New("held")), Locked},
	{context.Canceled, Failed}, // without a signal nobody interrupted it
	{WithCode(Interrupted, context.Canceled), Interrupted},
}

func TestCode(t *testing.T) {
	t.Parallel()
	for _, c := range table {
		if got := Code(c.err); got != c.want {
			t.Errorf("Code(%v) = %d, want %d", c.err, got, c.want)
		}
		if c.err == nil {
			continue
		}
		wrapped := &backends.Error{Op: "stat", Remote: "lab", Err: fmt.Errorf("%w: detail", c.err)}
		if got := Code(wrapped); got != c.want {
			t.Errorf("Code(%v) = %d, want %d", wrapped, got, c.want)
		}
		joined := errors.Join(errors.New("something else"), c.err)
		if got := Code(joined); got != c.want {
			t.Errorf("Code(%q) = %d, want %d", joined, got, c.want)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want string
		code int
	}{
		{nil, "", OK},
		{context.Canceled, "sreg: context canceled\n", Failed},
		{WithCode(Interrupted, context.Canceled), "", Interrupted},
		{errors.Join(ErrDifferent, nil), "", Failed},
		{errors.Join(ErrDifferent, fs.ErrClosed), "sreg: they differ; file already closed\n", Failed},
		{errors.Join(errors.New("one"), fs.ErrNotExist), "sreg: one; file does not exist\n", NotFound},
		{&backends.Error{Op: "stat", Remote: "lab", Err: fmt.Errorf("%w: manifest unknown", fs.ErrNotExist)}, "sreg: stat lab://: manifest unknown\n", NotFound},
		{fmt.Errorf("%w: %w: no tag", fs.ErrInvalid, errors.ErrUnsupported), "sreg: no tag\n", Usage},
		{fmt.Errorf("open x: %w", fs.ErrNotExist), "sreg: open x: file does not exist\n", NotFound},
		{errors.New("evil \x1b[2J"), "sreg: evil \\x1b[2J\n", Failed},
	} {
		var b bytes.Buffer
		if code := Report(&b, "sreg", c.err); code != c.code || b.String() != c.want {
			t.Errorf("Report(%v) = %d, %q, want %d, %q", c.err, code, b.String(), c.code, c.want)
		}
	}
}
