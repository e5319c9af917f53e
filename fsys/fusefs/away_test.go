// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// A cable is the way to a registry that goes away after it was asked for the first
// bytes of an image, and stays away until it is mended.
type cable struct {
	next http.RoundTripper
	fail func(*http.Request) (*http.Response, error)

	begun  atomic.Bool
	mended atomic.Bool
	met    atomic.Int64 // requests while it was away
}

func (c *cable) RoundTrip(req *http.Request) (*http.Response, error) {
	first := strings.HasPrefix(req.Header.Get("Range"), "bytes=0-") && !c.begun.Swap(true)
	if first || !c.begun.Load() || c.mended.Load() {
		return c.next.RoundTrip(req)
	}
	c.met.Add(1)
	return c.fail(req)
}

func refusing(err error) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
}

// Half of its timeout long a registry is away, in each way: a program that runs from
// an image waits, and gets neither an error nor a signal. Who looks around meanwhile
// does not wait.
func TestAway(t *testing.T) {
	t.Parallel()
	ways := map[string]func(*http.Request) (*http.Response, error){
		"refused": refusing(os.NewSyscallError("connect", syscall.ECONNREFUSED)),
		"dns":     refusing(&net.DNSError{Err: "server misbehaving", Name: "lab.org", IsTemporary: true}),
		"reset": func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
		},
		"black hole": func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, context.Cause(req.Context())
		},
		"502": func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusBadGateway, Body: http.NoBody, Header: http.Header{}, Request: req}, nil
		},
	}
	for name, fail := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "black hole" {
				runAway(t, fail, 2, "ls web/c; stat web/c/a:1.sif")
				return
			}
			// After so many failures nobody asks any more who need not.
			runAway(t, fail, 8, "ls web/c; stat web/c/a:1.sif; cat web/c/other:1.sif || true")
		})
	}
}

func runAway(t *testing.T, fail func(*http.Request) (*http.Response, error), tries int64, look string) {
	t.Helper()
	line := &cable{fail: fail}
	w := fsystest.New(t, fsystest.Options{
		MaxElapsed: 20 * time.Second, // in place of a minute
		Cache:      cache.Options{FillDelay: time.Millisecond},
		Wire:       func(next http.RoundTripper) http.RoundTripper { line.next = next; return line },
	})
	content := fsystest.Image(24<<20, 7)
	w.Service.Put("c/a:1", content)
	want := filepath.Join(t.TempDir(), "want")
	if err := os.WriteFile(want, content, 0o600); err != nil {
		t.Fatal(err)
	}
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	fusetest.MustShell(t, dir, "ls web/c; stat web/c/a:1.sif")

	program := child(t, "run", filepath.Join(dir, "web/c/a:1.sif"), want)
	var said strings.Builder
	program.Stderr = &said
	in, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the program does not run: %v, %s", err, &said)
	}
	if _, err := in.Write([]byte("go on\n")); err != nil {
		t.Error(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- program.Wait() }()
	for before := line.met.Load(); line.met.Load() < before+tries && len(ended) == 0; {
		time.Sleep(time.Millisecond)
	}
	if out := fusetest.MustShell(t, dir, look); !strings.Contains(out, "a:1.sif") {
		t.Errorf("while the registry is away:\n%s", out)
	}
	line.mended.Store(true)
	if err := <-ended; err != nil {
		t.Errorf("the program: %v, %s", err, &said)
	}
}
