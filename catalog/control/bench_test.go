// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// A list of 100,000 images on its way from one side to the other.
func BenchmarkList(b *testing.B) {
	const n = 100_000
	all := make([]verbs.Record, 1000)
	for i := range all {
		ref := backends.Ref{Collection: "group/team", Name: fmt.Sprintf("image%05d", i), Tag: "1.0"}
		all[i] = verbs.Record{
			URI: "lab://" + ref.String(), Remote: "lab", Ref: ref, Size: 700 << 20, State: "remote", Format: "sif",
			Digest:   "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
			Modified: time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC),
		}
	}
	list := func(yield func(verbs.Record, error) bool) {
		for i := range n {
			if !yield(all[i%len(all)], nil) {
				return
			}
		}
	}
	c := Local(newMux(slog.New(slog.DiscardHandler), map[string]verb{
		"all":   verbOf(func(_ context.Context, _ noneRequest, out *frameWriter) error { return sendAll(out, list) }),
		"brief": verbOf(func(_ context.Context, _ noneRequest, out *frameWriter) error { return sendAll(out, brief(list)) }),
	}))
	for _, verb := range []string{"all", "brief"} {
		b.Run(verb, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got, err := backends.Collect(call[verbs.Record](b.Context(), c, verb, noneRequest{}, nil)); err != nil || len(got) != n {
					b.Fatalf("%d images, %v", len(got), err)
				}
			}
		})
	}
}
