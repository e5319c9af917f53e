// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A registry that is away for a moment: what a reader waits for comes through when
// it is back, whatever else failed meanwhile.
var awayTests = []subtest{
	awayTest("refused", dialing(syscall.ECONNREFUSED), true),
	awayTest("unreachable", dialing(syscall.ENETUNREACH), true),
	awayTest("dns", dialing(&net.DNSError{Err: "server misbehaving", Name: "lab.org", IsTemporary: true}), true),
	awayTest("unknown-host", dialing(&net.DNSError{Err: "no such host", Name: "lab.org", IsNotFound: true}), true),
	awayTest("reset", reset, true),
	awayTest("502", status(502, html, "Content-Type", "text/html"), true),
	awayTest("503", status(503, ""), true),
	awayTest("504", status(504, ""), true),
	awayTest("black-hole", swallowed, false),
	{name: "Away/no-descriptor", http: true, run: func(t *testing.T, s *suite) {
		for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
			noDescriptor(t, s, dialing(&net.OpError{Op: "socket", Err: errno}), errno)
		}
		noDescriptor(t, s, dialing(&net.DNSError{Err: "dial udp: socket: " + syscall.EMFILE.Error(), Name: "lab.org"}), syscall.EMFILE)
	}},
}

// dialing fails to connect.
func dialing(err error) fault {
	return func(req *http.Request, _ http.RoundTripper) (*http.Response, error) {
		drain(req)
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
}

// swallowed is hang with the end that the transport makes of it: no answer within
// backends.HTTPOptions.HeaderTimeout.
func swallowed(req *http.Request, _ http.RoundTripper) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), 2*time.Second)
	defer cancel()
	return hang(req.WithContext(ctx), nil)
}

// awayTest lets the service fail with f for a moment. quick says that nobody has to
// wait long to see that.
func awayTest(name string, f fault, quick bool) subtest {
	return subtest{name: "Away/" + name, http: true, run: func(t *testing.T, s *suite) {
		r, img, want := s.openBig(t)
		c := backends.NewClient("conformance", r.Backend, backends.ClientOptions{MaxElapsed: 12 * time.Second})
		r.wire.set(f)
		ctx, cancel := context.WithCancel(t.Context())
		var background sync.WaitGroup
		defer background.Wait()
		defer cancel()
		for range 16 {
			background.Go(func() {
				if _, err := read(ctx, c, img, 0, -1); err == nil && quick {
					t.Error("a read without a registry succeeded")
				}
			})
		}
		if quick {
			background.Wait()
			asked := r.wire.requests.Load()
			if _, err := c.Stat(t.Context(), img.Ref); !errors.Is(err, backends.ErrUnavailable) || r.wire.requests.Load() != asked {
				t.Errorf("a look-up of what is known to be away: %v after %d requests", err, r.wire.requests.Load()-asked)
			}
		}
		asked := r.wire.requests.Load()
		done := make(chan error)
		var got []byte
		go func() {
			var err error
			got, err = read(backends.Demanded(t.Context(), nil), c, img, 0, -1)
			done <- err
		}()
		for r.wire.requests.Load() == asked && len(done) == 0 {
			time.Sleep(time.Millisecond)
		}
		r.wire.set(nil)
		if err := <-done; err != nil || !bytes.Equal(got, want) {
			t.Errorf("what was waited for: %d of %d bytes, %v", len(got), len(want), err)
		}
		if _, err := c.Stat(t.Context(), img.Ref); err != nil {
			t.Errorf("a look-up afterwards: %v", err)
		}
	}}
}

// noDescriptor lets this machine fail to ask: that is no word about the service.
func noDescriptor(t *testing.T, s *suite, f fault, errno syscall.Errno) {
	t.Helper()
	r := s.open(t, typical()...)
	each(t, s, r, func(t *testing.T, do func(context.Context, caller) error) {
		r.wire.set(f)
		for range 20 {
			asked := r.wire.requests.Load()
			err := do(backends.Demanded(t.Context(), nil), r.client)
			if r.wire.requests.Load() == asked {
				continue // some answer a few questions from memory
			}
			if !errors.Is(err, errno) || errors.Is(err, backends.ErrUnavailable) {
				t.Fatalf("%v, want %v", err, errno)
			}
		}
		r.wire.set(nil)
		if err := do(t.Context(), r.client); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
