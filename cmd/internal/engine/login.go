// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/config"
)

// A Login is what "sreg login" stores for a remote. It is good for one address:
// a remote that gets another one, under an old name, must not be sent it.
type Login struct {
	Type   string `json:"type"`
	URL    string `json:"url,omitempty"`
	User   string `json:"user,omitempty"`
	Secret string `json:"secret"`
}

// LoginFile returns where the login of a remote is stored, if one is.
//
// Errors: fs.ErrInvalid for what can be no remote; where there is no home.
func (o Options) LoginFile(remote string) (string, error) {
	if err := backends.CheckRemoteName(remote); err != nil {
		return "", err
	}
	if o.Logins == "" {
		return "", errors.New("there is no home directory to keep logins in")
	}
	return filepath.Join(o.Logins, remote), nil
}

// StoreLogin keeps a login for r, in the place of an earlier one, where only the
// user can read it. It is on the disk when StoreLogin returns.
func (o Options) StoreLogin(r config.Remote, l Login) (path string, err error) {
	l.Type, l.URL = r.Type, r.URL
	if path, err = o.LoginFile(r.Name); err != nil {
		return "", err
	}
	if err := os.MkdirAll(o.Logins, 0o700); err != nil {
		return "", err
	}
	// It may have been made by hand, or come out of a backup.
	if err := os.Chmod(o.Logins, 0o700); err != nil {
		return "", err
	}
	text, err := json.Marshal(l)
	if err != nil {
		return "", err
	}
	return path, config.WriteSecret(path, append(text, '\n'))
}

// DropLogin removes the login of a remote, for good when it returns.
// Errors: fs.ErrNotExist if none is stored.
func (o Options) DropLogin(remote string) (path string, err error) {
	if path, err = o.LoginFile(remote); err != nil {
		return "", err
	}
	return path, config.RemoveSecret(path)
}

// MoveLogin lets the login of a remote belong to another name, if there is one.
func (o Options) MoveLogin(from, to string) error {
	old, err := o.LoginFile(from)
	if err != nil {
		return err
	}
	path, err := o.LoginFile(to)
	if err != nil {
		return err
	}
	if err := os.Rename(old, path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ReadLogin returns the login that is stored for r.
//
// Errors: fs.ErrNotExist if there is none; backends.ErrUnauthorized if others
// could read it, or if it is for another address.
func (o Options) ReadLogin(r config.Remote) (Login, error) {
	path, err := o.LoginFile(r.Name)
	if err != nil {
		return Login{}, backends.NotFound("%v", err)
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return Login{}, err
	}
	text, err := readSecret("login", path)
	if err != nil {
		return Login{}, err
	}
	var l Login
	if json.Unmarshal([]byte(text), &l) != nil || l.Secret == "" {
		return Login{}, fmt.Errorf("%w: %s is no login (run \"sreg login %s\")", backends.ErrUnauthorized, path, r.Name)
	}
	if l.Type != r.Type || l.URL != r.URL {
		return Login{}, fmt.Errorf("%w: the login stored for remote %s is for another address (run \"sreg login %s\", or \"sreg logout %s\")",
			backends.ErrUnauthorized, r.Name, r.Name, r.Name)
	}
	return l, nil
}

// withLogin gives r the stored login, unless it names a secret of its own. A
// running mount notices when the login changes, but not the first one, unless nothing
// can be done without: without any, a backend looks elsewhere, or goes without.
func (o Options) withLogin(r config.Remote) (config.Remote, backends.SecretFunc) {
	if ask := secretOf(r.Common, o.Getenv); ask != nil {
		return r, ask
	}
	if r.ByHost { // what is stored is for remotes by their names
		return r, nil
	}
	l, err := o.ReadLogin(r)
	switch {
	case errors.Is(err, fs.ErrNotExist) && o.typeOf(r).Login != backends.LoginToken:
		return r, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		o.Log.Warn("the stored login is of no use", "remote", r.Name, "err", err)
	case r.User == "":
		r.User = l.User
	}
	return r, func(context.Context, bool) (string, error) {
		l, err := o.ReadLogin(r)
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%w: no login is stored for remote %s (run \"sreg login %s\")", backends.ErrUnauthorized, r.Name, r.Name)
		}
		return l.Secret, err
	}
}
