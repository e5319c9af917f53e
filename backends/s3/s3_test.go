// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"maps"
	"net/http"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/s3/s3test"
)

func login(context.Context, bool) (string, error) {
	return s3test.AccessKey + ":" + s3test.SecretKey, nil
}

// marks is what Amazon's documentation of conditional writes has otherwise: there is no object
// where the latest version is the mark of a deleted one.
const marks = "versitygw v1.8.0 refuses If-None-Match where a version was deleted"

// caps are those of every bucket.
const caps = backends.CanList | backends.CanPush | backends.CanDelete | backends.CanMove | backends.CanCopy | backends.CanTag |
	backends.CanListVersions | backends.CanShare

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		versions bool
		config   map[string]any
		adjust   func(*bucket)
		skip     map[string]string
	}{
		"plain": {},
		"versions": {versions: true, config: map[string]any{"prefix": "some/where"}, skip: map[string]string{
			"Push/again":     marks,
			"Move/roundtrip": marks,
		}},
		"small": {
			adjust: func(b *bucket) { b.page = 2 },
			skip:   map[string]string{"Budget/walk": "pages of two names take more requests"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := s3test.Start(t)
			skip := map[string]string{"Stat/modified": "a bucket tells when an object was stored, and nobody can say otherwise"}
			maps.Copy(skip, test.skip)
			backendtest.Run(t, backendtest.Harness{
				Caps: caps, KeepsFormat: true,
				Skip: skip,
				Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
					config := map[string]any{"url": srv.URL, "bucket": srv.Bucket(t, test.versions)}
					maps.Copy(config, test.config)
					b := backendtest.Open(t, backendtest.LoggedIn(Open, "", login), hc, config)
					c := b.(*client)
					if test.adjust != nil {
						test.adjust(c.bucket)
					}
					plant(t, srv, c, seed)
					return b
				},
			})
		})
	}
}

// plant puts images where sregistry would.
func plant(t *testing.T, srv *s3test.Server, c *client, seed backendtest.Seed) {
	t.Helper()
	for _, img := range seed.Images {
		if c.CheckName(img.Ref) == nil {
			key := c.bucket.key(files.Layout{}.Path(img.Ref, img.Format))
			srv.Put(t, c.bucket.name, key, img.Content, nil)
		}
	}
}
