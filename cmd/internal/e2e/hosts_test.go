// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// An internetWorld is a world whose Internet has a registry, under the names of several
// services.
type internetWorld struct {
	*world
	net              *ocitest.Internet
	reg              *ocitest.Registry
	samtools, alpine []byte
}

func newInternetWorld(t *testing.T, opts ocitest.Options) *internetWorld {
	t.Helper()
	w := &internetWorld{world: newWorld(t), net: ocitest.StartInternet(t), reg: ocitest.Start(t, opts)}
	w.env = append(w.env, w.net.Env()...)
	content := randomBytes(3 << 20)
	w.samtools, w.alpine = content[:2<<20], content[2<<20:]
	if opts.User == "" {
		w.reg.PushSIF("biocontainers/samtools", "1.20--h50ea8bc_1", w.samtools, nil)
		w.reg.PushSIF("library/alpine", "3.20", w.alpine, nil)
	}
	for _, host := range []string{"quay.io", "ghcr.io", "registry-1.docker.io", "registry.example.com:5000"} {
		w.net.ServeRegistry(host, w.reg)
	}
	return w
}

func wantFile(t *testing.T, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v; want %d", path, len(got), err, len(want))
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// Images open under the names of their hosts with nothing configured; the host is listed
// from then on, also after a restart, and is only read.
func TestHosts(t *testing.T) {
	t.Parallel()
	w := newInternetWorld(t, ocitest.Options{})
	m := w.mount()
	w.ok("stat", m.path("quay.io"), m.path("docker.io"), m.path("registry.example.com:5000"))
	w.ok("ls", "-ld", m.path("quay.io"))
	if got := names(t, m.dir); !slices.Equal(got, []string{"local"}) {
		t.Errorf("before anything was opened: %q", got)
	}
	if asked := w.net.Asked(); len(asked) > 0 {
		t.Errorf("to look at a host's directory asked %q", asked)
	}

	wantFile(t, m.path("quay.io/biocontainers/samtools:1.20--h50ea8bc_1.sif"), w.samtools)
	wantFile(t, m.path("docker.io/library/alpine:3.20.sif"), w.alpine)
	wantFile(t, m.path("registry.example.com:5000/library/alpine+3.20.sif"), w.alpine)
	if got := names(t, m.dir); !slices.Equal(got, []string{"docker.io", "local", "quay.io", "registry.example.com:5000"}) {
		t.Errorf("what was opened is not listed: %q", got)
	}
	if n := w.reg.Count("", "/tags/list") + w.reg.Count("", "/_catalog"); n > 0 || slices.Contains(w.net.Asked(), "hub.docker.com:443") {
		t.Errorf("to open images by their whole names, %d listings were asked for, and %q", n, w.net.Asked())
	}
	if n := w.reg.BlobBytes(); n > int64(len(w.samtools)+len(w.alpine)) {
		t.Errorf("%d bytes for images of %d: by another name they were fetched again", n, len(w.samtools)+len(w.alpine))
	}

	w.reg.PushIndex("team/tool", "1", "amd64", ocitest.NewImage(t, true))
	shown, err := os.ReadFile(m.path("ghcr.io/team/tool:1@amd64.sif"))
	must(t, err)
	w.ok("sreg", "pull", "docker://quay.io/team/tool:1", w.path("tool.sif"))
	wantFile(t, w.path("tool.sif"), shown)

	for what, err := range map[string]error{
		"mkdir":  os.Mkdir(m.path("quay.io/mine.d"), 0o755),
		"write":  os.WriteFile(m.path("quay.io/biocontainers/mine:1.sif"), w.samtools, 0o600),
		"remove": os.Remove(m.path("quay.io/biocontainers/samtools:1.20--h50ea8bc_1.sif")),
		"rename": os.Rename(m.path("quay.io/biocontainers/samtools:1.20--h50ea8bc_1.sif"), m.path("quay.io/biocontainers/x:1.sif")),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v, want EROFS", what, err)
		}
	}
	if refusals := fmt.Sprint(w.status().Refusals); !strings.Contains(refusals, "quay.io is in no configuration") {
		t.Errorf("why nothing can be written is not said: %s", refusals)
	}

	for _, uri := range []string{"quay.io/biocontainers/samtools:1.20--h50ea8bc_1", "docker://quay.io/biocontainers/samtools:1.20--h50ea8bc_1", "quay.io://biocontainers/samtools:1.20--h50ea8bc_1"} {
		if out := w.ok("sreg", "path", uri); out != m.path("quay.io/biocontainers/samtools:1.20--h50ea8bc_1.sif\n") {
			t.Errorf("path of %s: %s", uri, out)
		}
	}
	if out := w.ok("sreg", "path", m.path("registry.example.com:5000/library/alpine:3.20.sif")); out != "registry.example.com:5000://library/alpine:3.20\n" {
		t.Errorf("URI: %s", out)
	}
	m.stop()
	asked := len(w.net.Asked())
	m = w.mount()
	if got := names(t, m.dir); !slices.Equal(got, []string{"docker.io", "ghcr.io", "local", "quay.io", "registry.example.com:5000"}) {
		t.Errorf("after a restart: %q", got)
	}
	for _, want := range []string{"docker.io://library/alpine:3.20", "quay.io://biocontainers/samtools:1.20--h50ea8bc_1"} {
		if out := w.ok("sreg", "images"); !strings.Contains(out, want) {
			t.Errorf("sreg images lacks %s:\n%s", want, out)
		}
	}
	if out := w.ok("sreg", "status"); !strings.Contains(out, "registry.example.com:5000") {
		t.Errorf("sreg status has no host:\n%s", out)
	}
	if n := len(w.net.Asked()); n != asked {
		t.Errorf("to list the hosts %q were asked", w.net.Asked()[asked:])
	}
}

// What programs look for in every directory, private names and addresses are no hosts,
// and cost no request.
func TestHosts_noise(t *testing.T) {
	t.Parallel()
	w := newInternetWorld(t, ocitest.Options{})
	m := w.mount()
	for _, name := range strings.Fields(`.git .Trash .Trash-1000 .hidden .directory .DS_Store .xdg-volume-info .autorun autorun.inf desktop.ini Thumbs.db folder.jpg
		BUILD.bazel go.mod go.work Makefile.am package.json setup.py main.nf foo.sif foo.oci.tar .singularity.d localhost localhost:5000 registry:5000
		127.0.0.1 127.0.0.1:5000 10.0.0.1 [::1] ::1 0x7f.1 169.254.169.254 registry.local registry.internal a.localhost Quay.io quay.io:443 quay.io:0`) {
		if _, err := os.Lstat(m.path(name)); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("%s: %v, want that there is none", name, err)
		}
	}
	if asked := w.net.Asked(); len(asked) > 0 {
		t.Errorf("asked: %q", asked)
	}
}

// The setting decides which hosts there are; with --allow-other there are none unless it
// says so.
func TestHosts_setting(t *testing.T) {
	t.Parallel()
	image := "/biocontainers/samtools:1.20--h50ea8bc_1.sif"
	for name, tc := range map[string]struct {
		config    string
		flags     []string
		quay, reg bool
	}{
		"none":        {config: `hosts = "none"`},
		"a list":      {config: `hosts = ["quay.io", "cr.example.org:5000"]`, quay: true},
		"a flag":      {config: `hosts = "none"`, flags: []string{"--hosts=registry.example.com:5000"}, reg: true},
		"allow_other": {config: `allow_other = true`},
		"both":        {config: "allow_other = true\nhosts = \"any\"", quay: true, reg: true},
		"an option":   {flags: []string{"-o", "allow_other,hosts=quay.io"}, quay: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newInternetWorld(t, ocitest.Options{})
			must(t, os.WriteFile(w.path("config.toml"), []byte(tc.config), 0o600))
			m := w.mount(tc.flags...)
			for host, want := range map[string]bool{"quay.io": tc.quay, "registry.example.com:5000": tc.reg, "ghcr.io": tc.quay && tc.reg} {
				if _, err := os.ReadFile(m.path(host + image)); (err == nil) != want || err != nil && !errors.Is(err, syscall.ENOENT) {
					t.Errorf("%s: %v, want that there is one: %v", host, err, want)
				}
			}
			if r := w.run("sreg", "pull", "docker://ghcr.io/library/alpine:3.20", w.path("x.sif")); !tc.reg && (r.code != 3 || !strings.Contains(r.err, "hosts = ")) {
				t.Errorf("exit %d: %s", r.code, r.err)
			}
		})
	}
}

// sreg takes what people write for docker and singularity, with and without a mount, and
// a remote that is configured for the host goes before it.
func TestHosts_sreg(t *testing.T) {
	t.Parallel()
	w := newInternetWorld(t, ocitest.Options{})
	digest := w.reg.PushSIF("library/alpine", "latest", w.samtools, nil)
	for uri, want := range map[string][]byte{
		"docker://alpine:3.20": w.alpine, "docker://docker.io/library/alpine:3.20": w.alpine, "docker://index.docker.io/library/alpine:3.20": w.alpine,
		"docker://alpine": w.samtools, "docker://alpine@" + digest: w.samtools, "docker://library/alpine:3.20": w.alpine,
		"oras://ghcr.io/library/alpine:3.20": w.alpine, "quay.io/library/alpine:3.20": w.alpine, "docker://quay.io:443/library/alpine:3.20": w.alpine,
		"docker://registry.example.com:5000/library/alpine:3.20": w.alpine, "docker://QUAY.IO/library/alpine:3.20": w.alpine,
	} {
		file := w.path("pulled.sif")
		w.ok("sreg", "pull", uri, file)
		wantFile(t, file, want)
		must(t, os.Remove(file))
	}
	if out := w.ok("sreg", "images"); !strings.Contains(out, "docker.io://library/alpine:3.20") || !strings.Contains(out, "ghcr.io://library/alpine:3.20") {
		t.Errorf("sreg images without a mount:\n%s", out)
	}
	if r := w.run("sreg", "pull", "library/alpine:3.20", w.path("x.sif")); r.code != 3 {
		t.Errorf("a bare name means what a host has: exit %d: %s", r.code, r.err)
	}
	for _, uri := range []string{"docker://localhost:5000/a/b", "docker://10.0.0.1/a/b", "oras://registry.local/a/b", "docker://169.254.169.254/a/b"} {
		if r := w.run("sreg", "pull", uri, w.path("x.sif")); r.code != 3 || !strings.Contains(r.err, "no host on the Internet") {
			t.Errorf("%s: exit %d: %s", uri, r.code, r.err)
		}
	}
	if r := w.run("sreg", "push", w.path("config.toml"), "docker://quay.io/a/b:1"); r.code == 0 || !strings.Contains(r.err, "quay.io is in no configuration") {
		t.Errorf("push: exit %d: %s", r.code, r.err)
	}
	must(t, os.WriteFile(w.path("config.toml"), []byte("[remotes.hub]\ntype = \"docker\"\n[remotes.\"quay.io\"]\ntype = \"oci\"\nurl = \""+w.reg.URL+"\"\n"), 0o600))
	before := len(w.net.Asked())
	if out := w.ok("sreg", "inspect", "quay.io/library/alpine:3.20"); !strings.Contains(out, "quay.io://library/alpine:3.20") || len(w.net.Asked()) != before {
		t.Errorf("the remote of that name was not asked (%q), but:\n%s", w.net.Asked()[before:], out)
	}
	if out := w.ok("sreg", "inspect", "docker://alpine:3.20"); !strings.Contains(out, "hub://library/alpine:3.20") {
		t.Errorf("the remote of that type was not asked, but:\n%s", out)
	}
}

// The logins of other tools go to exactly their host.
func TestHosts_logins(t *testing.T) {
	t.Parallel()
	w := newInternetWorld(t, ocitest.Options{User: "me", Password: "hunter2"})
	stolen := make(chan string, 1)
	others := []string{"evil.example.com", "quay.io:8443", "sub.quay.io", "quay.io.example.com"}
	for _, host := range others {
		w.net.Serve(host, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if h := r.Header.Get("Authorization"); h != "" {
				select {
				case stolen <- host + ": " + h:
				default:
				}
			}
			rw.Header().Set("Www-Authenticate", `Basic realm="quay.io"`)
			http.Error(rw, "who are you?", http.StatusUnauthorized)
		}))
	}
	must(t, os.MkdirAll(w.path(".docker"), 0o700))
	must(t, os.WriteFile(w.path(".docker/config.json"), []byte(`{"auths": {"quay.io": {"auth": "bWU6aHVudGVyMg=="}}}`), 0o600))
	m := w.mount()
	wanted := map[string]error{"quay.io": syscall.ENOENT, "ghcr.io": syscall.EACCES}
	for _, host := range others {
		wanted[host] = syscall.EACCES
	}
	for host, want := range wanted {
		if _, err := os.ReadFile(m.path(host + "/biocontainers/nothing:1.sif")); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", host, err, want)
		}
	}
	select {
	case what := <-stolen:
		t.Errorf("the login of another host was sent to %s", what)
	default:
	}
}
