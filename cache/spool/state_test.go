// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"errors"
	"io"
	"io/fs"
	"testing"
)

// What is withdrawn is not published, unless the registry may have been told to already;
// when it is released, it may be again.
func TestDraft_withdraw(t *testing.T) {
	t.Parallel()
	d := create(t, openSpool(t, t.TempDir(), Options{}), "bytes")
	seal(t, d)
	tooLate, release, err := d.Withdraw()
	if err != nil || tooLate {
		t.Fatalf("Withdraw = %v, too late %v", err, tooLate)
	}
	if _, _, err := d.Withdraw(); !errors.Is(err, ErrInUse) {
		t.Errorf("second Withdraw: %v, want ErrInUse", err)
	}
	if err := begin(d); !errors.Is(err, fs.ErrNotExist) || d.Info().State != Sealed {
		t.Errorf("Begin = %v, state %s", err, d.Info().State)
	}
	release()
	src, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	tooLate, release, err = d.Withdraw()
	if err != nil || tooLate {
		t.Errorf("Withdraw on the way = %v, too late %v", err, tooLate)
	}
	if err := src.MayCommit(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Commit = %v", err)
	}
	release()
	if err := src.MayCommit(); err != nil {
		t.Error(err)
	}
	if tooLate, release, err = d.Withdraw(); err != nil || !tooLate {
		t.Errorf("Withdraw of what is committed = %v, too late %v", err, tooLate)
	}
	release()
}

// A registry that was told to publish a draft may have done so, until it is known.
func TestDraft_inDoubt(t *testing.T) {
	t.Parallel()
	d := create(t, openSpool(t, t.TempDir(), Options{}), "bytes")
	seal(t, d)
	for _, commits := range []bool{false, true, false} {
		src, err := d.Begin()
		if err != nil {
			t.Fatal(err)
		}
		was := d.Info().InDoubt
		if commits {
			err = src.MayCommit()
		}
		if err := errors.Join(err, d.End(io.ErrUnexpectedEOF)); err != nil {
			t.Fatal(err)
		}
		if got := d.Info().InDoubt; got != (commits || was) {
			t.Errorf("in doubt %v, was %v, after a try that commits: %v", got, was, commits)
		}
	}
	if d.Answered(); d.Info().InDoubt {
		t.Error("in doubt after an answer")
	}
}

// An earlier process has sealed it, so the bytes are looked at once more; this one has
// not to.
func TestDraft_checkedOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := create(t, openSpool(t, dir, Options{}), "bytes")
	var checks int
	var verdict error
	check := func(io.ReaderAt, int64) (string, error) { checks++; return "simg", verdict }
	for range 2 {
		if _, err := d.Seal(t.Context(), check); err != nil {
			t.Fatal(err)
		}
	}
	src, err := d.Begin()
	if err != nil || checks != 1 || src.Format != "simg" {
		t.Errorf("%d checks, format %q (%v)", checks, src.Format, err)
	}
	again, err := openSpool(t, dir, Options{}).Draft(d.Info().ID)
	if err != nil {
		t.Fatal(err)
	}
	verdict = io.ErrUnexpectedEOF
	info, err := again.Seal(t.Context(), check)
	if !errors.Is(err, verdict) || checks != 2 || info.State != Failed || info.Error != verdict.Error() {
		t.Errorf("%d checks, %v, %+v", checks, err, info)
	}
}
