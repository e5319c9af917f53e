// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"fmt"
	"maps"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// All subtests share a registry, each in a namespace of its own.
func TestConformance(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	var opened atomic.Int64
	backendtest.Run(t, backendtest.Harness{
		Caps: backends.CanList | backends.CanPush | backends.CanDelete | backends.CanMove, KeepsTime: true, KeepsFormat: true,
		Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
			namespace := fmt.Sprintf("suite/test%d", opened.Add(1))
			for _, img := range seed.Images {
				annotations := map[string]string{"org.opencontainers.image.created": img.Modified.UTC().Format(time.RFC3339)}
				maps.Copy(annotations, img.Labels)
				reg.PushSIF(namespace+"/"+img.Ref.Repository(), img.Ref.Tag, img.Content, annotations)
			}
			return backendtest.Open(t, oci.Open, hc, map[string]any{"url": reg.URL, "namespace": namespace})
		},
	})
}
