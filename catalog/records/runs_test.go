// SPDX-License-Identifier: Apache-2.0

package records

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

var tool = backends.Ref{Collection: "c", Name: "tool", Tag: "1"}

func runPin(run, version string) RunPin {
	return RunPin{Run: run, Remote: "lab", Image: backends.Image{Ref: tool, Size: 7, Version: version}, Since: time.Now()}
}

func wantPinned(t *testing.T, r *Records, want string) {
	t.Helper()
	if p, ok := r.PinnedFor("lab", tool); p.Image.Version != want || ok != (want != "") {
		t.Errorf("the name means %q, %t, want %q", p.Image.Version, ok, want)
	}
}

// The first run says what a name means, until the last one lets go.
func TestRuns(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"on disk": t.TempDir(), "in memory": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := New(dir)
			wantPinned(t, r, "")
			for _, run := range []string{"a", "b", "a"} {
				if p, err := r.PinFor(runPin(run, run)); err != nil || p.Image.Version != "a" {
					t.Fatalf("PinFor(%s) = %+v, %v, want version a", run, p, err)
				}
			}
			if dir != "" {
				wantPinned(t, New(dir), "a")
			}
			if got, err := r.Release("a", nil); err != nil || len(got) != 1 {
				t.Fatalf("Release(a) = %v, %v", got, err)
			}
			wantPinned(t, r, "a") // b holds it
			if _, err := r.Release("a", nil); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the second Release: %v", err)
			}
			no := func(string, backends.Ref) bool { return false }
			if _, err := r.Release("b", no); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Release of what is not pinned: %v", err)
			}
			if _, err := r.Release("b", nil); err != nil {
				t.Fatal(err)
			}
			wantPinned(t, r, "")
			if p, err := r.PinFor(runPin("a", "new")); err != nil || p.Image.Version != "new" {
				t.Errorf("PinFor = %+v, %v, want version new", p, err)
			}
		})
	}
}

// Programs that pin at the same moment agree, and none undoes what another wrote.
func TestRuns_shared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			run := "run"
			if i%2 == 0 {
				run += "/" + string(rune('a'+i)) // any name can be written
			}
			if _, err := New(dir).PinFor(runPin(run, string(rune('a'+i)))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	one, two := New(dir), New(dir)
	p, ok := one.PinnedFor("lab", tool)
	if q, _ := two.PinnedFor("lab", tool); !ok || q.Image.Version != p.Image.Version {
		t.Errorf("the name means %q and %q", p.Image.Version, q.Image.Version)
	}
	if got := len(one.RunPins()); got != 9 {
		t.Errorf("%d pins, want one of each of 9 runs", got)
	}
	// What another program does is seen after a while.
	for _, p := range one.RunPins() {
		if _, err := two.Release(p.Run, nil); err != nil {
			t.Error(err)
		}
	}
	one.looked = one.looked.Add(-time.Minute)
	wantPinned(t, one, "")
}

// A line that a crash has cut is passed over, and the next one is whole.
func TestRuns_damaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := New(dir).PinFor(runPin("a", "1")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, runsDir, "a"+runsExt)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"run":"a","remote":"lab","ima`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	other := runPin("a", "2")
	other.Image.Ref.Tag = "2"
	r := New(dir)
	if _, err := r.PinFor(other); err != nil {
		t.Fatal(err)
	}
	wantPinned(t, r, "1")
	if got := len(r.RunPins()); got != 2 {
		t.Errorf("%d pins, want 2", got)
	}
	for _, bad := range []string{"", string(make([]byte, 5)), string(make([]byte, 200))} {
		if err := CheckRun(bad); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("CheckRun(%q) = %v", bad, err)
		}
	}
}
