// SPDX-License-Identifier: Apache-2.0

package sregistry_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/sregistry"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const everything = backends.CanList | backends.CanSearch | backends.CanPush | backends.CanDelete

// open is sregistry.Open with the login that every fake server takes.
func open(ctx context.Context, env backends.Env) (backends.Backend, error) {
	env.User = sregistrytest.User
	env.Secret = func(context.Context, bool) (string, error) { return sregistrytest.Token, nil }
	return sregistry.Open(ctx, env)
}

// seeded is an image of the suite in the server's words.
func seeded(img backendtest.SeedImage) sregistrytest.Image {
	top, rest, nested := strings.Cut(img.Ref.Collection, "/")
	name := img.Ref.Name + ":" + img.Ref.Tag
	return sregistrytest.Image{
		// The library API reads other names as other names: such images came another way.
		Old:        nested || strings.ToLower(top+name) != top+name || strings.Contains(name, ".sif"),
		Collection: top, Name: strings.TrimPrefix(rest+"/"+img.Ref.Name, "/"), Tag: img.Ref.Tag,
		Content: img.Content, Modified: img.Modified, Labels: img.Labels,
	}
}

func TestConformance_library(t *testing.T) {
	t.Parallel()
	logins := [2]string{sregistrytest.Token, "t0k3n-the-next"}
	backendtest.Run(t, backendtest.Harness{
		Logins: logins,
		OpenAs: func(t *testing.T, seed backendtest.Seed, hc *http.Client, secret backends.SecretFunc) backends.Backend {
			srv := sregistrytest.Start(t, sregistrytest.Options{Trust: logins[1]})
			for _, img := range seed.Images {
				private := seeded(img)
				private.Private = true
				srv.Add(private)
			}
			return backendtest.Open(t, backendtest.LoggedIn(sregistry.Open, sregistrytest.User, secret), hc, map[string]any{"url": srv.URL})
		},
		Caps: everything,
		Skip: map[string]string{
			"Answers/400":     "which is how this server refuses a signature",
			"Logins/aged-404": "the server looks at a signature after it has found the container, and says 401 or 403",
		},
		Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
			srv := sregistrytest.Start(t, sregistrytest.Options{MaxPage: 10})
			for _, img := range seed.Images {
				srv.Add(seeded(img))
			}
			// Private ones are not listed.
			return backendtest.Open(t, open, hc, map[string]any{"url": srv.URL + "/api/", "new_collections": "public"})
		},
	})
}

func TestConformance_old(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, backendtest.Harness{
		Caps: everything,
		Skip: map[string]string{"Answers/400": "which is how this server refuses a signature"},
		Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
			srv := sregistrytest.Start(t, sregistrytest.Options{NoLibrary: true, MaxPage: 10})
			for i, img := range seed.Images {
				old := seeded(img)
				old.Old, old.MD5 = true, i%2 == 0
				srv.Add(old)
			}
			return backendtest.Open(t, open, hc, map[string]any{"url": srv.URL, "push_by": "upload"})
		},
	})
}
