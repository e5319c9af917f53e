// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

func TestUnsaved(t *testing.T) {
	t.Parallel()
	var u Unsaved
	src := backends.Source{Digest: "sha256:1"}
	if got := u.session("x", src).Load(); got != nil {
		t.Errorf("Load of nothing = %q", got)
	}
	if err := u.session("x", src).Save([]byte("state")); err != nil {
		t.Fatal(err)
	}
	if got := u.session("x", src).Load(); string(got) != "state" {
		t.Errorf("Load = %q", got)
	}
	for name, other := range map[string]backends.Source{"y": src, "x": {Digest: "sha256:2"}} {
		if got := u.session(name, other).Load(); got != nil {
			t.Errorf("Load of another push = %q", got)
		}
	}
	if err := u.session("x", src).Save(nil); err != nil || u.session("x", src).Load() != nil {
		t.Errorf("after Save(nil): %q, %v", u.session("x", src).Load(), err)
	}
	for i := range 3 * maxUnsaved {
		if err := u.session(fmt.Sprint(i), src).Save([]byte("s")); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(u.states.Keys()); n > maxUnsaved {
		t.Errorf("%d states are kept", n)
	}
	own := &state{in: &Unsaved{}}
	if u.session("x", backends.Source{Session: own}) != backends.Session(own) {
		t.Error("the Session of a source is not used")
	}
}

type counted struct {
	N int `json:"n"`
}

// What one try of a push saves the next finds, and no other push.
func TestMemo(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	src := backends.Source{Digest: "sha256:1", Size: 5}
	for name, u := range map[string]*Unsaved{"in memory": {}, "in a session": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := src
			if u == nil {
				src.Session = &state{in: &Unsaved{}}
			}
			first := Recall[counted](u, "a", src, log)
			if first.State != (counted{}) {
				t.Errorf("a first try begins with %v", first.State)
			}
			first.State.N = 3
			first.Save()
			if got := Recall[counted](u, "a", src, log).State.N; got != 3 {
				t.Errorf("the next try finds %d, want 3", got)
			}
			other, longer := src, src
			other.Digest, longer.Size = "sha256:2", 6
			for what, got := range map[string]counted{
				"another name":   Recall[counted](u, "b", src, log).State,
				"another digest": Recall[counted](u, "a", other, log).State,
				"another size":   Recall[counted](u, "a", longer, log).State,
			} {
				if got != (counted{}) {
					t.Errorf("%s finds %v", what, got)
				}
			}
			if first.Forget(); first.State.N != 0 || Recall[counted](u, "a", src, log).State.N != 0 {
				t.Error("it is not forgotten")
			}
		})
	}
}

type broken struct{}

func (broken) Load() []byte      { return []byte("{") }
func (broken) Save([]byte) error { return errors.New("no room") }

// A Session that cannot be read or written keeps no push from going on.
func TestMemo_brokenSession(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	m := Recall[counted](nil, "a", backends.Source{Session: broken{}}, slog.New(slog.NewTextHandler(&said, nil)))
	m.State.N = 1
	m.Save()
	m.Forget()
	if m.State.N != 0 || strings.Count(said.String(), "no room") != 2 {
		t.Errorf("state %v, log %q", m.State, said.String())
	}
}
