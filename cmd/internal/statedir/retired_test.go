// SPDX-License-Identifier: Apache-2.0

//go:build unix

package statedir

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A retired process is found while it lives, whoever has the directory, and one that
// died is not.
func TestRetired(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	d, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Announce("/run/x.sock", "/mnt/x", ""); err != nil {
		t.Fatal(err)
	}
	r, err := d.Retire()
	if err != nil {
		t.Fatal(err)
	}
	ends := time.Now().Add(time.Hour).Truncate(time.Second)
	var open []OpenFile
	for i := range MaxOpen + 3 {
		open = append(open, OpenFile{Name: fmt.Sprint("lab/a:", i), PID: i, Program: "cat"})
	}
	if err := r.Tell(open, ends); err != nil {
		t.Fatal(err)
	}
	if err := d.Unlock(); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(path, "retired", "1-dead")
	if err := os.WriteFile(dead, []byte(`{"pid":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := AllRetired(path)
	if err != nil || len(all) != 1 {
		t.Fatalf("AllRetired: %+v, %v", all, err)
	}
	p := all[0]
	if p.PID != os.Getpid() || p.Mount != "/mnt/x" || p.Socket != "" || !p.Ends.Equal(ends) || len(p.Open) != MaxOpen || p.More != 3 {
		t.Errorf("AllRetired: %+v", p)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("what the dead process left: %v", err)
	}
	if err := r.Tell(nil, ends); err != nil {
		t.Fatal(err)
	}
	if all, err := AllRetired(path); err != nil || len(all) != 1 || len(all[0].Open) != 0 {
		t.Errorf("AllRetired: %+v, %v", all, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if all, err := AllRetired(path); err != nil || len(all) != 0 {
		t.Errorf("AllRetired after the end: %+v, %v", all, err)
	}
}

// Who stops says until when, and whoever waits names it.
func TestAnnounceEnd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	d, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	ends := time.Now().Add(time.Minute)
	if err := d.AnnounceEnd(ends); err != nil {
		t.Fatal(err)
	}
	h, err := Holder(path)
	if err != nil || !h.Ends.Equal(ends.Truncate(time.Second)) {
		t.Errorf("Holder: %+v, %v", h, err)
	}
	if err := d.Unlock(); err != nil {
		t.Fatal(err)
	}
}
