// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/oci/presettest"
)

// A suiteNamespaces gives each subtest a namespace of its own.
type suiteNamespaces struct {
	mu  sync.Mutex // guards the field below
	all []string
}

func (s *suiteNamespaces) next() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, fmt.Sprintf("suite%d", len(s.all)+1))
	return s.all[len(s.all)-1]
}

func (s *suiteNamespaces) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

func TestConformance_presets(t *testing.T) {
	t.Parallel()
	for _, typ := range []string{"docker", "ghcr", "quay", "gitlab", "harbor", "nvidia", "aws"} {
		t.Run(typ, func(t *testing.T) {
			t.Parallel()
			reg := ocitest.Start(t, ocitest.Options{Delete: true, InMemory: true})
			names := &suiteNamespaces{}
			config := map[string]any{"url": reg.URL}
			if presettest.Specs[typ] != nil {
				api := presettest.Start(t, typ, presettest.Options{
					Repositories: reg.Repositories, Empty: names.list, User: "me", Password: "secret",
				})
				api.Limit(1<<20, time.Now().Add(time.Hour))
				config["api"] = api.URL
			}
			user, secret := "me", "secret"
			switch typ {
			case "nvidia":
				user = ""
				reg.Use(presettest.StartNGC(t, secret).Before)
			case "aws":
				ecr := &presettest.ECR{CreateOnPush: true}
				user, secret = "", ecr.Issue()
				reg.Use(ecr.Before)
			}
			caps := backends.CanPush | backends.CanDelete | backends.CanMove | backends.CanCopy | backends.CanTag | backends.CanUntag | backends.CanListVersions
			if typ != "nvidia" {
				caps |= backends.CanList
			}
			backendtest.Run(t, backendtest.Harness{
				Caps: caps, KeepsTime: true, KeepsFormat: true, Containers: true,
				Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
					namespace := names.next()
					for _, img := range seed.Images {
						annotations := map[string]string{"org.opencontainers.image.created": img.Modified.UTC().Format(time.RFC3339)}
						maps.Copy(annotations, img.Labels)
						reg.PushSIF(namespace+"/"+img.Ref.Repository(), img.Ref.Tag, img.Content, annotations)
					}
					for _, c := range seed.Containers {
						reg.PushImage(namespace+"/"+c.Ref.Repository(), c.Ref.Tag, ocitest.Image{Manifest: c.Manifest, MediaType: c.MediaType, Blobs: c.Blobs})
					}
					own := maps.Clone(config)
					own["namespace"] = namespace
					b, err := oci.Open(t.Context(), backends.Env{
						Remote: "conformance", Type: typ, HTTP: hc, Config: own, Arch: "amd64", User: user,
						Secret: func(context.Context, bool) (string, error) { return secret, nil },
					})
					if err != nil {
						t.Fatal(err)
					}
					return b
				},
			})
		})
	}
}
