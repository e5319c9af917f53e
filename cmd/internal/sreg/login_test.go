// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dropbox/dropboxtest"
	"github.com/sregfs/sregfs/backends/http/webtest"
	"github.com/sregfs/sregfs/backends/library/librarytest"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/exit"
)

// newApp returns a run of the command for a user whose home is empty.
func newApp(home string, in io.Reader, stderr io.Writer) (*app, *bytes.Buffer) {
	var out bytes.Buffer
	env := map[string]string{"HOME": home, "SREGFS_HOME": filepath.Join(home, "state")}
	return &app{in: in, out: &out, err: stderr, getenv: func(name string) string { return env[name] }}, &out
}

// run runs a command that must succeed and returns what it prints.
func run(t *testing.T, home, stdin string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	a, out := newApp(home, strings.NewReader(stdin), &stderr)
	if err := a.run(t.Context(), args); err != nil {
		t.Fatalf("sreg %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out.String()
}

// A person logs in to Dropbox by its page, and is logged in when the access
// token of the first day is no good any more.
func TestLogin_web(t *testing.T) {
	t.Parallel()
	server := dropboxtest.Start(t, dropboxtest.Options{})
	home := t.TempDir()
	run(t, home, "", "remote", "add", "box", "dropbox", "url="+server.URL, "app_key=app")

	stdin, typed := io.Pipe()
	shown, stderr := io.Pipe()
	done := make(chan error, 1)
	go func() {
		a, _ := newApp(home, stdin, stderr)
		err := a.run(t.Context(), []string{"login", "box"})
		stderr.Close()
		done <- err
	}()
	var seen strings.Builder
	for lines := bufio.NewScanner(shown); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		seen.WriteString(line + "\n")
		if !strings.HasPrefix(line, server.URL) {
			continue
		}
		code, err := server.Authorize(line)
		if err != nil {
			t.Error(err)
		}
		// The question itself is no line: it is answered while it is printed.
		go io.WriteString(typed, code+"\n")
	}
	if err := <-done; err != nil {
		t.Fatalf("login: %v\n%s", err, seen.String())
	}
	if strings.Contains(seen.String(), dropboxtest.RefreshToken) {
		t.Errorf("the secret is shown: %s", seen.String())
	}

	path := filepath.Join(home, ".config/sregfs/credentials/box")
	text, err := os.ReadFile(path)
	var stored struct{ Type, URL, Secret string }
	if err != nil || json.Unmarshal(text, &stored) != nil || stored.Type != "dropbox" || stored.URL != server.URL ||
		!strings.Contains(stored.Secret, dropboxtest.RefreshToken) {
		t.Errorf("stored is %s, %v", text, err)
	}
	server.Expire()
	if got := run(t, home, "", "remote", "test", "box"); !strings.Contains(got, "login  ok") {
		t.Errorf("after the access token expired:\n%s", got)
	}
	run(t, home, "", "logout", "box")
	if _, err := os.Stat(path); err == nil {
		t.Error("the login is there after logout")
	}
}

// Where the state is, and why not where it should be, is no news of each command.
func TestStateElsewhere(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	share := filepath.Join(home, ".local", "share")
	if err := errors.Join(os.MkdirAll(share, 0o700), os.WriteFile(filepath.Join(home, ".local", "state"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	a, _ := newApp(home, strings.NewReader(""), &stderr)
	a.getenv = func(name string) string { return map[string]string{"HOME": home}[name] }
	if err := a.run(t.Context(), []string{"remote", "test", "local"}); err != nil || stderr.Len() > 0 {
		t.Errorf("%v, and it says %s", err, &stderr)
	}
	o, err := a.options()
	if err != nil || len(o.StateNotes) == 0 {
		t.Fatalf("%q, %v", o.StateNotes, err)
	}
	var out bytes.Buffer
	a.out = &out
	if err := a.printStatus(verbs.Status{}, nil, o.StateNotes); err != nil || !strings.Contains(out.String(), o.StateNotes[0]) {
		t.Errorf("status says %s, %v", &out, err)
	}
}

// A server that sends on to https can be read through its old address, and not pushed to.
func TestRemoteTest_redirected(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushSIF("a/b", "1", []byte("x"), nil)
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, reg.URL+r.URL.RequestURI(), http.StatusMovedPermanently)
	}))
	t.Cleanup(old.Close)
	for spec, want := range map[string]int{"lab=oci,url=" + old.URL: exit.Unreachable, "lab=oci,read_only=true,url=" + old.URL: exit.OK} {
		a, out := newApp(t.TempDir(), strings.NewReader(""), io.Discard)
		err := a.run(t.Context(), []string{"--remote", spec, "remote", "test", "lab"})
		if exit.Code(err) != want || !strings.Contains(out.String(), "read   ok") || want != exit.OK && !strings.Contains(out.String(), reg.URL) {
			t.Errorf("%s: %v\n%s", spec, err, out)
		}
	}
}

// A wrong code stores nothing.
func TestLogin_wrongCode(t *testing.T) {
	t.Parallel()
	server := dropboxtest.Start(t, dropboxtest.Options{})
	home := t.TempDir()
	run(t, home, "", "remote", "add", "box", "dropbox", "url="+server.URL, "app_key=app")
	run(t, home, "", "remote", "add", "other", "dropbox", "url="+server.URL)
	for remote, want := range map[string]string{"box": "refused to log in", "other": "needs app_key"} {
		a, _ := newApp(home, strings.NewReader("nonsense\n"), io.Discard)
		if err := a.run(t.Context(), []string{"login", remote}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("login %s gives %v, want %q in it", remote, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(home, ".config/sregfs/credentials")); err == nil {
		t.Error("something is stored")
	}
}

// Of every kind of remote: the right login is taken, a wrong one refused, and then the one
// before is there still. Only what the right one alone can do counts: all these give what
// is public to anybody.
func TestLogin_proven(t *testing.T) {
	t.Parallel()
	registry := sregistrytest.Start(t, sregistrytest.Options{})
	oldRegistry := sregistrytest.Start(t, sregistrytest.Options{NoLibrary: true})
	for _, srv := range []*sregistrytest.Server{registry, oldRegistry} {
		srv.Add(sregistrytest.Image{Collection: "public", Name: "i", Tag: "1", Content: []byte("x"), Old: true})
	}
	web := webtest.Nginx(t, webtest.Options{User: "me", Password: "secret"})
	basic := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret"})
	token := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret", TokenAuth: true, AnonymousPull: true})
	box := dropboxtest.Start(t, dropboxtest.Options{})
	box.Accept("sl.token")
	for name, tt := range map[string]struct {
		typ, url, user, secret, wrongUser string
	}{
		"registry":     {"sregistry", registry.URL, sregistrytest.User, sregistrytest.Token, sregistrytest.Guest},
		"old-registry": {"sregistry", oldRegistry.URL, sregistrytest.User, sregistrytest.Token, ""},
		"library":      {"library", librarytest.Start(t, librarytest.Options{}).URL, "", librarytest.Token, ""},
		"web":          {"http", web.URL, "me", "secret", "you"},
		"basic":        {"oci", basic.URL, "me", "secret", "you"},
		"token":        {"oci", token.URL, "me", "secret", "you"},
		"box":          {"dropbox", box.URL, "", "sl.token", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			run(t, home, "", "remote", "add", name, tt.typ, "url="+tt.url)
			args := []string{"login", name, "--token-stdin"}
			login := func(user, secret string) (string, error) {
				if user != "" {
					args = append(args[:3:3], "--user", user)
				}
				var stderr bytes.Buffer
				a, _ := newApp(home, strings.NewReader(secret+"\n"), &stderr)
				err := a.run(t.Context(), args)
				return stderr.String(), err
			}
			path := filepath.Join(home, ".config/sregfs/credentials", name)
			if said, err := login(tt.user, "wrong"); !errors.Is(err, backends.ErrUnauthorized) {
				t.Errorf("a wrong first login: %v\n%s", err, said)
			}
			if _, err := os.Stat(path); err == nil {
				t.Fatal("the wrong login is stored")
			}
			if said, err := login(tt.user, tt.secret); err != nil || !strings.Contains(said, "logged in to "+name) {
				t.Fatalf("the right login: %v\n%s", err, said)
			}
			stored, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			wrong := map[string]string{tt.user: "wrong"}
			if tt.wrongUser != "" {
				wrong[tt.wrongUser] = tt.secret
			}
			for user, secret := range wrong {
				if said, err := login(user, secret); !errors.Is(err, backends.ErrUnauthorized) || exit.Code(err) != exit.NotAllowed {
					t.Errorf("login of %q with %q: %v, exit code %d\n%s", user, secret, err, exit.Code(err), said)
				}
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, stored) {
				t.Errorf("the login before is not there any more: %v", err)
			}
			if got := run(t, home, "", "remote", "test", name); !strings.Contains(got, "login  ok") {
				t.Errorf("remote test with the right login:\n%s", got)
			}
			if err := os.WriteFile(path, bytes.Replace(stored, []byte(tt.secret), []byte("expired"), 1), 0o600); err != nil {
				t.Fatal(err)
			}
			a, out := newApp(home, strings.NewReader(""), io.Discard)
			if err := a.run(t.Context(), []string{"remote", "test", name}); exit.Code(err) != exit.NotAllowed || !strings.Contains(out.String(), "login  failed") {
				t.Errorf("remote test with a login that has expired: %v\n%s", err, out.String())
			}
		})
	}
}

// A service that looks at no login cannot say that one is right: nobody is told that it is.
func TestLogin_unproven(t *testing.T) {
	t.Parallel()
	open := ocitest.Start(t, ocitest.Options{})
	web := webtest.Nginx(t, webtest.Options{})
	home := t.TempDir()
	for name, add := range map[string][]string{"reg": {"oci", "url=" + open.URL}, "web": {"http", "url=" + web.URL}} {
		run(t, home, "", append([]string{"remote", "add", name}, add...)...)
		var stderr bytes.Buffer
		a, _ := newApp(home, strings.NewReader("any\n"), &stderr)
		if err := a.run(t.Context(), []string{"login", name, "--user", "me", "--token-stdin"}); err != nil ||
			strings.Contains(stderr.String(), "logged in") || !strings.Contains(stderr.String(), "could not be tried") {
			t.Errorf("login %s: %v\n%s", name, err, stderr.String())
		}
		if got := run(t, home, "", "remote", "test", name); !strings.Contains(got, "login  no") {
			t.Errorf("remote test %s:\n%s", name, got)
		}
	}
}
