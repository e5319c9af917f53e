// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// configure returns the options of a user whose home is empty.
func configure(t *testing.T, remotes ...string) (Options, error) {
	t.Helper()
	home := t.TempDir()
	var s config.Settings
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s.Flags(fs)
	env := map[string]string{"HOME": home, "SREGFS_HOME": filepath.Join(home, "state"), "LAB_TOKEN": "from environment"}
	return Configure(&s, fs, Source{
		Getenv: func(name string) string { return env[name] }, Remotes: remotes, Root: home,
		Log: slog.New(slog.DiscardHandler), Notice: func(string) {},
	})
}

func mustConfigure(t *testing.T, remotes ...string) Options {
	t.Helper()
	o, err := configure(t, remotes...)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func open(t *testing.T, o Options) *Engine {
	t.Helper()
	e, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

func TestNothingIsCreatedUntilItIsNeeded(t *testing.T) {
	t.Parallel()
	o := mustConfigure(t)
	e := open(t, o)
	if _, err := e.Verbs.Get(t.Context(), "a/b:1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get: %v", err)
	}
	if _, err := os.Stat(o.State); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("looking for a local image made the state directory: %v", err)
	}
	if _, err := e.Verbs.Status(t.Context()); err != nil {
		t.Errorf("Status: %v", err)
	}
	if p, err := statedir.Holder(o.State); err != nil || p.PID != os.Getpid() {
		t.Errorf("the state directory is held by %+v, %v", p, err)
	}
}

// An address is often copied with the path of the API behind it, and means the same.
func TestAddress_ofAPI(t *testing.T) {
	t.Parallel()
	for typ, api := range map[string]string{
		"oci": "/v2", "harbor": "/v2", "gitlab": "/v2", "library": "/v1", "sregistry": "/api", "dropbox": "/2",
	} {
		for _, end := range []string{"", "/", api, api + "/"} {
			o := mustConfigure(t, "lab="+typ+",url=https://lab.example:8443"+end)
			for _, r := range o.Settings.Remotes {
				if r.Name != "lab" {
					continue
				}
				b, err := o.OpenBackend(t.Context(), r)
				if err != nil || backends.AddressOf(b) != "https://lab.example:8443" {
					t.Errorf("%s at %s: %v, %v", typ, end, b, err)
				}
			}
		}
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	own := config.Common{AllowDelete: &yes, AllowOverwrite: &no, Push: "async"}
	for _, c := range []struct {
		name     string
		settings config.Settings
		remote   config.Remote
		want     catalog.Policy
	}{
		{"default", config.Settings{Push: "sync"}, config.Remote{Name: "lab"}, catalog.Policy{}},
		{"general", config.Settings{AllowOverwrite: true, AllowDelete: true, Push: "async"}, config.Remote{Name: "lab"},
			catalog.Policy{Overwrite: true, Delete: true, Async: true}},
		{"own", config.Settings{AllowOverwrite: true, Push: "sync"}, config.Remote{Name: "lab", Common: own},
			catalog.Policy{Delete: true, Async: true}},
		{"local", config.Settings{Push: "sync"}, config.Remote{Name: "local"}, catalog.Policy{Overwrite: true, Delete: true}},
		{"local, as it says", config.Settings{Push: "sync"}, config.Remote{Name: "local", Common: config.Common{AllowDelete: &no}},
			catalog.Policy{Overwrite: true}},
		{"read-only", config.Settings{ReadOnly: true}, config.Remote{Name: "lab"}, catalog.Policy{ReadOnly: true}},
		{"read-only remote", config.Settings{}, config.Remote{Name: "lab", Common: config.Common{ReadOnly: true}}, catalog.Policy{ReadOnly: true}},
	} {
		if diff := cmp.Diff(c.want, policyOf(&c.settings, c.remote)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestRemotesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{
		"lab=oci,url=https://registry.example,namspace=x",
		"lab=oci,url=https://registry.example,tokn_file=x",
		"lab=oci,url=https://registry.example,ca_file=/nowhere",
		"lab=oci,url=https://registry.example,ca_file=/dev/null",
	} {
		_, err := New(t.Context(), mustConfigure(t, spec))
		if exit.Code(err) != exit.Usage || !strings.Contains(err.Error(), "--remote lab: ") {
			t.Errorf("%s: %v", spec, err)
		}
	}
	// What may be right tomorrow does not keep the others from working.
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	e := open(t, mustConfigure(t, "lab=oci,url=https://registry.example,token_file="+token))
	lab, err := e.Catalog.Remote("lab")
	if err != nil || lab.Err == nil || lab.Client != nil {
		t.Errorf("remote %+v, %v", lab, err)
	}
	if _, err := e.Verbs.Get(t.Context(), "lab://a/b:1"); exit.Code(err) != exit.NotAllowed {
		t.Errorf("Get: %v", err)
	}
}

// A remote's certificate authority and its lack of one.
func TestTLS(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]error{
		"lab=oci,timeout=2s,url=" + srv.URL:                    backends.ErrUnavailable,
		"lab=oci,timeout=2s,url=" + srv.URL + ",ca_file=" + ca: fs.ErrNotExist,
		"lab=oci,timeout=2s,url=" + srv.URL + ",insecure=true": fs.ErrNotExist,
	} {
		e := open(t, mustConfigure(t, spec))
		lab, err := e.Catalog.Remote("lab")
		if err != nil {
			t.Fatal(err)
		}
		if _, err = lab.Client.Stat(t.Context(), backends.Ref{Collection: "a", Name: "b", Tag: "1"}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", spec, err, want)
		}
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file("good", " hunter2\n", 0o600), link); err != nil {
		t.Fatal(err)
	}
	getenv := func(name string) string { return map[string]string{"TOKEN": "hunter2"}[name] }
	for _, c := range []struct {
		name   string
		common config.Common
		want   string // "" for an error
	}{
		{"value", config.Common{Token: "hunter2"}, "hunter2"},
		{"file", config.Common{TokenFile: dir + "/good"}, "hunter2"},
		{"variable", config.Common{TokenEnv: "TOKEN"}, "hunter2"},
		{"command", config.Common{TokenCommand: "echo hunter2"}, "hunter2"},
		{"missing file", config.Common{TokenFile: dir + "/missing"}, ""},
		{"open file", config.Common{TokenFile: file("open", "x", 0o640)}, ""},
		{"empty file", config.Common{TokenFile: file("empty", "\n", 0o600)}, ""},
		{"large file", config.Common{TokenFile: file("large", strings.Repeat("x", maxSecret+1), 0o600)}, ""},
		{"link", config.Common{TokenFile: link}, ""},
		{"directory", config.Common{TokenFile: dir}, ""},
		{"unset variable", config.Common{TokenEnv: "NOTHING"}, ""},
		{"failing command", config.Common{TokenCommand: "echo hunter2; exit 3"}, ""},
		{"silent command", config.Common{TokenCommand: "true"}, ""},
	} {
		got, err := secretOf(c.common, getenv)(t.Context(), false)
		if got != c.want || (err == nil) != (c.want != "") || err != nil && !errors.Is(err, backends.ErrUnauthorized) {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows the secret: %v", c.name, err)
		}
	}
	if secretOf(config.Common{}, getenv) != nil {
		t.Error("a secret where none is configured")
	}
}

// A command is asked again only when its answer was refused.
func TestCommandSecretIsKept(t *testing.T) {
	t.Parallel()
	count := filepath.Join(t.TempDir(), "count")
	get := secretOf(config.Common{TokenCommand: "echo x >>" + count + "; wc -l <" + count}, os.Getenv)
	for _, c := range []struct {
		fresh bool
		want  string
	}{{false, "1"}, {false, "1"}, {true, "2"}, {false, "2"}} {
		if got, err := get(t.Context(), c.fresh); err != nil || got != c.want {
			t.Errorf("fresh=%v gives %q, %v, want %q", c.fresh, got, err, c.want)
		}
	}
}

func TestLockWaitsForAnotherSreg(t *testing.T) {
	t.Parallel()
	o := mustConfigure(t)
	other, err := statedir.Lock(o.State)
	if err != nil {
		t.Fatal(err)
	}
	var told atomic.Bool
	o.Notice = func(text string) {
		if strings.Contains(text, "waiting for another sreg") && !told.Swap(true) {
			_ = other.Unlock()
		}
	}
	e := open(t, o)
	if _, err := e.Lock(t.Context()); err != nil || !told.Load() || e.Held() {
		t.Errorf("Lock: %v, told %v, held %v", err, told.Load(), e.Held())
	}
}

func TestLockDoesNotWaitForAMount(t *testing.T) {
	t.Parallel()
	o := mustConfigure(t)
	other, err := statedir.Lock(o.State)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Unlock()
	if err := other.Announce("/somewhere/control.sock", "/mnt", ""); err != nil {
		t.Fatal(err)
	}
	e := open(t, o)
	_, err = e.Lock(t.Context())
	if exit.Code(err) != exit.Locked || !e.Held() || !strings.Contains(err.Error(), "/mnt") {
		t.Errorf("Lock: %v, held %v", err, e.Held())
	}
}

func TestLockEndsWithItsContext(t *testing.T) {
	t.Parallel()
	o := mustConfigure(t)
	other, err := statedir.Lock(o.State)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Unlock()
	e := open(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Lock(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock when interrupted: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := e.Lock(ctx); exit.Code(err) != exit.Locked {
		t.Errorf("Lock when out of time: %v", err)
	}
}

// Two state directories with one cache do not write over each other.
func TestCacheIsNotShared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := lockCache(dir, "/state/1")
	if err != nil || first.dir != dir {
		t.Fatalf("first has %+v, %v", first, err)
	}
	second, err := lockCache(dir, "/state/2")
	if err != nil || !strings.HasPrefix(second.dir, dir+"/by-state/") {
		t.Fatalf("second has %+v, %v", second, err)
	}
	third, err := lockCache(dir, "/state/3")
	if err != nil || third.dir == second.dir {
		t.Errorf("third has %+v, %v", third, err)
	}
	third.release()
	second.release()
	first.release()
	if again, err := lockCache(dir, "/state/2"); err != nil || again.dir != dir {
		t.Errorf("later the second has %+v, %v", again, err)
	} else {
		again.release()
	}
}

// Connect finds whoever has the engine, and has one of its own where nobody does.
func TestConnect(t *testing.T) {
	t.Parallel()
	o := mustConfigure(t)
	session := func() *Session {
		t.Helper()
		s, err := Connect(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	alone := session()
	if st, err := alone.Client.Status(t.Context()); err != nil || alone.Mount != "" || st.Mount != "" {
		t.Errorf("alone: %+v, mount %q, %v", st, alone.Mount, err)
	}
	if err := alone.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	e := open(t, o)
	dir, err := e.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	socket := control.SocketPath(dir.Path(), "", os.Getuid())
	l, err := control.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- control.Serve(ctx, l, control.Handler(e.Verbs, control.Options{Mount: "/mnt"}), o.Log)
	}()
	if err := dir.Announce(socket, "/mnt", ""); err != nil {
		t.Fatal(err)
	}
	s := session()
	if st, err := s.Client.Status(t.Context()); err != nil || s.Mount != "/mnt" || st.Mount != "/mnt" || s.Held() {
		t.Errorf("with a mount: %+v, mount %q, %v", st, s.Mount, err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A session whose state a mount has taken meanwhile says so.
func TestSessionThatLost(t *testing.T) {
	t.Parallel()
	o := mustConfigure(t)
	s, err := Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	other, err := statedir.Lock(o.State)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Unlock()
	if err := other.Announce("/somewhere", "/mnt", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client.Status(t.Context()); err == nil || !s.Held() {
		t.Errorf("Status gives %v, held %v", err, s.Held())
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A cache directory in which others can write, or that somebody else made first,
// holds nothing that could be trusted.
func TestCacheOfOthers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		make func(dir string) error
		ok   bool
	}{
		"another user's":      {func(dir string) error { return os.Chown(dir, 4242, -1) }, false},
		"for everybody":       {func(dir string) error { return errors.Join(os.Mkdir(dir+"/blobs", 0o777), os.Chmod(dir, 0o777)) }, false},
		"a group's":           {func(dir string) error { return errors.Join(os.Mkdir(dir+"/blobs", 0o775), os.Chmod(dir, 0o775)) }, false},
		"empty, for a group":  {func(dir string) error { return os.Chmod(dir, 0o775) }, true},
		"readable, with more": {func(dir string) error { return errors.Join(os.Mkdir(dir+"/other", 0o755), os.Chmod(dir, 0o755)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := mustConfigure(t)
			if err := os.MkdirAll(o.Settings.CacheDir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := tt.make(o.Settings.CacheDir); errors.Is(err, fs.ErrPermission) {
				t.Skip("only root can give a directory away")
			} else if err != nil {
				t.Fatal(err)
			}
			e := open(t, o)
			state, err := e.openState(t.Context())
			if (err == nil) != tt.ok || err != nil && (!errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), o.Settings.CacheDir)) {
				t.Errorf("the cache is opened: %v", err)
			}
			if err != nil {
				return
			}
			if err := errors.Join(state.Spool.Close(), state.Cache.Close(), state.Index.Close()); err != nil {
				t.Error(err)
			}
			if info, err := os.Stat(o.Settings.CacheDir); err != nil || info.Mode().Perm()&0o022 != 0 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
}
