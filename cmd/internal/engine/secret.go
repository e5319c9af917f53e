// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/config"
)

// maxSecret bounds a token in bytes.
const maxSecret = 64 << 10

// secretOf returns how to get the secret of a remote; nil if it has none.
func secretOf(c config.Common, getenv func(string) string) backends.SecretFunc {
	switch {
	case c.Token != "":
		return func(context.Context, bool) (string, error) { return c.Token, nil }
	case c.TokenFile != "":
		return func(context.Context, bool) (string, error) { return readSecret("token_file", c.TokenFile) }
	case c.TokenEnv != "":
		return func(context.Context, bool) (string, error) {
			if v := getenv(c.TokenEnv); v != "" {
				return v, nil
			}
			return "", fmt.Errorf("%w: token_env: %s is not set", backends.ErrUnauthorized, c.TokenEnv)
		}
	case c.TokenCommand != "":
		return (&commandSecret{command: c.TokenCommand, env: helperEnv(getenv, c.HelperEnv)}).get
	}
	return nil
}

// readSecret reads a file that only its owner may read, as ssh wants its keys.
// The check and the reading are of one open file, and no link is followed at the
// end of the name. what says in errors which file it is.
func readSecret(what, path string) (string, error) {
	f, err := backends.OpenRegular(path, os.O_RDONLY|backends.NoFollow, 0)
	if errors.Is(err, syscall.ELOOP) {
		return "", fmt.Errorf("%w: %s %s is a symbolic link: name the file itself", backends.ErrUnauthorized, what, path)
	}
	if err != nil {
		return "", notRead(what, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("%w: %s: %v", backends.ErrUnauthorized, what, err)
	}
	if err := config.CheckOwner(path, info); err != nil {
		return "", fmt.Errorf("%w: %s: %v", backends.ErrUnauthorized, what, err)
	}
	switch mode := info.Mode(); {
	case mode.Perm()&0o077 != 0:
		return "", fmt.Errorf("%w: %s %s can be read by others (mode %#o): chmod 600 it", backends.ErrUnauthorized, what, path, mode.Perm())
	case info.Size() > maxSecret:
		return "", fmt.Errorf("%w: %s %s is larger than %d bytes", backends.ErrUnauthorized, what, path, maxSecret)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		return "", fmt.Errorf("%w: %s: %v", backends.ErrUnauthorized, what, err)
	}
	return nonEmpty(b.String(), what+" "+path)
}

// notRead is the error for a file that a setting names and that cannot be opened.
func notRead(setting string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return backends.Saying(backends.ErrNoFile, "%s: %v", setting, err)
	}
	return fmt.Errorf("%w: %s: %v", backends.ErrUnauthorized, setting, err)
}

func nonEmpty(text, origin string) (string, error) {
	if text = strings.TrimSpace(text); text == "" {
		return "", fmt.Errorf("%w: %s gives nothing", backends.ErrUnauthorized, origin)
	}
	return text, nil
}

// helperVars are what a helper may need to find its own secrets: where things are,
// how to ask, which agent. No password or token of another service is among them.
var helperVars = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TERM", "TZ", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_MESSAGES",
	"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "XDG_SESSION_ID",
	"DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "GNUPGHOME", "GPG_TTY", "SSH_AUTH_SOCK", "SSH_ASKPASS",
	"DOCKER_CONFIG", "PASSWORD_STORE_DIR", "VAULT_ADDR", "KRB5CCNAME", "KRB5_CONFIG",
	"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
}

// helperEnv is the environment of a helper: few variables, and those that the
// configuration names. It must not inherit the secrets of all remotes.
func helperEnv(getenv func(string) string, more []string) []string {
	env := []string{}
	for _, name := range slices.Concat(helperVars, more) {
		if v := getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// commandTimeout is generous: the command may ask a vault on the network.
const commandTimeout = 30 * time.Second

// A commandSecret asks a command once, and again when a fresh secret is wanted.
type commandSecret struct {
	command string
	env     []string
	mu      sync.Mutex // guards the field below, and lets one command run at a time
	last    string
}

func (s *commandSecret) get(ctx context.Context, fresh bool) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != "" && !fresh {
		return s.last, nil
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", s.command)
	cmd.Stderr, cmd.Env = os.Stderr, s.env
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: token_command: %v", backends.ErrUnauthorized, err)
	}
	s.last, err = nonEmpty(string(out), "token_command")
	return s.last, err
}

// checkSecretFile tells early about a file that cannot work; one that is missing
// may appear later.
func checkSecretFile(path string) error {
	if _, err := os.Lstat(path); path == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, err := readSecret("token_file", path)
	return err
}
