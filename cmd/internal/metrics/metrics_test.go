// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// A mount that has something of everything.
func busy(context.Context) (verbs.Status, error) {
	return verbs.Status{
		Version: "v1", Details: map[string]string{"opens_kept": "7", "log": "/x"},
		Remotes: []verbs.RemoteStatus{{Name: "lab", Type: "oci", Images: 3, Seen: time.Unix(5, 0)}, {Name: "old", Type: "oci", Error: "away"}},
		Cache:   verbs.CacheStatus{Used: 9, Whole: 2, Transfers: []verbs.Cached{{Requests: 2}, {Requests: 3}}},
		Uploads: []spool.Info{{State: spool.Failed}, {State: spool.Failed}},
	}, nil
}

// What is served is documented, name by name, and what is documented is served.
func TestNames(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/admin.md")
	if err != nil {
		t.Fatal(err)
	}
	all, err := New(busy, time.Unix(1, 0)).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, family := range all {
		if name := family.GetName(); strings.HasPrefix(name, "sregfs_") {
			n++
			if !strings.Contains(string(page), "| `"+name+"`") {
				t.Errorf("docs/admin.md has no row for %s", name)
			}
		}
	}
	if documented := strings.Count(string(page), "| `sregfs_"); documented != n {
		t.Errorf("%d names are served, %d documented", n, documented)
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sregfs.prom")
	if err := New(busy, time.Unix(1, 0)).Write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`sregfs_remote_up{remote="old",type="oci"} 0`, `sregfs_remote_last_answer_timestamp_seconds{remote="lab",type="oci"} 5`,
		`sregfs_transfer_requests 5`, `sregfs_uploads{state="failed"} 2`, `sregfs_opens_total{kind="kept"} 7`, `sregfs_cache_bytes 9`,
	} {
		if !strings.Contains(string(text), line+"\n") {
			t.Errorf("%s is missing in\n%s", line, text)
		}
	}
	broken := New(func(context.Context) (verbs.Status, error) { return verbs.Status{}, errors.New("closed") }, time.Unix(1, 0))
	if err := broken.Write(path); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(path); err != nil || !strings.Contains(string(text), "sregfs_up 0\n") || strings.Contains(string(text), "remote_up") {
		t.Errorf("of a mount that cannot tell: %v\n%s", err, text)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
}
