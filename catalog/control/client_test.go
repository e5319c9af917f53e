// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if asOtherUser() {
		return
	}
	goleak.VerifyTestMain(m)
}

type echo struct{ Text string }

// testVerbs are verbs without a catalogue, which show what the transport does.
func testVerbs(stopped chan<- error) map[string]verb {
	return map[string]verb{
		"count": verbOf(func(ctx context.Context, n int, out *frameWriter) error {
			for i := range n {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := out.item(i); err != nil {
					return err
				}
			}
			return nil
		}),
		"echo": verbOf(func(_ context.Context, e echo, out *frameWriter) error { return out.item(e) }),
		"fail": verbOf(func(_ context.Context, _ noneRequest, out *frameWriter) error {
			if err := out.item(1); err != nil {
				return err
			}
			return fmt.Errorf("%w: nothing here", fs.ErrNotExist)
		}),
		"work": verbOf(func(_ context.Context, _ noneRequest, out *frameWriter) error {
			for i := range int64(5) {
				out.progress(i, 4)
			}
			return out.item(echo{"done"})
		}),
		"panic": verbOf(func(_ context.Context, _ noneRequest, out *frameWriter) error {
			var sizes []int
			_ = out.item(1)
			return out.item(sizes[7])
		}),
		"hang": verbOf(func(ctx context.Context, _ noneRequest, out *frameWriter) error {
			out.progress(0, -1)
			<-ctx.Done()
			stopped <- ctx.Err()
			return ctx.Err()
		}),
	}
}

// serve serves h on a socket until the test ends, and returns the socket.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "dir", "control.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, h, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return socket
}

// both runs a test in this process and over a socket.
func both(t *testing.T, test func(t *testing.T, c *Client, stopped <-chan error)) {
	t.Helper()
	t.Run("local", func(t *testing.T) {
		t.Parallel()
		stopped := make(chan error, 1)
		test(t, Local(newMux(slog.New(slog.DiscardHandler), testVerbs(stopped))), stopped)
	})
	t.Run("socket", func(t *testing.T) {
		t.Parallel()
		stopped := make(chan error, 1)
		socket := serve(t, newMux(slog.New(slog.DiscardHandler), testVerbs(stopped)))
		c, err := Dial(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		test(t, c, stopped)
	})
}

func TestItems(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *Client, _ <-chan error) {
		for _, n := range []int{0, 1, 10_000} {
			next := 0
			for i, err := range call[int](t.Context(), c, "count", n, nil) {
				if err != nil || i != next {
					t.Fatalf("item %d is %d, %v", next, i, err)
				}
				next++
			}
			if next != n {
				t.Errorf("%d items, want %d", next, n)
			}
		}
	})
}

func TestBreakingOutEndsTheWork(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *Client, _ <-chan error) {
		for i, err := range call[int](t.Context(), c, "count", 1<<40, nil) {
			if err != nil {
				t.Fatal(err)
			}
			if i == 100 {
				break
			}
		}
		// The connection of the endless answer is gone; the next call has another.
		if got, err := one(call[echo](t.Context(), c, "echo", echo{"again"}, nil)); err != nil || got.Text != "again" {
			t.Errorf("next call: %v, %v", got, err)
		}
	})
}

func TestErrorAfterItems(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *Client, _ <-chan error) {
		var got []string
		for i, err := range call[int](t.Context(), c, "fail", noneRequest{}, nil) {
			got = append(got, fmt.Sprint(i, errors.Is(err, fs.ErrNotExist)))
		}
		if diff := cmp.Diff([]string{"1 false", "0 true"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

// A panic is the error of its request, whichever process it happens in, and the
// next request is answered.
func TestPanic(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *Client, _ <-chan error) {
		for range 2 {
			items := 0
			var err error
			for _, err = range call[int](t.Context(), c, "panic", noneRequest{}, nil) {
				items++
			}
			if err == nil || !strings.HasPrefix(err.Error(), "internal error: runtime error: index out of range") || items != 2 {
				t.Errorf("%d items, then %v", items, err)
			}
		}
	})
}

func TestProgress(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *Client, _ <-chan error) {
		var got []int64
		e, err := one(call[echo](t.Context(), c, "work", noneRequest{}, func(done, _ int64) { got = append(got, done) }))
		if err != nil || e.Text != "done" {
			t.Errorf("result %v, %v", e, err)
		}
		if diff := cmp.Diff([]int64{0, 1, 2, 3, 4}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCancelEndsTheWork(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *Client, stopped <-chan error) {
		ctx, cancel := context.WithCancel(t.Context())
		// The first progress says that the work is under way.
		err := none(call[struct{}](ctx, c, "hang", noneRequest{}, func(int64, int64) { cancel() }))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call gives %v", err)
		}
		if err := <-stopped; !errors.Is(err, context.Canceled) {
			t.Errorf("the work ended with %v", err)
		}
	})
}

func TestServerEndEndsTheWork(t *testing.T) {
	t.Parallel()
	stopped := make(chan error, 1)
	l, err := Listen(filepath.Join(t.TempDir(), "dir", "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, l, newMux(slog.New(slog.DiscardHandler), testVerbs(stopped)), slog.New(slog.DiscardHandler))
	}()
	c, err := Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = none(call[struct{}](t.Context(), c, "hang", noneRequest{}, func(int64, int64) { cancel() }))
	if err == nil {
		t.Error("the call succeeded")
	}
	<-stopped
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *Client, _ <-chan error) {
		for _, b := range []struct {
			verb string
			req  any
			want error
		}{
			{"juggle", noneRequest{}, errors.ErrUnsupported},
			{"echo", 17, fs.ErrInvalid},
			{"echo", echo{strings.Repeat("x", MaxRequest)}, fs.ErrInvalid},
		} {
			if _, err := one(call[echo](t.Context(), c, b.verb, b.req, nil)); !errors.Is(err, b.want) {
				t.Errorf("%s gives %.200v, want %v", b.verb, err, b.want)
			}
		}
	})
}

// Whatever else answers at the socket is told apart from a mount.
func TestStrangeServers(t *testing.T) {
	t.Parallel()
	answer := func(protocol, body string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if protocol != "" {
				w.Header().Set(protocolHeader, protocol)
			}
			_, _ = io.WriteString(w, body)
		})
	}
	for _, s := range []struct {
		name string
		h    http.Handler
		want error
		text string
	}{
		{"not ours", answer("", "hello"), ErrProtocol, "not sregfs"},
		{"another protocol", answer("99", `{"end":true}`), ErrProtocol, `"99", not 1`},
		{"no JSON", answer("1", "hello\n"), ErrProtocol, "not JSON"},
		{"no result", answer("1", `{"end":true}`), ErrProtocol, "0 results"},
		{"wrong result", answer("1", `{"item":5}`), ErrProtocol, "cannot unmarshal"},
		{"broken off", answer("1", `{"item":{}}`+"\n"), io.ErrUnexpectedEOF, "broke off"},
		{"endless line", answer("1", strings.Repeat(" ", maxFrame+1)), ErrProtocol, "a line of more than"},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c, err := Dial(t.Context(), serve(t, s.h))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, err = one(call[echo](t.Context(), c, "echo", echo{}, nil))
			if !errors.Is(err, s.want) || !strings.Contains(err.Error(), s.text) {
				t.Errorf("gives %v, want %v with %q", err, s.want, s.text)
			}
		})
	}
}

// An old client is refused before its request is looked at.
func TestStrangeClients(t *testing.T) {
	t.Parallel()
	socket := serve(t, newMux(slog.New(slog.DiscardHandler), testVerbs(nil)))
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for _, s := range []struct{ protocol, contentType, want string }{
		{"", "application/json", "not sregfs"},
		{"0", "application/json", `"0", not 1`},
		{"1", "text/plain", "not application/json"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/v1/echo", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", s.contentType)
		if s.protocol != "" {
			req.Header.Set(protocolHeader, s.protocol)
		}
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		err = readFrames(resp.Body, func(frame) error { return nil })
		resp.Body.Close()
		if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), s.want) {
			t.Errorf("protocol %q, type %q: %v, want %q in it", s.protocol, s.contentType, err, s.want)
		}
	}
}

// Only a last frame makes an answer complete.
func FuzzReadFrames(f *testing.F) {
	f.Add([]byte("{\"item\":1}\n{\"progress\":{\"done\":1}}\n{\"end\":true}\n"))
	f.Add([]byte("{\"error\":{\"message\":\"x\",\"codes\":[\"eio\"]}}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var last frame
		if readFrames(bytes.NewReader(text), func(frame) error { return nil }) != nil {
			return
		}
		for line := range bytes.Lines(text) {
			last = frame{}
			if json.Unmarshal(line, &last) == nil && last.End {
				return
			}
		}
		t.Errorf("%q passes for a complete answer", text)
	})
}

// A mount that ends has not heard who is just connecting: nothing was done, and asking
// once more finds the next one.
func TestClient_unheard(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() { // once the request was sent, unread
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Read(make([]byte, 1))
		conn.Close()
	}()
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrUnheard) {
		t.Errorf("Status: %v, want ErrUnheard", err)
	}
	late, err := Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	l.Close()
	if _, err := late.Status(t.Context()); !errors.Is(err, ErrUnheard) {
		t.Errorf("Status after the end: %v, want ErrUnheard", err)
	}
}
