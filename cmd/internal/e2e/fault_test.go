// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// answer lets every request to the registry end with one status and text.
func answer(status int, text string) ocitest.Middleware {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text))
		})
	}
}

// wrongBlob answers with other bytes than the digest promises.
func wrongBlob(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.Contains(req.URL.Path, "/blobs/") {
			w = flipper{w}
		}
		next.ServeHTTP(w, req)
	})
}

type flipper struct{ http.ResponseWriter }

func (f flipper) Write(p []byte) (int, error) {
	q := append([]byte(nil), p...)
	for i := range q {
		q[i] ^= 1
	}
	return f.ResponseWriter.Write(q)
}

func hang(http.Handler) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
}

// Each way a registry can be sick has its errno, within the deadline, and the
// other remotes do not notice.
func TestSickRegistry(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		fault ocitest.Middleware // nil: the registry is down
		errno string
	}{
		{"down", nil, "Host is down"},
		{"401", answer(http.StatusUnauthorized, ""), "Permission denied"},
		{"403", answer(http.StatusForbidden, ""), "Permission denied"},
		{"404", answer(http.StatusNotFound, ""), "No such file or directory"},
		{"429", answer(http.StatusTooManyRequests, ""), "Device or resource busy"},
		{"500", answer(http.StatusInternalServerError, ""), "Host is down"},
		{"html", answer(http.StatusOK, "<html>Welcome to the guest network</html>"), "Input/output error"},
		{"hang", hang, "Connection timed out"},
		{"wrong digest", wrongBlob, "Input/output error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reg := ocitest.Start(t, ocitest.Options{})
			reg.PushSIF("demo/tool", "1", randomBytes(1<<20), nil)
			w := newWorld(t, "lab=oci,url="+reg.URL+",timeout=5s")
			w.ok("sreg", "add", greet, "local://demo/greet:1.0")
			m := w.mount()
			if tt.fault == nil {
				reg.Stop()
			} else {
				reg.Use(tt.fault)
			}
			start := time.Now()
			r := w.run("cat", m.path("lab/demo/tool:1.sif"))
			if r.code == 0 || !strings.Contains(r.err, tt.errno) {
				t.Errorf("cat: exit %d, %q; want %q\n%s", r.code, r.err, tt.errno, &m.log)
			}
			if took := time.Since(start); took > 45*time.Second {
				t.Errorf("the answer took %v", took)
			}
			w.ok("ls", m.path("local/demo"))
			w.ok("sha256sum", m.path("local/demo/greet:1.0.sif"))
		})
	}
}

// While a registry hangs, what is here answers at once.
func TestHangingRegistryFreezesNobody(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushSIF("demo/tool", "1", randomBytes(1<<20), nil)
	w := newWorld(t, "lab=oci,url="+reg.URL)
	w.ok("sreg", "add", greet, "local://demo/greet:1.0")
	m := w.mount()
	w.ok("ls", "-l", m.path("lab/demo"))
	reg.Use(hang)
	// Many readers wait for the registry …
	stuck := w.background("sh", "-c", `for i in $(seq 20); do cat "$1" > /dev/null & done; wait`, "sh", m.path("lab/demo/tool:1.sif"))
	w.eventually("the readers wait", func() bool { return reg.Count("", "") >= 0 && stuck.Process != nil })
	// … and other files are read all the same.
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.ok("sha256sum", m.path("local/demo/greet:1.0.sif"))
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("a local file cannot be read while a registry hangs")
	}
	reg.Heal()
	_ = stuck.Wait()
	<-done
}
