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
	logins := [2]string{"first", "second"}
	private := ocitest.Start(t, ocitest.Options{User: "me", Password: logins[0]})
	private.Use(func(next http.Handler) http.Handler { // one user has one password there
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if _, password, _ := req.BasicAuth(); password == logins[1] {
				req.SetBasicAuth("me", logins[0])
			}
			next.ServeHTTP(w, req)
		})
	})
	var opened atomic.Int64
	seeded := func(reg *ocitest.Registry, seed backendtest.Seed) map[string]any {
		namespace := fmt.Sprintf("suite/test%d", opened.Add(1))
		for _, img := range seed.Images {
			annotations := map[string]string{"org.opencontainers.image.created": img.Modified.UTC().Format(time.RFC3339)}
			maps.Copy(annotations, img.Labels)
			reg.PushSIF(namespace+"/"+img.Ref.Repository(), img.Ref.Tag, img.Content, annotations)
		}
		for _, c := range seed.Containers {
			reg.PushImage(namespace+"/"+c.Ref.Repository(), c.Ref.Tag, ocitest.Image{Manifest: c.Manifest, MediaType: c.MediaType, Blobs: c.Blobs})
		}
		return map[string]any{"url": reg.URL, "namespace": namespace}
	}
	backendtest.Run(t, backendtest.Harness{
		Caps: backends.CanList | backends.CanPush | backends.CanDelete | backends.CanMove |
			backends.CanCopy | backends.CanTag | backends.CanUntag | backends.CanListVersions, KeepsTime: true, KeepsFormat: true, Containers: true,
		Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
			return backendtest.Open(t, oci.Open, hc, seeded(reg, seed))
		},
		Logins: logins,
		OpenAs: func(t *testing.T, seed backendtest.Seed, hc *http.Client, secret backends.SecretFunc) backends.Backend {
			return backendtest.Open(t, backendtest.LoggedIn(oci.Open, "me", secret), hc, seeded(private, seed))
		},
	})
}
