// SPDX-License-Identifier: Apache-2.0

// Package backendtest is the conformance suite of backends: each promise in
// the comments of package backends is a subtest here.
//
// A backend joins with one call of [Run]. The suite seeds the fake service, not
// the backend, because a backend need not be able to write. It hands out the
// *http.Client and injects faults there, with no help from the fake. Abilities
// that the backend declares are tested; a test that cannot pass is skipped by
// name, with the reason.
package backendtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A Seed is what a fake service holds when a test begins. Images whose names the
// service cannot hold (the backend's CheckName says so) it leaves out.
type Seed struct {
	Images     []SeedImage
	Containers []Container // none but where Harness.Containers is set
}

// A SeedImage is one image under one name. The same content may occur under
// several names.
type SeedImage struct {
	Ref      backends.Ref // without Version
	Content  []byte
	Format   string            // "sif" or "simg"
	Modified time.Time         // whole seconds, in the past
	Labels   map[string]string // may be nil
}

// A Harness says how to test one backend.
type Harness struct {
	// Caps are the capabilities that it must have; it must have no other.
	Caps backends.Caps
	// Skip names subtests ("Names/colon") that cannot pass, with the reason.
	// A name that is no subtest fails.
	Skip map[string]string
	// Local says that there is no HTTP: the tests that inject faults there do
	// not apply.
	Local bool
	// KeepsTime and KeepsFormat say that the service keeps, of what is pushed, the
	// time of the file and its format, for all clients. It must not if they do not.
	KeepsTime, KeepsFormat bool
	// Containers says that the backend is a backends.Layered, and the service can be seeded
	// with container images.
	Containers bool
	// Open starts a fake service that holds seed, and opens the backend on it
	// with hc. It ends both with t.Cleanup. It may be called many times, at once.
	Open func(t *testing.T, seed Seed, hc *http.Client) backends.Backend
	// OpenAs, if not nil, is Open for a service that gives nothing without one of Logins,
	// and of a remote whose login secret gives. The tests of old logins then run.
	OpenAs func(t *testing.T, seed Seed, hc *http.Client, secret backends.SecretFunc) backends.Backend
	Logins [2]string
}

// Open calls open as cmd would, with hc and the given [remotes.NAME] table, and
// closes the backend when t ends.
func Open(t *testing.T, open backends.Opener, hc *http.Client, config map[string]any) backends.Backend {
	t.Helper()
	b, err := open(t.Context(), backends.Env{Remote: "conformance", HTTP: hc, Config: config, Arch: "amd64"})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if closer, ok := b.(io.Closer); ok {
		t.Cleanup(func() { closer.Close() })
	}
	return b
}

// LoggedIn is open with a login.
func LoggedIn(open backends.Opener, user string, secret backends.SecretFunc) backends.Opener {
	return func(ctx context.Context, env backends.Env) (backends.Backend, error) {
		env.User, env.Secret = user, secret
		return open(ctx, env)
	}
}

// A subtest is one case of the suite.
type subtest struct {
	name  string        // "Group/case"
	needs backends.Caps // runs only where the backend has them
	http  bool          // runs only where there is HTTP
	login bool          // runs only where a login can grow old

	containers bool // runs only where there are container images

	run func(t *testing.T, s *suite)
}

// suite is what a subtest gets.
type suite struct{ Harness }

func subtests() []subtest {
	return slices.Concat(capsTests, statTests, listTests, openTests, searchTests, pushTests, foldedTests, deleteTests, moveTests, copyTests, tagTests, shareTests,
		watchTests, namesTests, sizeTests, faultTests, awayTests, budgetTests, answerTests, loginTests, brokenTests, divertedTests, dripTests, closeTests, containerTests, copyContainerTests)
}

// Run runs the suite as subtests of t.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.Open == nil {
		t.Fatal("Harness.Open is missing")
	}
	skipped := map[string]bool{}
	groups := map[string][]subtest{}
	var order []string
	for _, st := range subtests() {
		if !h.Caps.Has(st.needs) || st.http && h.Local || st.login && h.OpenAs == nil || st.containers && !h.Containers {
			continue
		}
		skipped[st.name] = h.Skip[st.name] != ""
		group := path.Dir(st.name)
		if groups[group] == nil {
			order = append(order, group)
		}
		groups[group] = append(groups[group], st)
	}
	for name, reason := range h.Skip {
		if _, ok := skipped[name]; !ok {
			t.Errorf("Skip[%q] names no subtest that would run here", name)
		} else if reason == "" {
			t.Errorf("Skip[%q] has no reason", name)
		}
	}
	for _, group := range order {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			for _, st := range groups[group] {
				t.Run(strings.TrimPrefix(st.name, group+"/"), func(t *testing.T) {
					t.Parallel()
					if reason := h.Skip[st.name]; reason != "" {
						t.Skip(reason)
					}
					st.run(t, &suite{h})
				})
			}
		})
	}
}

// A remote is one opened backend with everything around it.
type remote struct {
	backends.Backend
	client *backends.Client
	wire   *wire
	seed   Seed
}

// open opens the backend on a service that holds images.
func (s *suite) open(t *testing.T, images ...SeedImage) *remote {
	t.Helper()
	return s.openWith(t, backends.HTTPOptions{UserAgent: "backendtest"}, images...)
}

// openWith is open with a transport of its own.
func (s *suite) openWith(t *testing.T, opts backends.HTTPOptions, images ...SeedImage) *remote {
	t.Helper()
	return openBy(t, s.Open, opts, images...)
}

func openBy(t *testing.T, open func(*testing.T, Seed, *http.Client) backends.Backend, opts backends.HTTPOptions, images ...SeedImage) *remote {
	t.Helper()
	return openSeeded(t, open, opts, Seed{Images: images})
}

func openSeeded(t *testing.T, open func(*testing.T, Seed, *http.Client) backends.Backend, opts backends.HTTPOptions, seed Seed) *remote {
	t.Helper()
	hc := backends.NewHTTPClient(opts)
	w := &wire{next: hc.Transport}
	hc.Transport = w
	t.Cleanup(hc.CloseIdleConnections)
	b := open(t, seed, hc)
	seed.Images = slices.DeleteFunc(slices.Clone(seed.Images), func(img SeedImage) bool { return impossible(b, img.Ref) })
	// No pauses to speak of: what is tested is which errors are tried again.
	c := backends.NewClient("conformance", b, backends.ClientOptions{MaxElapsed: 10 * time.Second})
	return &remote{Backend: b, client: c, wire: w, seed: seed}
}

// impossible reports whether the backend says that there can be no such name: the
// service then cannot be seeded with it.
func impossible(b backends.Backend, ref backends.Ref) bool {
	nc, ok := b.(backends.NameChecker)
	return ok && errors.Is(nc.CheckName(ref), fs.ErrInvalid)
}

// pushable reports whether the backend would keep an image under that name.
func (r *remote) pushable(ref backends.Ref) bool {
	return !errors.Is(r.client.CheckPush(ref), fs.ErrInvalid)
}

// content returns n bytes that are recognisably those of name, and look like
// the beginning of a SIF file.
func content(name string, n int) []byte {
	text := []byte("#!/usr/bin/env run-singularity\n\x00SIF_MAGIC\x0001\x0002\x00")
	for i := 0; len(text) < n; i++ {
		text = fmt.Appendf(text, "%s %d\n", name, i*i)
	}
	return text[:n]
}

// image returns a seed image of a few hundred bytes; the spec is as
// backends.ParseRef takes it.
func image(spec string) SeedImage { return sized(spec, 700+len(spec)) }

func sized(spec string, n int) SeedImage {
	ref, err := backends.ParseRef(spec)
	if err != nil {
		panic(err)
	}
	return SeedImage{
		Ref: ref, Content: content(spec, n), Format: "sif",
		Modified: time.Date(2024, 2, 29, 12, 30, len(spec), 0, time.UTC),
	}
}

// typical is what most tests read: several tags, several collections, a
// collection and an image of the same name, a nested collection.
func typical() []SeedImage {
	return []SeedImage{
		image("library/alpine:latest"), image("library/alpine:3.20"), image("library/ubuntu:24.04"),
		image("vsoch/hello:2.0"), image("vsoch/hello:latest"), image("org/team:1"), image("org/team/tool:1.0"),
	}
}

func stat(ctx context.Context, t *testing.T, b backends.Backend, ref backends.Ref) backends.Image {
	t.Helper()
	img, err := b.Stat(ctx, ref)
	if err != nil {
		t.Fatalf("Stat(%s): %v", ref, err)
	}
	return img
}

// read opens n bytes at off and reads them all.
func read(ctx context.Context, b interface {
	Open(context.Context, backends.Image, int64, int64) (io.ReadCloser, error)
}, img backends.Image, off, n int64) ([]byte, error) {
	body, err := b.Open(ctx, img, off, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}
