// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// A push that was killed goes on where it was, if it is given again: what the backend had
// noted of it is there in the next process.
func TestPush_session(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		b := newBench(t, svc)
		path := filepath.Join(t.TempDir(), "x.sif")
		if err := os.WriteFile(path, tiny(t, "one"), 0o600); err != nil {
			t.Fatal(err)
		}
		push := func(uri, want string, fails error) {
			t.Helper()
			_, err := b.Push(t.Context(), path, uri, verbs.PushOptions{}, nil)
			wantErr(t, "Push", err, fails)
			if svc.session != want {
				t.Errorf("push of %s: the backend remembers %q, want %q", uri, svc.session, want)
			}
			b.close()
			b.open()
		}
		svc.fault = func(kind string) int {
			if kind == "push" {
				return http.StatusUnauthorized
			}
			return 0
		}
		push("lab://c/x:1", "", backends.ErrUnauthorized)
		push("lab://c/x:1", "begun", backends.ErrUnauthorized)
		push("lab://c/other:1", "", backends.ErrUnauthorized) // another name
		if err := os.WriteFile(path, tiny(t, "two"), 0o600); err != nil {
			t.Fatal(err)
		}
		push("lab://c/x:1", "", backends.ErrUnauthorized) // other bytes
		if err := os.WriteFile(path, tiny(t, "one"), 0o600); err != nil {
			t.Fatal(err)
		}
		svc.fault = nil
		push("lab://c/x:1", "begun", nil)
		svc.drop("c/x:1")
		push("lab://c/x:1", "", nil) // it was done
		time.Sleep(8 * 24 * time.Hour)
		push("lab://c/other:1", "", nil) // the service will have forgotten, too
	})
}
