// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func newClient(t *testing.T, opts HTTPOptions) *http.Client {
	t.Helper()
	hc := NewHTTPClient(opts)
	t.Cleanup(hc.CloseIdleConnections)
	return hc
}

func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	return srv
}

func get(t *testing.T, hc *http.Client, url string, header ...string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := hc.Do(req)
	if err == nil {
		t.Cleanup(func() { resp.Body.Close() })
	}
	return resp, err
}

var secrets = []string{"Authorization", "Bearer secret", "Cookie", "secret", "Private-Token", "secret", "X-Auth-Token", "secret", "Range", "bytes=0-1"}

// Another port is another origin, though package net/http would not say so. Of
// the sender's headers none arrives there, also not by way of a second hop back.
func TestHTTP_redirectStripsCredentials(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 4)
	var home *httptest.Server
	away := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Clone()
		if r.URL.Path == "/back" {
			http.Redirect(w, r, home.URL+"/end", http.StatusFound)
		}
	})
	home = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, away.URL+"/?X-Amz-Signature=s", http.StatusTemporaryRedirect)
		case "/back":
			http.Redirect(w, r, away.URL+"/back", http.StatusFound)
		case "/same":
			http.Redirect(w, r, "/end", http.StatusFound)
		default:
			got <- r.Header.Clone()
		}
	})
	hc := newClient(t, HTTPOptions{UserAgent: "ours"})
	for path, n := range map[string]int{"/away?token=t": 1, "/back?token=t": 2} {
		if _, err := get(t, hc, home.URL+path, secrets...); err != nil {
			t.Fatal(err)
		}
		for range n {
			h := <-got
			for name, values := range h {
				if strings.Contains(strings.Join(values, ""), "secret") || strings.Contains(strings.Join(values, ""), "token=") {
					t.Errorf("%s: the other origin saw %s: %q", path, name, values)
				}
			}
			if h.Get("Range") != "bytes=0-1" || h.Get("User-Agent") != "ours" || h.Get("Accept-Encoding") != "" {
				t.Errorf("%s: headers that a range needs: %v", path, h)
			}
		}
	}
	if _, err := get(t, hc, home.URL+"/same", secrets...); err != nil {
		t.Fatal(err)
	}
	if h := <-got; h.Get("Authorization") != "Bearer secret" || h.Get("Private-Token") != "secret" {
		t.Errorf("within the origin the credentials stay: %v", h)
	}
}

func TestHTTP_redirectOfUpload(t *testing.T) {
	t.Parallel()
	away := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the other origin was asked") })
	home := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		http.Redirect(w, r, away.URL, http.StatusTemporaryRedirect)
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, home.URL, strings.NewReader("password=secret"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := newClient(t, HTTPOptions{}).Do(req)
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, ErrUnavailable) || transient(err) {
		t.Errorf("%v, want a permanent ErrUnavailable", err)
	}
}

func TestHTTP_redirectDowngrade(t *testing.T) {
	t.Parallel()
	insecure := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("http was asked after https") })
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, insecure.URL+"/?sig=secret", http.StatusFound)
	}))
	t.Cleanup(secure.Close)
	config := secure.Client().Transport.(*http.Transport).TLSClientConfig
	_, err := get(t, newClient(t, HTTPOptions{TLS: config}), secure.URL)
	if !errors.Is(err, ErrUnavailable) || transient(err) || strings.Contains(TransportError(err).Error(), "secret") {
		t.Errorf("%v", err)
	}
	// Without its certificate: unavailable, and there is no point in trying again.
	_, err = get(t, newClient(t, HTTPOptions{}), secure.URL)
	if err = TransportError(err); !errors.Is(err, ErrUnavailable) || transient(err) {
		t.Errorf("an unknown certificate: %v", err)
	}
}

func TestHTTP_redirectLoop(t *testing.T) {
	t.Parallel()
	n := 0
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n++
		http.Redirect(w, r, "/again", http.StatusFound)
	})
	if _, err := get(t, newClient(t, HTTPOptions{}), srv.URL); !errors.Is(err, ErrUnavailable) || n > maxRedirects+1 {
		t.Errorf("%v after %d requests", err, n)
	}
}

// Which addresses are public is turned round for the test: 127.0.0.1 counts as
// public, 127.0.0.2 does not.
func TestHTTP_redirectToPrivate(t *testing.T) {
	t.Parallel()
	private := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metadata") })
	target := strings.Replace(private.URL, "127.0.0.1", "localhost", 1)
	public := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target+"/latest/meta-data", http.StatusFound)
	})
	for name, tt := range map[string]struct {
		allow, registryPublic, targetPublic, refused bool
	}{
		"public to private":   {false, true, false, true},
		"public to public":    {false, true, true, false},
		"private to private":  {false, false, false, false},
		"allowed":             {true, true, false, false},
		"private to anything": {false, false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hc := newClient(t, HTTPOptions{AllowPrivate: tt.allow})
			asked := 0
			hc.Transport.(*roundTripper).public = func(netip.Addr) bool {
				asked++
				if asked == 1 {
					return tt.registryPublic
				}
				return tt.targetPublic
			}
			resp, err := get(t, hc, public.URL)
			if (err != nil) != tt.refused || err != nil && (!errors.Is(err, ErrUnavailable) || transient(classify(err))) {
				t.Errorf("%v, want refused = %v", err, tt.refused)
			}
			if err == nil && resp.Request.URL.Host != strings.TrimPrefix(target, "http://") {
				t.Errorf("ended at %v", resp.Request.URL)
			}
		})
	}
}

// The last request of a chain of redirects is guarded if any host on the way to
// it was public, not the first one alone.
func TestHTTP_redirectChain(t *testing.T) {
	t.Parallel()
	const private, public = "10.0.0.1", "1.1.1.1"
	for _, tt := range []struct {
		hops    []string
		guarded bool
	}{
		{nil, false},
		{[]string{private}, false},
		{[]string{private, private}, false},
		{[]string{public}, true},
		{[]string{public, private}, true},
		{[]string{private, public}, true},
		{[]string{private, public, private}, true},
	} {
		rt := newClient(t, HTTPOptions{}).Transport.(*roundTripper)
		var last *http.Response
		for _, addr := range tt.hops {
			ctx := context.WithValue(t.Context(), peerKey{}, &peer{netip.MustParseAddr(addr)})
			hop := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://hop.example/", nil)
			hop.Response = last
			last = &http.Response{Request: hop}
		}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://end.example/", nil)
		req.Response = last
		if got, err := rt.transport(req); err != nil || (got == rt.guarded) != tt.guarded {
			t.Errorf("by %v: guarded %v, %v", tt.hops, got == rt.guarded, err)
		}
	}
}

func TestIsPublic(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"1.1.1.1": true, "2606:4700::1": true, "172.32.0.1": true, "64:ff9b::808:808": true,
		"127.0.0.1": false, "10.0.0.1": false, "172.16.9.9": false, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false, "168.63.129.16": false, "2001:0:7f00:1::": false,
		"0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false, "::1": false, "::": false, "fe80::1": false, "fd00::1": false,
		"::127.0.0.1": false, "2002:7f00:1::": false, "64:ff9b:1::a00:1": false,
		"::ffff:127.0.0.1": false, "::ffff:10.1.2.3": false, "64:ff9b::7f00:1": false, "64:ff9b::a9fe:a9fe": false, "fe80::1%eth0": false,
	} {
		if got := isPublic(netip.MustParseAddr(addr)); got != want {
			t.Errorf("isPublic(%s) = %v", addr, got)
		}
	}
}

// What a proxy would be asked for is judged by its spelling.
func TestPublicName(t *testing.T) {
	t.Parallel()
	rt := newClient(t, HTTPOptions{}).Transport.(*roundTripper)
	for host, want := range map[string]bool{
		"cdn.example": true, "cdn.example.": true, "3com.example": true, "1.1.1.1": true, "2606:4700::1": true,
		"localhost": false, "LOCALHOST.": false, "a.localhost": false, "127.0.0.1": false, "127.0.0.1.": false, "127.1": false,
		"2130706433": false, "0x7f000001": false, "0x7f.1": false, "10.0x1": false, "::ffff:10.0.0.1": false, "fe80::1%eth0": false, "": false,
	} {
		if got := rt.publicName(host); got != want {
			t.Errorf("publicName(%q) = %v", host, got)
		}
	}
}

func TestHTTP_silence(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	hang := func(r *http.Request) {
		select {
		case <-end:
		case <-r.Context().Done():
		}
	}
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/header":
			hang(r)
		case "/body":
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "01234")
			_ = http.NewResponseController(w).Flush()
			hang(r)
		case "/upload":
			hang(r)
		}
	})
	t.Cleanup(func() { close(end) })
	hc := newClient(t, HTTPOptions{IdleTimeout: 3 * time.Second}) // a busy machine takes a while to begin an answer
	if _, err := get(t, newClient(t, HTTPOptions{HeaderTimeout: 30 * time.Millisecond}), srv.URL+"/header"); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(TransportError(err), context.DeadlineExceeded) {
		t.Errorf("no header: %v", err)
	}
	resp, err := get(t, hc, srv.URL+"/body")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(resp.Body); string(text) != "01234" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a body that stops: %q, %v", text, err)
	}
	// More than the socket buffers hold, so that the server has to take it.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, srv.URL+"/upload", io.LimitReader(zeros{}, 64<<20))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := hc.Do(req); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an upload that nobody takes: %v, %v", resp, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// A reader that takes its time over a body is no silence of the registry.
func TestHTTP_slowReader(t *testing.T) {
	t.Parallel()
	srv := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, io.LimitReader(zeros{}, 1<<20)) })
	resp, err := get(t, newClient(t, HTTPOptions{HeaderTimeout: 5 * time.Second, IdleTimeout: 5 * time.Second}), srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	body := resp.Body.(*watchedBody)
	body.rate.window = 200 * time.Millisecond
	if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	<-time.After(500 * time.Millisecond)
	if n, err := io.Copy(io.Discard, body); err != nil || n != 1<<20-1000 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestHTTP_protocol(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	config := srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	resp, err := get(t, newClient(t, HTTPOptions{TLS: config}), srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "HTTP/1.1" {
		t.Errorf("%s, %v: parallel ranges want a connection each", text, err)
	}
}

func TestHTTP_hugeHeader(t *testing.T) {
	t.Parallel()
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := maxHeader / 2
		if r.URL.Path == "/huge" {
			n = 2 * maxHeader
		}
		w.Header().Set("Link", strings.Repeat("x", n))
	})
	hc := newClient(t, HTTPOptions{})
	if _, err := get(t, hc, srv.URL+"/large"); err != nil {
		t.Errorf("half of the limit: %v", err)
	}
	if _, err := get(t, hc, srv.URL+"/huge"); !errors.Is(TransportError(err), ErrUnavailable) {
		t.Errorf("twice the limit: %v", err)
	}
}

func TestTransportError(t *testing.T) {
	t.Parallel()
	hc := newClient(t, HTTPOptions{})
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	_, err := get(t, hc, closed.URL+"/x?sig=secret")
	if err = TransportError(err); !errors.Is(err, ErrUnavailable) || !transient(err) || strings.Contains(err.Error(), "secret") {
		t.Errorf("connection refused: %v", err)
	}
	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	_, err = get(t, hc, strings.Replace(plain.URL, "http:", "https:", 1))
	if err = TransportError(err); !errors.Is(err, ErrUnavailable) || transient(err) {
		t.Errorf("TLS to a plain server: %v", err)
	}
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		for _, cause := range []error{os.NewSyscallError("socket", e), &net.DNSError{Err: "dial udp: socket: " + e.Error()}} {
			err := TransportError(&url.Error{Op: "Get", URL: "https://lab.org/?sig=secret", Err: &net.OpError{Op: "dial", Err: cause}})
			if !errors.Is(err, e) || errors.Is(err, ErrUnavailable) || transient(err) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v: %v", e, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, plain.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := hc.Do(req)
	if err == nil {
		resp.Body.Close()
	}
	if err = TransportError(err); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
		t.Errorf("cancelled: %v", err)
	}
}

// A request that changes something arrives as what it was, or is refused: nothing
// but the service's own answer to it counts.
func TestHTTP_methodIsKept(t *testing.T) {
	t.Parallel()
	var srv *httptest.Server
	var arrived atomic.Value
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(strings.Trim(r.URL.Path, "/"))
		switch {
		case r.URL.Path == "/page":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = io.WriteString(w, "\n<!DOCTYPE html><title>Sign in</title>")
		case r.URL.Path == "/accepted", r.URL.Path == "/created": // as OpenStack Swift and Apache say so
			w.Header().Set("Content-Type", "text/html; charset=UTF-8")
			w.WriteHeader(map[string]int{"/accepted": http.StatusAccepted, "/created": http.StatusCreated}[r.URL.Path])
			_, _ = io.WriteString(w, "<html><h1>Done</h1></html>")
		case r.URL.Path == "/words": // what some servers say of everything
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "done")
		case r.URL.Path == "/end":
			arrived.Store(r.Method)
		case err == nil:
			http.Redirect(w, r, srv.URL+"/end", code)
		}
	}))
	defer srv.Close()
	c := newClient(t, HTTPOptions{})
	send := func(method, path string) error {
		arrived.Store("")
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	for _, method := range []string{http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		for _, path := range []string{"/301", "/302", "/303", "/page"} {
			if err := send(method, path); !errors.Is(err, ErrUnavailable) || arrived.Load() != "" {
				t.Errorf("%s %s: %v, and a %q arrived; want it refused", method, path, err, arrived.Load())
			}
		}
		for _, path := range []string{"/307", "/308"} {
			if err := send(method, path); err != nil || arrived.Load() != method {
				t.Errorf("%s %s: %v, and a %q arrived", method, path, err, arrived.Load())
			}
		}
		for _, path := range []string{"/words", "/accepted", "/created"} {
			if err := send(method, path); err != nil {
				t.Errorf("%s %s: %v", method, path, err)
			}
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		if err := send(method, "/302"); err != nil || arrived.Load() != method {
			t.Errorf("%s /302: %v, and a %q arrived", method, err, arrived.Load())
		}
	}
}
