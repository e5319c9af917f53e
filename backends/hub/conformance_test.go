// SPDX-License-Identifier: Apache-2.0

package hub_test

import (
	"context"
	"io"
	"iter"
	"maps"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/hub"
	"github.com/sregfs/sregfs/backends/hub/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start starts an archive of the suite's images; those that it could not hold
// are left out.
func start(t *testing.T, opts hubtest.Options, seed backendtest.Seed) *hubtest.Server {
	t.Helper()
	srv := hubtest.Start(t, opts)
	for _, img := range seed.Images {
		if !strings.Contains(img.Ref.Collection, "/") {
			srv.Add(hubtest.Image{
				Name: img.Ref.Repository(), Tag: img.Ref.Tag, Content: img.Content, Ext: img.Format, Built: img.Modified,
			})
		}
	}
	return srv
}

// flat says why collections below collections are not tested.
var flat = map[string]string{"List/nested": "an organisation is one part of a name, so that nothing can be nested"}

func with(skip map[string]string, more map[string]string) map[string]string {
	skip = maps.Clone(skip)
	maps.Copy(skip, more)
	return skip
}

const noRequest = "what is in the index needs no request: TestConformance_cold runs it"

// The index is here after the first question.
func TestConformance(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, backendtest.Harness{
		Caps: backends.CanList | backends.CanSearch,
		Skip: with(flat, map[string]string{
			"Faults/401": noRequest, "Faults/403": noRequest, "Faults/404": noRequest, "Faults/500": noRequest, "Faults/503": noRequest,
			"Faults/429": noRequest, "Faults/retry-after": noRequest, "Faults/reset": noRequest, "Faults/hang": noRequest,
		}),
		Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
			return backendtest.Open(t, hub.Open, hc, start(t, hubtest.Options{}, seed).Config())
		},
	})
}

// A cold backend has forgotten everything at each question: a process that begins.
type cold struct{ remote }

func (c cold) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	hub.Forget(c.remote)
	return c.remote.Stat(ctx, ref)
}

func (c cold) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	hub.Forget(c.remote)
	return c.remote.Open(ctx, img, off, n)
}

func (c cold) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	hub.Forget(c.remote)
	return c.remote.List(ctx, collection)
}

func (c cold) Search(ctx context.Context, query string) iter.Seq2[backends.Image, error] {
	hub.Forget(c.remote)
	return c.remote.Search(ctx, query)
}

func TestConformance_cold(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, backendtest.Harness{
		Caps: backends.CanList | backends.CanSearch,
		Skip: with(flat, map[string]string{"Faults/404": "that there is no index says nothing of a collection: TestIndex_missing"}),
		Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
			return cold{backendtest.Open(t, hub.Open, hc, start(t, hubtest.Options{}, seed).Config()).(remote)}
		},
	})
}

// A named backend has no index: what is named can be had from the service.
type named struct {
	backends.Backend
	backends.NameChecker
	backends.Addressed
}

func TestConformance_service(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, backendtest.Harness{
		Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
			b := backendtest.Open(t, hub.Open, hc, start(t, hubtest.Options{NoIndex: true}, seed).Config())
			return named{b, b.(backends.NameChecker), b.(backends.Addressed)}
		},
	})
}
