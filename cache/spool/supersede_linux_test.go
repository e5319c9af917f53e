// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk/disktest"
)

// A new draft makes the failed ones of its name useless, and no other.
func TestDraft_supersede(t *testing.T) {
	t.Parallel()
	s := openSpool(t, t.TempDir(), Options{})
	same := Target{Remote: "r", Ref: backends.Ref{Name: "x", Tag: "1"}}
	async, other := same, same
	async.Async = true
	other.Ref.Tag = "2"
	names := map[string]string{}
	add := func(name string, target Target, state State) *Draft {
		t.Helper()
		d, err := s.Create(target)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.WriteAt([]byte(name), 0); err != nil {
			t.Fatal(err)
		}
		if state != Writing && state != Incomplete {
			seal(t, d)
		}
		if state == Failed {
			if err := d.End(io.ErrUnexpectedEOF); err != nil {
				t.Fatal(err)
			}
		}
		names[d.Info().ID] = name
		if state == Writing {
			return d
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		return nil
	}
	add("cut", same, Incomplete)
	add("failed", same, Failed)
	add("queued", async, Sealed)
	add("being written", same, Writing)
	add("other cut", other, Incomplete)
	add("temporary", Target{Remote: "r", File: ".x"}, Incomplete)
	d := add("new", same, Writing)
	left := func() map[string]bool {
		left := map[string]bool{}
		for _, info := range s.Drafts() {
			left[names[info.ID]] = true
		}
		return left
	}
	d.Supersede()
	want := map[string]bool{"failed": true, "queued": true, "being written": true, "other cut": true, "temporary": true, "new": true}
	if diff := cmp.Diff(want, left()); diff != "" {
		t.Errorf("while it is copied in (-want +got):\n%s", diff)
	}
	seal(t, d)
	d.Supersede()
	delete(want, "failed")
	if diff := cmp.Diff(want, left()); diff != "" {
		t.Errorf("when it is whole (-want +got):\n%s", diff)
	}
	if _, used := s.Usage(); used <= 0 {
		t.Errorf("the drafts take %d bytes", used)
	}
}

// What was cut gives its room to what is being written, and a failed copy to the
// next one of its name.
func TestSpool_reclaim(t *testing.T) {
	t.Parallel()
	for name, reserve := range map[string]int64{"reserve": 2 << 20, "no reserve": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openSpool(t, disktest.Small(t, "16m"), Options{Reserve: reserve})
			block := make([]byte, 1<<20)
			fill := func(target Target, blocks int) (*Draft, error) {
				d, err := s.Create(target)
				if err != nil {
					t.Fatal(err)
				}
				for i := range blocks {
					if _, err := d.WriteAt(block, int64(i)<<20); err != nil {
						return d, err
					}
				}
				return d, nil
			}
			target := func(tag string) Target { return Target{Remote: "r", Ref: backends.Ref{Name: "x", Tag: tag}} }
			cut, err := fill(Target{Remote: "r", File: "c/.x.sif.AbC123"}, 4)
			err = errors.Join(err, cut.Keep(io.ErrUnexpectedEOF))
			cut.Idle() // a file of the tree, which nobody writes
			failed, err2 := fill(target("1"), 4)
			seal(t, failed)
			err = errors.Join(err, err2, failed.End(io.ErrUnexpectedEOF), failed.Close())
			kept, err2 := fill(target("2"), 1)
			seal(t, kept)
			if err = errors.Join(err, err2, kept.End(io.ErrUnexpectedEOF), kept.Close()); err != nil {
				t.Fatal(err)
			}
			if _, err := fill(target("1"), 11); err != nil {
				t.Errorf("copying to where a cut copy and a failed one of the name lie: %v", err)
			}
			if !cut.Gone() || !failed.Gone() || kept.Gone() {
				t.Errorf("gone: cut %v, failed %v, another name %v", cut.Gone(), failed.Gone(), kept.Gone())
			}
		})
	}
}
