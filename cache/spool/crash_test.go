// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
)

const childDir = "SREGFS_TEST_SPOOL_DIR"

// TestSpoolChild is no test of its own: TestSpool_killed runs it in a process
// that it kills. It copies drafts in, for ever, and tells of each one that it
// has acknowledged.
func TestSpoolChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		t.Skip("runs as a child of TestSpool_killed")
	}
	s, err := Open(dir, Options{Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		d, err := s.Create(Target{Remote: "lab", Async: n%2 == 0})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("begun %s\n", d.Info().ID)
		for off := range int64(40) {
			if _, err := d.WriteAt(childBlock(d.Info().ID, off), off*4096); err != nil {
				t.Fatal(err)
			}
		}
		info, err := d.Seal(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("sealed %s %s\n", info.ID, info.Digest)
		switch n % 4 {
		case 1:
			err = begin(d)
		case 2:
			fmt.Printf("unsealing %s\n", info.ID)
			_, err = d.WriteAt([]byte("changed"), 5)
		case 3:
			fmt.Printf("publishing %s\n", info.ID)
			err = d.Publish("v", func(path string) error { return os.Rename(path, dir+".blob") })
		}
		if err := errors.Join(err, d.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func childBlock(id string, n int64) []byte {
	return []byte(strings.Repeat(fmt.Sprintf("%s %04d ", id, n), 4096)[:4096])
}

func childContent(id string) []byte {
	var b []byte
	for n := range int64(40) {
		b = append(b, childBlock(id, n)...)
	}
	return b
}

func TestSpool_killed(t *testing.T) {
	t.Parallel()
	rounds := 16
	if testing.Short() {
		rounds = 5
	}
	states := map[State]int{}
	for round := range rounds {
		dir := filepath.Join(t.TempDir(), "spool")
		said := runAndKill(t, dir, 3+round%7, time.Duration(rand.IntN(4000))*time.Microsecond)
		s := openSpool(t, dir, Options{})
		found := map[string]Info{}
		for _, info := range s.Drafts() {
			found[info.ID] = info
			states[info.State]++
			checkRecovered(t, s, info)
		}
		for id, last := range said {
			info, ok := found[id]
			switch {
			case last.sealed != "" && !last.maybeGone && !ok:
				t.Errorf("sealed draft %s is lost", id)
			case last.sealed != "" && !last.maybeGone && !last.maybeUnsealed && info.Digest != last.sealed:
				t.Errorf("draft %s was sealed as %s, is now %+v", id, last.sealed, info)
			}
		}
		s.Close()
	}
	t.Logf("states found after %d kills: %v", rounds, states)
	if states[Sealed] == 0 || states[Failed] == 0 || states[Incomplete] == 0 {
		t.Errorf("the kills did not reach all states: %v", states)
	}
}

// checkRecovered demands that what the spool says of a draft after a crash is true.
func checkRecovered(t *testing.T, s *Spool, info Info) {
	t.Helper()
	switch info.State {
	case Sealed, Failed:
		if (info.State == Failed) == info.Target.Async {
			t.Errorf("draft left %s though its target is %+v", info.State, info.Target)
		}
		d, err := s.Draft(info.ID)
		if err != nil {
			t.Error(err)
			return
		}
		defer d.Close()
		got := make([]byte, info.Size)
		if _, err := d.ReadAt(got, 0); err != nil {
			t.Error(err)
		}
		if digestOf(got) != info.Digest || digestOf(childContent(info.ID)) != info.Digest {
			t.Errorf("content of %s does not match its digest", info.ID)
		}
	case Incomplete:
		if info.Error == "" || info.Digest != "" {
			t.Errorf("incomplete draft without a reason, or with a digest: %+v", info)
		}
	default:
		t.Errorf("state %s after a crash", info.State)
	}
}

// A saying is the last that the child told about a draft.
type saying struct {
	sealed                   string // digest
	maybeUnsealed, maybeGone bool
}

// runAndKill lets a child acknowledge that many drafts, and kills it a moment later.
func runAndKill(t *testing.T, dir string, acks int, moment time.Duration) map[string]saying {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSpoolChild$")
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := map[string]saying{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 2 {
			continue
		}
		last := said[f[1]]
		switch f[0] {
		case "sealed":
			last.sealed = f[2]
			if acks--; acks == 0 {
				// Not a wait for anything: it spreads the kills over the child's steps.
				time.AfterFunc(moment, func() { cmd.Process.Kill() })
			}
		case "unsealing":
			last.maybeUnsealed = true
		case "publishing":
			last.maybeGone = true
		default:
			continue
		}
		said[f[1]] = last
	}
	if err := cmd.Wait(); cmd.ProcessState.Exited() {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return said
}

func TestSpool_damagedJournal(t *testing.T) {
	t.Parallel()
	replace := func(old, new string) func([]byte) []byte {
		return func(b []byte) []byte { return []byte(strings.Replace(string(b), old, new, 1)) }
	}
	tests := map[string]struct {
		damage func(journal []byte) []byte
		reason string // in Error
	}{
		"empty":        {func([]byte) []byte { return []byte{} }, "EOF"},
		"torn":         {func(b []byte) []byte { return b[:len(b)/2] }, "EOF"},
		"zeros":        {func(b []byte) []byte { return make([]byte, len(b)) }, "invalid character"},
		"edited name":  {replace(`"remote":"lab"`, `"remote":"prod"`), "checksum"},
		"edited state": {replace(`"sealed"`, `"failed"`), "checksum"},
		"flipped bit":  {func(b []byte) []byte { b[len(b)/3] ^= 1; return b }, "journal"},
		"appended":     {func(b []byte) []byte { return append(b, "{}"...) }, "follows"},
		"other record": {func([]byte) []byte {
			b, _ := encodeJournal(&record{Info: Info{ID: "another", State: Incomplete}})
			return b
		}, "another draft"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openSpool(t, dir, Options{})
			d := create(t, s, "acknowledged")
			id := seal(t, d).ID
			s.Close()
			path := folder(filepath.Join(dir, id)).meta()
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damaged := tt.damage(data)
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			ago := time.Now().Add(-10 * defaultKeepBad)
			if err := os.Chtimes(filepath.Join(dir, id, "data"), ago, ago); err != nil {
				t.Fatal(err)
			}

			s = openSpool(t, dir, Options{})
			list := s.Drafts()
			if len(list) != 1 || list[0].State != Incomplete || !strings.Contains(list[0].Error, tt.reason) || list[0].Size != 12 {
				t.Fatalf("drafts %+v, want one incomplete with %q", list, tt.reason)
			}
			if b, err := os.ReadFile(path); string(b) != string(damaged) {
				t.Errorf("the damaged journal was replaced: %q, %v", b, err)
			}
			d, err = s.Draft(id)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 12)
			if _, err := d.ReadAt(got, 0); err != nil || string(got) != "acknowledged" {
				t.Errorf("data %q, %v", got, err)
			}
			d.Close()
			if err := s.Discard(id); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSpool_damagedFolder(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		state  State
		damage func(dir folder) error
		want   State // "" if the draft is to be gone
	}{
		"sealed, data cut":       {Sealed, func(f folder) error { return os.Truncate(f.data(), 3) }, Incomplete},
		"sealed, data missing":   {Sealed, func(f folder) error { return os.Remove(f.data()) }, Failed},
		"published, not removed": {Publishing, func(f folder) error { return os.Remove(f.data()) }, ""},
		"data is a link": {Sealed, func(f folder) error {
			return errors.Join(os.Remove(f.data()), os.Symlink("/etc/hostname", f.data()))
		}, Failed},
		"half removed": {Sealed, func(f folder) error { return os.Rename(string(f), string(f)+goneSuffix) }, ""},
		"just begun": {Writing, func(f folder) error {
			return errors.Join(os.Remove(f.meta()), os.Truncate(f.data(), 0))
		}, ""},
		"journal missing": {Sealed, func(f folder) error { return os.Remove(f.meta()) }, Incomplete},
		"sealed":          {Sealed, func(folder) error { return nil }, Failed},
		"publishing":      {Publishing, func(folder) error { return nil }, Failed},
		"writing":         {Writing, func(folder) error { return nil }, Incomplete},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d := create(t, openSpool(t, dir, Options{}), "some data")
			id := d.Info().ID
			if tt.state.settled() {
				seal(t, d)
				if tt.state == Publishing {
					if err := begin(d); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := tt.damage(folder(filepath.Join(dir, id))); err != nil {
				t.Fatal(err)
			}
			// Twice: what the first start found is what the second finds.
			for range 2 {
				var got State
				for _, info := range openSpool(t, dir, Options{}).Drafts() {
					got = info.State
				}
				if got != tt.want {
					t.Errorf("state %q, want %q", got, tt.want)
				}
			}
			if _, err := os.Lstat(filepath.Join(dir, id)); (tt.want == "") != errors.Is(err, fs.ErrNotExist) {
				t.Errorf("folder: %v", err)
			}
		})
	}
}

func TestJournal_roundTrip(t *testing.T) {
	t.Parallel()
	when := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	want := &record{Session: []byte{0, 255}, Orphan: true, Info: Info{
		ID: "x", Target: testTarget, State: Failed, Size: 1 << 40, Digest: digestOf(nil), Stored: 7,
		Created: when, Changed: when, Attempts: 3, Error: "a\nb", ModTime: when, Mode: 0o7777}}
	data, err := encodeJournal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeJournal(data, "x")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// What earlier versions wrote is read, and written, as it was.
func TestSpool_earlierJournal(t *testing.T) {
	t.Parallel()
	const id = "20261102-030405.000000-0a1b2c3d"
	const journal = `{"draft":{"version":1,"id":"20261102-030405.000000-0a1b2c3d","remote":"lab","collection":"a%2Fb",` +
		`"name":"na%FFme%0A\u003c\u0026\u003e","tag":"1.0","replaces":"W%2F\"etag\"","format":"sif","async":true,"in_place":true,` +
		`"follows":"20261101-030405.000000-0a1b2c3d","state":"publishing","size":5,` +
		`"digest":"sha256:277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9","stored":3,` +
		`"created":"2026-11-02T03:04:05.0000006Z","changed":"2026-11-02T03:04:05.0000006Z","modtime":"2026-11-02T03:04:05.0000006Z",` +
		`"mode":416,"attempts":2,"session":"AP8="},"crc32c":"42e31575"}`
	rec, err := decodeJournal([]byte(journal), id)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := encodeJournal(rec); err != nil || string(again) != journal {
		t.Errorf("written as %s (%v)", again, err)
	}
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, id), 0o700),
		os.WriteFile(filepath.Join(dir, id, "data"), []byte("bytes"), 0o600),
		os.WriteFile(filepath.Join(dir, id, "meta.json"), []byte(journal), 0o600)); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 2, 3, 4, 5, 600, time.UTC)
	want := []Info{{ID: id, State: Sealed, Size: 5, Digest: digestOf([]byte("bytes")), Stored: 3,
		Created: at, Changed: at, ModTime: at, Mode: 0o640, Attempts: 2, Target: Target{
			Remote: "lab", Ref: backends.Ref{Collection: "a/b", Name: "na\xffme\n<&>", Tag: "1.0"}, Replaces: "W/\"etag\"",
			Format: "sif", Async: true, InPlace: true, Follows: "20261101-030405.000000-0a1b2c3d"}}}
	if diff := cmp.Diff(want, openSpool(t, dir, Options{}).Drafts()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func FuzzJournal(f *testing.F) {
	good, err := encodeJournal(&record{Info: Info{ID: "x", Target: testTarget, State: Sealed, Digest: digestOf(nil)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"draft":{},"crc32c":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeJournal(data, "x")
		if err != nil {
			if r != nil || !errors.Is(err, errJournal) {
				t.Errorf("decode = %v, %v", r, err)
			}
			return
		}
		again, err := encodeJournal(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeJournal(again, "x")
		if diff := cmp.Diff(r, back); err != nil || diff != "" {
			t.Errorf("round trip: %v\n%s", err, diff)
		}
	})
}
