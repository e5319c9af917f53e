// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// A login that is too old is refused with 401; by some services with 403, or with 404, as
// for all that one may not see. The credentials are read again once, so that a renewed
// login is taken up by a running mount.
var loginTests = []subtest{
	agedTest(http.StatusUnauthorized), agedTest(http.StatusForbidden), agedTest(http.StatusNotFound),
	{name: "Logins/no-file", http: true, login: true, run: noFile},
}

// noFile has a remote whose token_file is not there: a backend that asks for the login
// passes on that the configuration is wrong.
func noFile(t *testing.T, s *suite) {
	var asked atomic.Bool
	open := func(t *testing.T, seed Seed, hc *http.Client) backends.Backend {
		return s.OpenAs(t, seed, hc, func(context.Context, bool) (string, error) {
			asked.Store(true)
			return "", backends.Saying(backends.ErrNoFile, "token_file: it is not there")
		})
	}
	r := openBy(t, open, backends.HTTPOptions{UserAgent: "backendtest"}, typical()...)
	_, err := r.Stat(t.Context(), r.seed.Images[0].Ref)
	if asked.Load() != errors.Is(err, backends.ErrNoFile) {
		t.Errorf("Stat: %v; want backends.ErrNoFile if the login was asked for (%v)", err, asked.Load())
	}
}

// agedTest renews the login of a remote that has worked with the old one.
func agedTest(refusal int) subtest {
	return subtest{name: fmt.Sprintf("Logins/aged-%d", refusal), http: true, login: true, run: func(t *testing.T, s *suite) {
		for _, command := range []bool{false, true} {
			k := &keys{logins: s.Logins, command: command}
			open := func(t *testing.T, seed Seed, hc *http.Client) backends.Backend {
				return s.OpenAs(t, seed, hc, k.secret)
			}
			r := openBy(t, open, backends.HTTPOptions{UserAgent: "backendtest"}, typical()...)
			r.wire.set(k.note)
			for range 2 {
				wantImage(t, r, r.seed.Images[0])
			}
			k.renew()
			r.wire.set(k.refuse(refusal))
			wantImage(t, r, r.seed.Images[0])
			asked := k.count()
			for range 5 {
				if img, err := r.Stat(t.Context(), image("library/none:latest").Ref); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("Stat of nothing = %v, %v, want fs.ErrNotExist", img, err)
				}
			}
			if n := k.count() - asked; n > 3 {
				t.Errorf("a new login was asked for %d times, for names that are not there", n)
			}
		}
	}}
}

// keys are the logins of a remote, one after the other: as a file has them, whose
// content is read each time, or a command, which gives another only where a fresh one
// is wanted.
type keys struct {
	logins  [2]string
	command bool

	mu      sync.Mutex // guards the fields below
	now     int        // which of logins is good
	given   string
	fresh   int             // how often a fresh one was asked for
	expired map[string]bool // what the requests with the old login had for it
}

func (k *keys) secret(_ context.Context, fresh bool) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if fresh {
		k.fresh++
	}
	if !k.command || fresh || k.given == "" {
		k.given = k.logins[k.now]
	}
	return k.given, nil
}

func (k *keys) renew() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = 1
}

func (k *keys) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fresh
}

// loginOf returns what a request has logged in by: "" if by nothing.
func loginOf(req *http.Request) string {
	return cmp.Or(req.Header.Get("Authorization"), req.Header.Get("X-Auth-Token"), req.Header.Get("Private-Token"))
}

// note is a fault that only remembers the logins.
func (k *keys) note(req *http.Request, next http.RoundTripper) (*http.Response, error) {
	k.mu.Lock()
	if k.expired == nil {
		k.expired = map[string]bool{}
	}
	if login := loginOf(req); login != "" {
		k.expired[login] = true
	}
	k.mu.Unlock()
	return next.RoundTrip(req)
}

// refuse answers with a status what comes with a login that was noted.
func (k *keys) refuse(refusal int) fault {
	answer := status(refusal, `{}`)
	return func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		k.mu.Lock()
		old := k.expired[loginOf(req)]
		k.mu.Unlock()
		if old {
			return answer(req, next)
		}
		return next.RoundTrip(req)
	}
}
