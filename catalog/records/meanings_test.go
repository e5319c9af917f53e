// SPDX-License-Identifier: Apache-2.0

package records

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

func saw(t *testing.T, r *Records, tag, version string, at time.Time, begin bool) {
	t.Helper()
	ref := tool
	ref.Tag = tag
	if write := r.Saw("lab", backends.Image{Ref: ref, Version: version}, at, begin); write != nil {
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMeanings(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"on disk": t.TempDir(), "in memory": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := New(dir)
			begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			day := 24 * time.Hour
			saw(t, r, "1", "a", begin, false) // nobody has used it
			if got := r.Meanings("lab", tool); len(got) != 0 {
				t.Errorf("the history of what nobody used: %v", got)
			}
			saw(t, r, "1", "a", begin, true)
			saw(t, r, "1", "a", begin.Add(time.Minute), true)
			saw(t, r, "1", "a", begin.Add(day), false)
			saw(t, r, "1", "b", begin.Add(2*day), false)
			saw(t, r, "1", "a", begin.Add(3*day), true)
			saw(t, r, "2", "b", begin, true)
			readers := []*Records{r}
			if dir != "" {
				readers = append(readers, New(dir))
			}
			for _, r := range readers {
				text := ""
				for _, m := range r.Meanings("lab", backends.Ref{Collection: "c", Name: "tool"}) {
					text += fmt.Sprintf("%s=%s %d-%d\n", m.Ref.Tag, m.Version, m.First.YearDay(), m.Last.YearDay())
				}
				if want := "1=a 4-4\n1=b 3-3\n1=a 1-2\n2=b 1-1\n"; text != want {
					t.Errorf("the history is\n%swant\n%s", text, want)
				}
			}
		})
	}
}

// The file does not grow for ever, and what was seen last stays.
func TestMeanings_bounded(t *testing.T) {
	t.Parallel()
	r := New(t.TempDir())
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	saw(t, r, "1", "0", at, true)
	f, err := os.OpenFile(r.meanings.path(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 2*maxMeaningsFile; { // as other processes append
		n, err := fmt.Fprintf(f, `{"remote":"lab","ref":"c/other%d:1","version":"%d","size":1,"first":"2026-01-02T00:00:00Z","last":"2026-01-02T00:00:00Z"}`+"\n", i%70_000, i)
		if err != nil {
			t.Fatal(err)
		}
		i += n
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxMeanings {
		at = at.Add(24 * time.Hour)
		saw(t, r, "1", fmt.Sprint(i), at, true)
	}
	info, err := os.Stat(r.meanings.path())
	if err != nil || info.Size() > maxMeaningsFile {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
	got := New(r.dir).Meanings("lab", tool)
	if len(got) != maxMeanings || got[0].Version != fmt.Sprint(3*maxMeanings-1) {
		t.Errorf("%d meanings, the last %+v", len(got), got[0])
	}
}
