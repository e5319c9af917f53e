// SPDX-License-Identifier: Apache-2.0

package google

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// maxFile is the size in bytes above which a file is no login.
const maxFile = 64 << 10

// find makes login, if there is none yet. fresh demands a secret that was not given before.
func (l *Login) find(ctx context.Context, fresh bool) error {
	if l.login != nil && !fresh {
		return nil
	}
	var err error
	if l.env.Secret != nil {
		l.login, err = l.secret(ctx, fresh)
	} else {
		l.login, err = l.stored()
	}
	if err != nil {
		l.login = nil
	}
	return err
}

func (l *Login) secret(ctx context.Context, fresh bool) (*credential, error) {
	text, err := l.env.Secret(ctx, fresh)
	if errors.Is(err, backends.ErrUnauthorized) || err != nil && ctx.Err() != nil {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", backends.ErrUnauthorized, err)
	}
	return l.parse(text)
}

// stored returns the login that is in a file, or that this machine has.
// https://cloud.google.com/docs/authentication/application-default-credentials
func (l *Login) stored() (*credential, error) {
	switch {
	case l.opts.Anonymous:
		return &credential{}, nil
	case l.opts.Credentials != "":
		return l.read(l.opts.Credentials)
	case l.opts.Base != nil:
		return &credential{}, nil // they are for Google, and not for whoever stands in
	}
	if path := l.env.Getvar("GOOGLE_APPLICATION_CREDENTIALS"); path != "" {
		return l.read(path)
	}
	if path := l.gcloudFile(); path != "" {
		c, err := l.read(path)
		if !errors.Is(err, backends.ErrNoFile) {
			return c, err
		}
	}
	if host := l.env.Getvar("GCE_METADATA_HOST"); host != "" {
		return l.metadata(host), nil
	}
	if onGoogle() || l.env.Getvar("K_SERVICE") != "" {
		return l.metadata("169.254.169.254"), nil
	}
	return &credential{}, nil
}

// gcloudFile returns where gcloud keeps the application-default credentials.
func (l *Login) gcloudFile() string {
	dir := l.env.Getvar("CLOUDSDK_CONFIG")
	if dir == "" && l.env.Home != "" {
		dir = filepath.Join(l.env.Home, ".config", "gcloud")
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "application_default_credentials.json")
}

// onGoogle reports whether the firmware says that this is a machine of Google's: elsewhere to
// ask for the metadata server would be a wait for nobody.
func onGoogle() bool {
	name, err := os.ReadFile("/sys/class/dmi/id/product_name")
	return err == nil && strings.HasPrefix(string(name), "Google")
}

// read reads the login in a file.
//
// Errors: backends.ErrNoFile, backends.ErrUnauthorized.
func (l *Login) read(path string) (*credential, error) {
	text, err := l.readFile(path)
	if err != nil {
		return nil, err
	}
	c, err := l.parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	return c, nil
}

func (l *Login) readFile(path string) (string, error) {
	if rest, ok := strings.CutPrefix(path, "~/"); ok && l.env.Home != "" {
		path = filepath.Join(l.env.Home, rest)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %s", backends.ErrNoFile, path)
	}
	if err != nil {
		return "", unfit("%v", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return "", unfit("%v", err)
	case len(text) > maxFile:
		return "", unfit("%s has more than %d bytes: it is no login", path, maxFile)
	}
	return string(text), nil
}
