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

	"github.com/sregfs/sregfs/backends/dropbox/dropboxtest"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/catalog"
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
	if err := printStatus(&out, catalog.Status{}, o.StateNotes); err != nil || !strings.Contains(out.String(), o.StateNotes[0]) {
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
