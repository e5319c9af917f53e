// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// What the tests of one backend do over and over; what they expect to go well ends
// the test if it does not.

// Ref parses s.
func Ref(tb testing.TB, s string) backends.Ref {
	tb.Helper()
	r, err := backends.ParseRef(s)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// Stat returns the image of that name.
func Stat(tb testing.TB, b backends.Backend, name string) backends.Image {
	tb.Helper()
	img, err := b.Stat(tb.Context(), Ref(tb, name))
	if err != nil {
		tb.Fatalf("Stat(%s): %v", name, err)
	}
	return img
}

// Read opens n bytes of img at off and reads them all. Its error is the caller's to
// look at.
func Read(tb testing.TB, b backends.Backend, img backends.Image, off, n int64) ([]byte, error) {
	tb.Helper()
	return read(tb.Context(), b, img, off, n)
}

// WantRead compares what Read gives with want.
func WantRead(tb testing.TB, b backends.Backend, img backends.Image, off, n int64, want []byte) {
	tb.Helper()
	got, err := Read(tb, b, img, off, n)
	if err != nil || !bytes.Equal(got, want) {
		tb.Errorf("read of %d bytes at %d: %d bytes, %v, want %d", n, off, len(got), err, len(want))
	}
}

// WantErr compares err with the sentinel want; nil means success.
func WantErr(tb testing.TB, what string, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// Names returns the names in a collection, in order; those of collections end in a
// slash.
func Names(tb testing.TB, b backends.Lister, collection string) []string {
	tb.Helper()
	entries, err := backends.Collect(b.List(tb.Context(), collection))
	if err != nil {
		tb.Fatalf("List(%q): %v", collection, err)
	}
	return names(entries)
}

// Source returns content as the source of a push.
func Source(content []byte) backends.Source {
	return backends.Source{
		Content: bytes.NewReader(content), Size: int64(len(content)), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(content)), Format: "sif",
	}
}

// Tokens returns a secret that is the first of all, and the next one, up to the last,
// each time a fresh one is wanted. For concurrent use, as backends ask for it.
func Tokens(all ...string) backends.SecretFunc {
	var mu sync.Mutex // guards all
	return func(_ context.Context, fresh bool) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if fresh && len(all) > 1 {
			all = all[1:]
		}
		return all[0], nil
	}
}

// A Session is a backends.Session in memory. For concurrent use.
type Session struct {
	mu    sync.Mutex // guards the field below
	state []byte
}

// Load implements backends.Session.
func (s *Session) Load() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Save implements backends.Session.
func (s *Session) Save(state []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = bytes.Clone(state)
	return nil
}

// A Log keeps what is logged. For concurrent use.
type Log struct {
	mu   sync.Mutex // guards the field below
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all that was logged.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Logger returns a logger that writes to l.
func (l *Log) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
