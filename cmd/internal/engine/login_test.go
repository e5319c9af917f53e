// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/config"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	o := mustConfigure(t)
	r := config.Remote{Name: "lab", Common: config.Common{Type: "oci"}, URL: "https://lab.example"}
	if _, ask := o.withLogin(r); ask != nil {
		t.Error("a secret where nothing is stored: the backend looks nowhere else")
	}
	if _, err := o.DropLogin("lab"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("DropLogin: %v", err)
	}
	path, err := o.StoreLogin(r, Login{User: "me", Secret: "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{path: 0o600, o.Logins: 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", path, info.Mode().Perm(), err, want)
		}
	}
	with, ask := o.withLogin(r)
	if got, err := ask(t.Context(), false); err != nil || got != "hunter2" || with.User != "me" {
		t.Errorf("%q, %q, %v", with.User, got, err)
	}
	// A running mount sees the next one, whether the last was refused or not.
	if _, err := o.StoreLogin(r, Login{User: "me", Secret: "hunter3"}); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(t.Context(), true); err != nil || got != "hunter3" {
		t.Errorf("after another login: %q, %v", got, err)
	}
	// What the configuration says goes first.
	own := r
	own.TokenEnv, own.User = "LAB_TOKEN", "her"
	with, ask = o.withLogin(own)
	if got, err := ask(t.Context(), false); err != nil || got != "from environment" || with.User != "her" {
		t.Errorf("with token_env: %q, %q, %v", with.User, got, err)
	}
	if err := o.MoveLogin("lab", "uni"); err != nil {
		t.Error(err)
	}
	if _, err := o.ReadLogin(r); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("under the old name: %v", err)
	}
	r.Name = "uni"
	if l, err := o.ReadLogin(r); err != nil || l.Secret != "hunter3" {
		t.Errorf("under the new name: %+v, %v", l.User, err)
	}
	if err := o.MoveLogin("nothing", "lab"); err != nil {
		t.Errorf("MoveLogin of none: %v", err)
	}
}

// A login that is there and cannot be used is an error that says why, and tells
// nothing of it.
func TestLogin_useless(t *testing.T) {
	t.Parallel()
	o := mustConfigure(t)
	r := config.Remote{Name: "lab", Common: config.Common{Type: "oci"}, URL: "https://lab.example"}
	path, err := o.StoreLogin(r, Login{Secret: "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, r config.Remote) {
		t.Helper()
		_, ask := o.withLogin(r)
		if ask == nil {
			t.Fatalf("%s: the backend is let look elsewhere", name)
		}
		got, err := ask(t.Context(), false)
		if got != "" || !errors.Is(err, backends.ErrUnauthorized) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	elsewhere := r
	elsewhere.URL = "https://evil.example"
	check("another address", elsewhere)
	elsewhere.URL, elsewhere.Type = r.URL, "sregistry"
	check("another type", elsewhere)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	check("others can read it", r)
	for name, text := range map[string]string{"no JSON": "hunter2", "no secret": `{"type":"oci"}`, "empty": ""} {
		if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		check(name, r)
	}
	real := filepath.Join(t.TempDir(), "lab")
	if err := errors.Join(os.WriteFile(real, good, 0o600), os.Remove(path), os.Symlink(real, path)); err != nil {
		t.Fatal(err)
	}
	check("a link", r)
	for _, name := range []string{"../x", "", ".x", "a/b"} {
		if _, err := o.LoginFile(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("LoginFile(%q) gives %v", name, err)
		}
	}
}

// Dropbox can do nothing without a login: a mount looks for the first one, too.
func TestLogin_later(t *testing.T) {
	t.Parallel()
	o := mustConfigure(t)
	r := config.Remote{Name: "box", Common: config.Common{Type: "dropbox"}}
	_, ask := o.withLogin(r)
	if _, err := ask(t.Context(), false); !errors.Is(err, backends.ErrUnauthorized) || !strings.Contains(err.Error(), "sreg login box") {
		t.Errorf("before: %v", err)
	}
	if _, err := o.StoreLogin(r, Login{Secret: "hunter2"}); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(t.Context(), false); err != nil || got != "hunter2" {
		t.Errorf("after: %q, %v", got, err)
	}
}

// A helper gets what it needs to find its own secrets, and no other ones.
func TestCommandSecret_environment(t *testing.T) {
	t.Setenv("SREGISTRY_DROPBOX_TOKEN", "canary")
	t.Setenv("VAULT_TOKEN", "wanted")
	get := secretOf(config.Common{TokenCommand: "env", HelperEnv: []string{"VAULT_TOKEN"}}, os.Getenv)
	got, err := get(t.Context(), false)
	if err != nil || strings.Contains(got, "canary") || !strings.Contains(got, "VAULT_TOKEN=wanted") || !strings.Contains(got, "PATH=") {
		t.Errorf("%v, the helper sees\n%s", err, got)
	}
}
