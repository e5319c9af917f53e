// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"context"
	"runtime/pprof"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

var closeTests = []subtest{
	{name: "Close/twice", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		for i := range 2 {
			if err := r.client.Close(); err != nil {
				t.Errorf("Close %d: %v", i+1, err)
			}
		}
	}},
	{name: "Close/goroutines", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		// Goroutines inherit the label of the one that started them, so this
		// sees those of this test alone.
		pprof.Do(t.Context(), pprof.Labels("backendtest", t.Name()), func(ctx context.Context) {
			img := stat(ctx, t, r, r.seed.Images[0].Ref)
			if _, err := read(ctx, r.client, img, 10, 20); err != nil {
				t.Error(err)
			}
			if s.Caps.Has(backends.CanList) {
				collect(t, r, "library")
			}
			if err := r.client.Close(); err != nil {
				t.Error(err)
			}
		})
		r.wire.CloseIdleConnections()
		deadline := time.Now().Add(5 * time.Second)
		for left := labelled(t, t.Name()); left != ""; left = labelled(t, t.Name()) {
			if time.Now().After(deadline) {
				t.Fatalf("goroutines left after Close:\n%s", left)
			}
			<-time.After(5 * time.Millisecond)
		}
	}},
}

// labelled returns the part of the goroutine profile with that label.
func labelled(t *testing.T, label string) string {
	t.Helper()
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		t.Fatal(err)
	}
	var found bytes.Buffer
	for block := range bytes.SplitSeq(profile.Bytes(), []byte("\n\n")) {
		if bytes.Contains(block, []byte(`"backendtest":"`+label+`"`)) {
			found.Write(append(block, '\n'))
		}
	}
	return found.String()
}
