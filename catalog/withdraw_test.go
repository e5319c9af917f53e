// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dropbox"
	"github.com/sregfs/sregfs/backends/dropbox/dropboxtest"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/sregistry"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/uploads"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// What is given up is never published afterwards: either the upload is stopped, or
// giving it up fails.
func TestDiscard_underWay(t *testing.T) {
	for _, tc := range []struct {
		at   string // the request that takes its time
		want error
	}{{"stat", nil}, {"push", spool.ErrInUse}} {
		t.Run(tc.at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := newService()
				b := newBench(t, svc)
				content := tiny(t, "")
				d := draft(t, b, "c/x:1", content)
				id := d.Info().ID
				release := make(chan struct{})
				svc.set(func() {
					svc.slow = func(kind string) {
						if kind == "push" { // the registry has it, and is slow to say so
							svc.put("c/x:1", content)
						}
						switch {
						case kind == "stat" && tc.at == kind:
							time.Sleep(time.Second)
						case kind == tc.at:
							<-release
						}
					}
				})
				published := make(chan error, 1)
				go func() { published <- b.Publish(t.Context(), d) }()
				synctest.Wait()
				wantErr(t, "Withdraw", b.Withdraw(t.Context(), d, d.Remove), tc.want)
				close(release)
				err := <-published
				d.Close()
				if tc.want == nil {
					wantErr(t, "Publish of what is given up", err, fs.ErrNotExist)
				} else {
					wantErr(t, "Publish", err, nil)
					wantErr(t, "Discard afterwards", b.Discard(t.Context(), id), fs.ErrNotExist)
				}
				time.Sleep(time.Hour)
				if _, ok := svc.images[mustRef(t, "c/x:1")]; ok != (tc.want != nil) {
					t.Errorf("published: %v", ok)
				}
				wantDiff(t, "drafts", drafts(t, b), []spool.State(nil))
			})
		})
	}
}

// A registry that was told to publish, and whose answer was lost, is asked before the
// upload counts as given up.
func TestDiscard_unsure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		b := newBench(t, svc, func(b *bench) { b.policy = catalog.Policy{Async: true} })
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		content := tiny(t, "")
		d := draft(t, b, "c/x:1", content)
		id := d.Info().ID
		svc.set(func() {
			svc.slow = func(kind string) {
				if kind == "push" {
					svc.put("c/x:1", content)
					svc.set(func() { svc.down = true })
				}
			}
			svc.fault = func(kind string) int {
				if kind == "push" {
					return http.StatusBadGateway
				}
				return 0
			}
		})
		if err := b.Publish(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		d.Close()
		time.Sleep(4 * time.Minute)
		wantErr(t, "Discard while nobody answers", b.Discard(t.Context(), id), spool.ErrInUse)
		svc.set(func() { svc.down = false })
		wantErr(t, "Discard of what is published", b.Discard(t.Context(), id), spool.ErrInUse)
		svc.drop("c/x:1")
		svc.set(func() { svc.slow = nil })
		time.Sleep(30 * time.Second) // the client leaves a registry that was down alone for a while
		if err := b.Discard(t.Context(), id); err != nil {
			t.Errorf("Discard of what is not published: %v", err)
		}
		time.Sleep(time.Hour)
		if len(svc.images) != 0 {
			t.Error("what was given up was published")
		}
	})
}

// What is on its way is not "not found": it would be published right after.
func TestRemove_onItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.fault = func(kind string) int {
			if kind == "push" {
				return http.StatusUnauthorized
			}
			return 0
		}
		b := newBench(t, svc, func(b *bench) { b.policy = catalog.Policy{Async: true} })
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		d := draft(t, b, "c/x:1", tiny(t, ""))
		if err := b.Publish(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		d.Close()
		time.Sleep(time.Minute)
		_, err := b.Remove(t.Context(), "lab://c/x:1", "")
		wantErr(t, "Remove", err, spool.ErrInUse)
		if err != nil && !strings.Contains(err.Error(), "sreg uploads discard "+d.Info().ID) {
			t.Errorf("error %q has no remedy", err)
		}
		_, err = b.Remove(t.Context(), "lab://c/y:1", "")
		wantErr(t, "Remove of what nobody uploads", err, fs.ErrNotExist)
	})
}

// Other uploads to the same name go with the one that is withdrawn.
func TestWithdraw_older(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.down = true
		b := newBench(t, svc, func(b *bench) { b.policy = catalog.Policy{Async: true} })
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		var drafts []*spool.Draft
		for _, seed := range []string{"first", "second"} {
			d := draft(t, b, "c/x:1", tiny(t, seed))
			if err := b.Publish(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			drafts = append(drafts, d)
			time.Sleep(time.Second)
		}
		drafts[0].Close()
		if err := b.Withdraw(t.Context(), drafts[1], drafts[1].Remove); err != nil {
			t.Fatal(err)
		}
		drafts[1].Close()
		svc.set(func() { svc.down = false })
		time.Sleep(time.Hour)
		if len(svc.images) != 0 {
			t.Error("what was given up was published")
		}
	})
}

// A network is a way to a registry that a portal may stand in.
type network struct {
	next   http.RoundTripper
	portal atomic.Bool                  // everything gets the sign-in page
	deaf   func(req *http.Request) bool // the answer to this is lost, and from then on nothing arrives
	down   atomic.Bool
	seen   atomic.Int64
}

func (n *network) RoundTrip(req *http.Request) (*http.Response, error) {
	n.seen.Add(1)
	switch {
	case n.down.Load():
		return nil, errors.New("connection refused")
	case n.portal.Load():
		if req.Body != nil {
			req.Body.Close()
		}
		return &http.Response{
			Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req, ContentLength: -1,
			Header: http.Header{"Content-Type": {"text/html"}}, Body: io.NopCloser(strings.NewReader("<html>Welcome to the hotel</html>")),
		}, nil
	}
	resp, err := n.next.RoundTrip(req)
	if err == nil && n.deaf != nil && n.deaf(req) {
		n.down.Store(true)
		resp.Body.Close()
		return nil, errors.New("connection reset")
	}
	return resp, err
}

// away is a remote over a network.
func away(t *testing.T, n *network, kind string, open backends.Opener, env backends.Env, policy catalog.Policy) func(*bench) {
	t.Helper()
	env.Remote, env.Type, env.HTTP = "hub", kind, backends.NewHTTPClient(backends.HTTPOptions{})
	n.next, env.HTTP.Transport = env.HTTP.Transport, n
	backend, err := open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	return func(b *bench) {
		b.extra = append(b.extra, catalog.Remote{
			Name: "hub", Type: kind, Policy: policy,
			Client: backends.NewClient("hub", backend, backends.ClientOptions{MaxElapsed: 10 * time.Second}),
		})
	}
}

func draftFor(t *testing.T, b *bench, remote, ref string, content []byte) *spool.Draft {
	t.Helper()
	d, err := b.Create(t.Context(), uploads.Destination{Remote: remote, Ref: mustRef(t, ref), Format: "simg"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	return d
}

// The sign-in page of a network ends no upload, whatever it answers to.
func TestQueue_portal(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	n := new(network)
	b := newBench(t, newService(), away(t, n, "oci", oci.Open, backends.Env{Config: map[string]any{"url": reg.URL}}, catalog.Policy{Async: true}))
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	content := tiny(t, "")
	d := draftFor(t, b, "hub", "c/x:1", content)
	n.portal.Store(true)
	before := n.seen.Load()
	if err := b.Publish(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	id := d.Info().ID
	d.Close()
	for n.seen.Load() < before+3 && b.Pending(id) {
		<-time.After(10 * time.Millisecond)
	}
	if !b.Pending(id) {
		t.Fatal("the upload is given up")
	}
	n.portal.Store(false)
	for b.Pending(id) {
		<-time.After(10 * time.Millisecond)
	}
	wantDiff(t, "drafts", drafts(t, b), []spool.State(nil))
	if img, err := b.Lookup(t.Context(), "hub", mustRef(t, "c/x:1")); err != nil || img.Digest != digest(content) {
		t.Errorf("Lookup = %+v, %v", img, err)
	}
}

// A push that arrived, but whose answer did not, is found again also where the
// service tells no SHA-256.
func TestRetry_lostAnswer(t *testing.T) {
	t.Parallel()
	server := sregistrytest.Start(t, sregistrytest.Options{NoLibrary: true})
	account := dropboxtest.Start(t, dropboxtest.Options{})
	secret := func(token string) backends.Env {
		return backends.Env{Arch: "amd64", User: sregistrytest.User, Secret: func(context.Context, bool) (string, error) { return token, nil }}
	}
	for _, tc := range []struct {
		kind, url string
		open      backends.Opener
		env       backends.Env
		last      string // the request that publishes
	}{
		{"sregistry", server.URL, sregistry.Open, secret(sregistrytest.Token), "/upload"},
		{"dropbox", account.URL, dropbox.Open, secret(dropboxtest.Token), "/2/files/upload"},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			t.Parallel()
			n := &network{deaf: func(req *http.Request) bool { return strings.TrimSuffix(req.URL.Path, "/") == tc.last }}
			tc.env.Config = map[string]any{"url": tc.url}
			b := newBench(t, newService(), away(t, n, tc.kind, tc.open, tc.env, catalog.Policy{}))
			d := draftFor(t, b, "hub", "c/x:1", tiny(t, ""))
			wantErr(t, "Publish", b.Publish(t.Context(), d), backends.ErrUnavailable)
			id := d.Info().ID
			d.Close()
			n.deaf = nil
			n.down.Store(false)
			b.extra = nil // another process has another Client, which has not seen the registry down
			away(t, n, tc.kind, tc.open, tc.env, catalog.Policy{})(b)
			b.restart()
			if err := b.Retry(t.Context(), id, nil); err != nil {
				t.Fatalf("Retry: %v", err)
			}
			wantDiff(t, "drafts", drafts(t, b), []spool.State(nil))
			// Other bytes are no success.
			other := draftFor(t, b, "hub", "c/y:1", tiny(t, "other"))
			defer other.Close()
			if err := b.Publish(t.Context(), other); err != nil {
				t.Fatal(err)
			}
			path := file(t, tiny(t, fmt.Sprint("third of ", tc.kind)))
			_, err := b.Push(t.Context(), path, "hub://c/y:1", verbs.PushOptions{}, nil)
			wantErr(t, "a push of other bytes", err, fs.ErrExist)
		})
	}
}

// An upload that was refused is not begun again by the next process, one that only
// the configuration forbids is.
func TestQueue_refused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		b := newBench(t, svc, func(b *bench) { b.policy = catalog.Policy{Async: true} })
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		d := draft(t, b, "c/x:1", tiny(t, "mine"))
		id := d.Info().ID
		svc.put("c/x:1", tiny(t, "theirs"))
		b.took()
		if err := b.Publish(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		d.Close()
		time.Sleep(time.Minute)
		if b.Pending(id) {
			t.Error("an upload to a taken tag is still tried")
		}
		wantDiff(t, "events", b.took(), []string{"changed c/x:1", "listing c"})
		asked := svc.count("stat")
		b.restart()
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		wantDiff(t, "drafts", drafts(t, b), []spool.State{spool.Failed})
		if svc.count("stat") != asked {
			t.Error("the next process tries again")
		}
		for _, q := range b.Standing() {
			q.Close()
			t.Error("it is still shown as accepted")
		}
		svc.drop("c/x:1")
		if err := b.Retry(t.Context(), id, nil); err != nil {
			t.Errorf("Retry: %v", err)
		}
	})
}
