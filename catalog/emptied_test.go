// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"
)

// A registry goes on listing what is empty. Whoever removed a directory does not
// find it back, until somebody puts something into it.
func TestEmptied(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			svc := newService()
			svc.keeps = map[string]bool{}
			svc.put("c/deep/x:1", []byte("1"))
			svc.put("other/x:1", []byte("1"))
			b := newBench(t, svc)
			root := func() []string {
				b.names("")
				synctest.Wait() // for what that made stale
				return b.names("")
			}
			wantDiff(t, "the root", root(), []string{"c/", "other/"})
			b.names("c")
			b.names("c/deep")
			if _, err := b.Remove(t.Context(), "lab://c/deep/x:1", ""); err != nil {
				t.Fatal(err)
			}
			// What rm -r does through the mount.
			if err := b.Keep(t.Context(), "lab", "c/deep"); err != nil {
				t.Fatal(err)
			}
			if late {
				time.Sleep(2 * time.Minute)
				root()
			}
			for _, dir := range []string{"c/deep", "c"} {
				if err := b.Rmdir(t.Context(), "lab", dir); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				wantDiff(t, "the root after it was removed", root(), []string{"other/"})
				for _, dir := range []string{"c/deep", "c"} {
					if is, err := b.IsCollection(t.Context(), "lab", dir); is || err != nil {
						t.Errorf("%s is back (%v)", dir, err)
					}
				}
				time.Sleep(2 * time.Minute)
			}
			b.restart()
			wantDiff(t, "the root after a restart", root(), []string{"other/"})
			time.Sleep(2 * time.Minute)

			svc.put("c/deep/y:1", []byte("1"))
			root()
			synctest.Wait()
			wantDiff(t, "the root once it is filled again", root(), []string{"c/", "other/"})
			wantDiff(t, "c/deep", b.names("c/deep"), []string{"y:1"})
		})
	}
}

// Whether a directory is empty has to be known for it to be removed.
func TestRmdir_unknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		b := newBench(t, svc)
		if err := b.Mkdir(t.Context(), "lab", "c"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		svc.put("c/x:1", []byte("1")) // by somebody else
		svc.set(func() { svc.fault = func(string) int { return 401 } })
		if err := b.Rmdir(t.Context(), "lab", "c"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Rmdir of what nobody may look into: %v", err)
		}
	})
}
