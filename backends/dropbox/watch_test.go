// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dropbox/dropboxtest"
)

// changes does something, and returns the next n changes that are told.
func changes(t *testing.T, next func() (backends.Change, error, bool), n int) []backends.Change {
	t.Helper()
	var all []backends.Change
	for range n {
		change, err, ok := next()
		if err != nil || !ok {
			t.Fatalf("after %v: %v", all, err)
		}
		all = append(all, change)
	}
	return all
}

func TestWatch(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{LowerParents: true})
	srv.Put("/Lab/hello:1.sif", []byte("x"), noon)
	listed(t, c, "") // which is how spellings are known
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	polled := make(chan struct{}, 100)
	srv.SetHook(func(route string, _ http.ResponseWriter, _ *http.Request) bool {
		if route == "files/list_folder/longpoll" {
			polled <- struct{}{}
		}
		return false
	})
	next, stop := iter.Pull2(c.Watch(ctx))
	defer stop()
	do := func(f func()) {
		go func() { <-polled; f() }() // ends with the next poll, which next makes
	}
	for _, step := range []struct {
		do   func()
		want []backends.Change
	}{
		{func() { srv.Put("/Lab/hello:2.sif", nil, noon) }, []backends.Change{{Collection: "Lab"}}},
		{func() { srv.Remove("/Lab/hello:1.sif") }, []backends.Change{{Collection: "Lab"}}},
		{func() { srv.Mkdir("/Lab/New") }, []backends.Change{{Collection: "Lab"}, {Collection: "Lab/New"}}},
		{func() { srv.Remove("/lab") }, []backends.Change{{Collection: ""}, {Collection: "Lab", Below: true}}},
	} {
		do(step.do)
		if diff := cmp.Diff(step.want, changes(t, next, len(step.want))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	// A cursor that is too old: the watch ends, and who watches again sees all as changed.
	do(func() { srv.ResetCursors(); srv.Mkdir("/x") })
	if change, err, _ := next(); !errors.Is(err, backends.ErrUnavailable) && (err != nil || !change.Below) {
		t.Errorf("after a reset: %+v, %v", change, err)
	}
}

// A service that asks for a pause gets it, and one that answers at once is not
// asked without end.
func TestWatch_backoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		polls := 0
		hc := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if err := r.Context().Err(); err != nil {
				return nil, err
			}
			body := `{"cursor": "c"}`
			if anonymous[r.URL.Path] {
				polls++
				body = `{"changes": false, "backoff": 60}`
				if polls > 10 {
					body = `{"changes": false}`
				}
			}
			return response(r, body), nil
		})}
		b, err := Open(t.Context(), backends.Env{Remote: "box", HTTP: hc, Secret: token})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute+30*time.Second)
		defer cancel()
		for change, err := range b.(*client).Watch(ctx) {
			if err == nil {
				t.Errorf("%+v", change)
			}
		}
		if polls < 11 || polls > 10+31 {
			t.Errorf("%d polls in ten and a half minutes", polls)
		}
	})
}

func response(r *http.Request, body string) *http.Response {
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}
