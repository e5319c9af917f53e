// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// What is known of a service counts for its host, too; all of them are only read, by https.
func TestHostRemote(t *testing.T) {
	t.Parallel()
	e := open(t, mustConfigure(t, "q=quay", "d=docker", "any=oci,url=https://gcr.io"))
	for configured, host := range map[string]string{"q": "quay.io", "d": "docker.io", "any": "gcr.io"} {
		a, _ := e.Catalog.Remote(configured)
		if b, err := e.Catalog.Remote(host); err != nil || a.Client.Origin() != b.Client.Origin() {
			t.Errorf("%s is %q, and configured %q: what is known of one does not hold for the other (%v)", host, b.Client.Origin(), a.Client.Origin(), err)
		}
	}
	for host, want := range map[string]string{
		"docker.io": "docker https://docker.io", "index.docker.io": "docker https://docker.io", "ghcr.io": "ghcr https://ghcr.io",
		"quay.io": "quay https://quay.io", "nvcr.io": "nvidia https://nvcr.io", "registry.gitlab.com": "gitlab https://registry.gitlab.com",
		"gcr.io": "oci https://gcr.io", "public.ecr.aws": "oci https://public.ecr.aws", "registry.example.com:5000": "oci https://registry.example.com:5000",
		"123456789012.dkr.ecr.eu-central-1.amazonaws.com": "aws https://123456789012.dkr.ecr.eu-central-1.amazonaws.com",
		"evil.dkr.ecr.eu-central-1.amazonaws.com":         "oci https://evil.dkr.ecr.eu-central-1.amazonaws.com",
		"library.sylabs.io":                               "library https://library.sylabs.io", "singularity-hub.org": "hub https://singularity-hub.org",
	} {
		r, err := e.Catalog.Remote(host)
		if err != nil || r.Client == nil {
			t.Errorf("%s: %v, %v", host, err, r.Err)
			continue
		}
		if got := r.Type + " " + r.URL; got != want || !r.ByHost || !r.Policy.ReadOnly || r.Client.Caps().Has(backends.CanPush) || r.Client.Caps().Has(backends.CanDelete) {
			t.Errorf("%s is %s, by its host %v, read-only %v, can %s", host, got, r.ByHost, r.Policy.ReadOnly, r.Client.Caps())
		}
	}
}

// A configured remote goes before the host of its name, also one that is added meanwhile.
func TestHosts_configured(t *testing.T) {
	t.Parallel()
	e := open(t, mustConfigure(t, "quay.io=oci,url=https://mirror.example"))
	if r, err := e.Catalog.Remote("quay.io"); err != nil || r.ByHost || r.URL != "https://mirror.example" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := e.Catalog.Remote("ghcr.io"); err != nil || !r.ByHost {
		t.Errorf("%+v, %v", r, err)
	}
	r, _ := e.Catalog.Remote("quay.io")
	r.Name = "ghcr.io"
	e.Catalog.SetRemote(r)
	if r, err := e.Catalog.Remote("ghcr.io"); err != nil || r.ByHost {
		t.Errorf("%+v, %v", r, err)
	}
}

// To look at the name of a host asks no name server. To ask the host does, and ends there
// if the name stands for a private address, whatever is configured for others. It is not
// parallel: it replaces the name server of the process.
func TestHosts_private(t *testing.T) {
	var looked, asked atomic.Int64
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer srv.Close()
	usual := net.DefaultResolver
	net.DefaultResolver = ocitest.Resolver(func(string) [4]byte {
		looked.Add(1)
		return [4]byte{127, 0, 0, 1}
	})
	defer func() { net.DefaultResolver = usual }()
	e := open(t, mustConfigure(t, "lab=oci,url=https://lab.example,allow_private=true,insecure=true,plain_login=true"))
	host := "registry.example.com:" + srv.URL[strings.LastIndexByte(srv.URL, ':')+1:]
	for _, name := range []string{host, "quay.io", ".git", "autorun.inf", "localhost", "127.0.0.1"} {
		if got, want := e.Catalog.HasRemote(name), name == host || name == "quay.io"; got != want {
			t.Errorf("there is %s: %v", name, got)
		}
	}
	if n := looked.Load(); n > 0 {
		t.Errorf("%d names were looked up", n)
	}
	_, err := e.Catalog.Lookup(t.Context(), host, backends.Ref{Collection: "a", Name: "b", Tag: "1"})
	if !errors.Is(err, backends.ErrNotAllowed) || !strings.Contains(err.Error(), "private address") {
		t.Errorf("%v, want it refused", err)
	}
	if looked.Load() == 0 || asked.Load() > 0 {
		t.Errorf("%d names were looked up, and %d requests arrived", looked.Load(), asked.Load())
	}
}

// Whoever names ten thousand hosts takes no memory for them, and does not disturb who
// uses one. It is not parallel, because it looks at the memory of the process.
func TestHosts_many(t *testing.T) {
	e := open(t, mustConfigure(t))
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, names := heap(), 10_000
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := i; n < names; n += 4 {
				if r, err := e.Catalog.Remote(fmt.Sprintf("host%d.example.com", n)); err != nil || r.Client == nil {
					t.Errorf("host%d: %v", n, err)
				}
				r, err := e.Catalog.Remote("quay.io")
				if again, _ := e.Catalog.Remote("quay.io"); err != nil || again.Client != r.Client {
					t.Error("the host in use was made anew")
				}
			}
		})
	}
	all.Wait()
	if after := heap(); after > before+16<<20 {
		t.Errorf("%d hosts take %d KB", names, (after-before)>>10)
	}
}

// The hosts that were opened are known to the next process, the newest of them; what
// stands there beside, or is no longer allowed, is passed over.
func TestHosts_opened(t *testing.T) {
	t.Parallel()
	o := mustConfigure(t)
	e := open(t, o)
	if _, err := e.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := &hosts{engine: e}
	for i := range 70 {
		h.Note(fmt.Sprintf("host%d.example.com", i))
	}
	h.Note("host10.example.com")
	want := slices.Clone(h.Opened())
	if len(want) != maxOpened || want[maxOpened-1] != "host10.example.com" || want[0] != "host6.example.com" {
		t.Errorf("remembered: %d hosts, %q", len(want), want)
	}
	if again := (&hosts{engine: e}).Opened(); !slices.Equal(again, want) {
		t.Errorf("another process reads %q, want %q", again, want)
	}
	other := &hosts{engine: e}
	other.Opened()
	h.Note("newest.example.com")
	other.Note("quay.io")
	if got := other.Opened(); !slices.Contains(got, "newest.example.com") {
		t.Errorf("what another process had noted meanwhile is lost: %q", got)
	}
	text := "quay.io\n\n../../etc\nlocalhost:5000\nquay.io\nsetup.py\nghcr.io" // the last line was cut
	if err := os.WriteFile(filepath.Join(o.State, "hosts"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := (&hosts{engine: e}).Opened(); !slices.Equal(got, []string{"quay.io", "ghcr.io"}) {
		t.Errorf("of a damaged file: %q", got)
	}
	if err := os.MkdirAll(filepath.Join(o.Home, ".config/sregfs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.Home, ".config/sregfs/config.toml"), []byte("hosts = \"ghcr.io\""), 0o600); err != nil {
		t.Fatal(err)
	}
	if done, err := e.Reload(t.Context(), ""); err != nil || !slices.Equal(done.Changed, []string{"hosts"}) {
		t.Fatal(done, err)
	}
	if got := (&hosts{engine: e}).Opened(); !slices.Equal(got, []string{"ghcr.io"}) {
		t.Errorf("with hosts = ghcr.io: %q", got)
	}
	if _, err := e.Catalog.Remote("quay.io"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `hosts = "ghcr.io"`) {
		t.Errorf("quay.io: %v", err)
	}
}
