// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// benchSearch measures "sreg search" in a mount that is asked more than once: a search of
// names, labels and texts, its way through the socket's protocol, and JSON. 10,000 of the
// images have been looked into.
func (w wide) benchSearch(b *testing.B, dir string) {
	c := w.use(b, dir)
	state, err := c.State()
	if err != nil {
		b.Fatal(err)
	}
	for i := range 10_000 {
		t := index.Text{
			Labels: map[string]string{"maintainer": fmt.Sprintf("person%d", i%1000), "org.example.lab": "genomics"},
			Help:   fmt.Sprintf("    A tool, number %d, for reads of which there are many.\n", i),
			Definition: fmt.Sprintf("Bootstrap: docker\nFrom: debian:12\n\n%%post\n    apt-get install -y tool-%d\n"+
				"    # %0900d\n\n%%runscript\n    exec tool \"$@\"\n", i, i),
		}
		ref := w.ref(i%w.collections, i/w.collections)
		e, _ := state.Index.Entry("lab", ref)
		t.Key = cache.KeyOf("lab", e.Image)
		if err := state.Index.SaveText("lab", ref, t); err != nil {
			b.Fatal(err)
		}
	}
	for name, query := range map[string]string{
		"part": "v4.02-0001f", "name": "tool-0001:v1", "glob": "team000/tool-????:v1.03-0000*", "none": "no such thing",
		"remote": "lab://tool-0001:v1", "text": "apt-get install -y tool-77", "label": "maintainer=person77",
	} {
		b.Run(name, func(b *testing.B) {
			client := control.Local(control.Handler(verbsOf(c), control.Options{}))
			var took []time.Duration
			hits, began := 0, cpuTime()
			for b.Loop() {
				start := time.Now()
				var all []verbs.Hit
				for hit, err := range client.Search(b.Context(), verbs.SearchOptions{Queries: []string{query}}) {
					if err != nil {
						b.Fatal(err)
					}
					all = append(all, hit)
				}
				if err := json.NewEncoder(io.Discard).Encode(all); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
				hits = len(all)
			}
			b.ReportMetric(float64(hits), "hits")
			b.ReportMetric(float64((cpuTime()-began).Microseconds())/1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(took[0].Microseconds())/1000, "ms-first")
			if took = took[1:]; len(took) > 0 {
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
			}
		})
	}
}
