// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// fileLife is how long a login that was found in a file, or given by a helper, is good
// for those that follow: a registry wants one for the token of each repository, and a
// helper is a program that has to be run.
const fileLife = 5 * time.Second

// renewEvery is how often a refused secret is asked for anew: a password that
// is simply wrong must not become a storm of logins, which locks accounts.
const renewEvery = time.Minute

// A login finds the credentials for one registry.
type login struct {
	host       string
	user       string
	secret     backends.SecretFunc
	files      []string
	helper     string // a credential helper to ask where no file has a login
	advice     string // how one gets a login
	named      bool   // user was configured
	configured bool   // files were: they are expected to be there
	bearer     bool   // the secret is the token itself
	log        *slog.Logger

	helperEnv []string // of all helpers
	getenv    func(string) string

	mu       sync.Mutex // guards the fields below
	fresh    bool       // the last secret was refused
	renewed  time.Time
	guesses  httpx.Renewal
	troubles map[string]string          // by file: what is wrong with it, or ""
	file     string                     // where the last login was found; "" if nowhere
	creds    map[string]auth.Credential // that were found lately, by scope
	scopes   []string                   // for which the files have logins of their own; nil before they were read
	until    time.Time                  // when to look again
}

func newLogin(env backends.Env, cfg Config, p preset, host string) *login {
	l := &login{
		host: host, user: env.User, secret: env.Secret, files: cfg.Credentials, helper: p.helper, named: env.User != "",
		advice: advice(env.Remote, p), bearer: cfg.Auth == authBearer, log: env.Logger(), helperEnv: env.Helpers, getenv: env.Getvar,
	}
	if l.configured = l.files != nil; !l.configured {
		l.files = defaultFiles(env)
	}
	for i, file := range l.files {
		if rest, ok := strings.CutPrefix(file, "~/"); ok && env.Home != "" {
			l.files[i] = filepath.Join(env.Home, rest)
		}
	}
	if l.user == "" {
		// A token alone: the services that take one look at no user name,
		// but for some.
		l.user = cmp.Or(p.user, "token")
		if host == "nvcr.io" {
			l.user = presets["nvidia"].user
		}
	}
	return l
}

// advice says which command stores a login for a remote: a host that no configuration names has
// those of other programs only.
func advice(remote string, p preset) string {
	switch {
	case p.loginAdvice != "":
		return ": " + p.loginAdvice
	case strings.ContainsAny(remote, ".:"):
		return ": run \"apptainer registry login docker://" + remote + "\""
	}
	return ": run \"sreg login " + remote + "\""
}

// newAuth returns the client that logs in where it is asked to. Each request gives
// it the cache of what it has logged in with.
func newAuth(hc *http.Client, l *login) *auth.Client {
	return &auth.Client{Client: hc, ClientID: "sregfs", Credential: l.credential}
}

// defaultFiles are where Docker, Podman, Singularity and Apptainer keep logins.
func defaultFiles(env backends.Env) []string {
	var files []string
	add := func(dir string, parts ...string) {
		if dir == "" {
			return
		}
		if file := filepath.Join(append([]string{dir}, parts...)...); !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	add(env.Getvar("DOCKER_CONFIG"), "config.json")
	add(env.Home, ".docker", "config.json")
	add(env.Getvar("REGISTRY_AUTH_FILE"))
	add(env.Getvar("XDG_RUNTIME_DIR"), "containers", "auth.json")
	add(env.Home, ".singularity", "docker-config.json")
	add(env.Home, ".apptainer", "docker-config.json")
	return files
}

// A secretError is that of the SecretFunc, which says all: transportError finds it in
// what auth.Client makes of it.
type secretError struct{ error }

// credential is an auth.CredentialFunc. The files are read again and again, and at
// once after a refusal, so that a "docker login" is noticed by a running mount.
func (l *login) credential(ctx context.Context, host string) (auth.Credential, error) {
	if host != l.host {
		return auth.EmptyCredential, nil
	}
	if l.secret != nil {
		secret, err := l.ask(ctx)
		if err != nil {
			return auth.EmptyCredential, secretError{err}
		}
		return auth.Credential{Username: l.user, Password: secret}, nil
	}
	scope := scopeFrom(ctx)
	l.mu.Lock()
	l.age()
	cred, ok := l.creds[scope]
	l.mu.Unlock()
	if ok {
		return cred, nil
	}
	return l.find(ctx, scope)
}

// find looks into the files, and asks the helper.
func (l *login) find(ctx context.Context, scope string) (auth.Credential, error) {
	for _, file := range l.files {
		cred, err := l.stored(ctx, file, scope)
		l.trouble(file, err)
		if err == nil && cred != auth.EmptyCredential {
			l.found(scope, file, cred)
			return cred, nil
		}
	}
	if scope != "" {
		return l.find(ctx, "") // the name alone stands there
	}
	cred, err := l.helped(ctx, l.host)
	if err != nil {
		return cred, err
	}
	if cred == auth.EmptyCredential {
		l.found(scope, "", cred)
	} else {
		l.found(scope, helperPrefix+l.helper, cred)
	}
	return cred, nil
}

// trouble notes what is wrong with a file: the next files, and what is public, are for
// all to read. The same is not said twice.
func (l *login) trouble(file string, err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.troubles == nil {
		l.troubles = map[string]string{}
	}
	if why != "" && why != l.troubles[file] {
		l.log.Warn("credentials file is of no use", "file", file, "host", l.host, "err", why)
	}
	l.troubles[file] = why
}

func (l *login) found(scope, file string, cred auth.Credential) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file = file
	if l.creds == nil {
		l.creds = map[string]auth.Credential{}
	}
	l.creds[scope] = cred
}

// age forgets what was found when it is old. Call with mu held.
func (l *login) age() {
	if now := time.Now(); now.After(l.until) {
		l.creds, l.scopes, l.until = nil, nil, now.Add(fileLife)
	}
}

// forget makes the next login look again.
func (l *login) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = time.Time{}
}

// helped asks the credential helper of the preset, if it is installed. The
// protocol is that of github.com/docker/docker-credential-helpers.
func (l *login) helped(ctx context.Context, host string) (auth.Credential, error) {
	if l.helper == "" {
		return auth.EmptyCredential, nil
	}
	if _, err := exec.LookPath(helperPrefix + l.helper); err != nil {
		return auth.EmptyCredential, nil
	}
	return l.askHelper(ctx, l.helper, host)
}

// owner returns the name of who is logged in; "" if nobody is, or a token has
// no name.
func (l *login) owner(ctx context.Context) string {
	if l.secret != nil {
		if !l.named {
			return ""
		}
		return l.user
	}
	cred, err := l.credential(ctx, l.host)
	if err != nil {
		return ""
	}
	return cred.Username
}

// ask returns the secret; another one if the last was refused.
func (l *login) ask(ctx context.Context) (string, error) {
	l.mu.Lock()
	fresh := l.fresh
	l.fresh = false
	l.mu.Unlock()
	return l.secret(ctx, fresh)
}

// authorize puts the token on a request, where it is not for the registry to say
// how one logs in.
func (l *login) authorize(req *http.Request) error {
	if !l.bearer || l.secret == nil {
		return nil
	}
	token, err := l.ask(req.Context())
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return nil
}

// renew reports whether another try with a new secret makes sense. What is no more than
// a guess takes nothing from what is sure.
func (l *login) renew(sure bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.secret == nil, sure && !l.renewed.IsZero() && time.Since(l.renewed) < renewEvery:
		return false
	case sure:
		l.renewed = time.Now()
	case !l.guesses.MayGuess():
		return false
	}
	l.fresh = true
	return true
}

// tried says, for an error, where credentials came from or could have.
func (l *login) tried() string {
	if l.secret != nil {
		return fmt.Sprintf("%s refused the configured login of user %q", l.host, l.user)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != "" {
		return fmt.Sprintf("%s refused the login that is from %s", l.host, l.file)
	}
	text := fmt.Sprintf("%s wants a login%s; none of these files has one: %s", l.host, l.advice, strings.Join(l.files, ", "))
	for _, file := range l.files {
		if why := l.troubles[file]; why != "" {
			text += "; " + file + ": " + why
		}
	}
	if l.helper != "" {
		text += "; nor has docker-credential-" + l.helper + " one, if it is in $PATH at all"
	}
	return text
}

// CheckLogin asks the registry, and its token service if it has one, whether
// they take the login, and for nothing else.
//
// Errors: those of backends.Backend.Stat.
func (c *client) CheckLogin(ctx context.Context) error {
	req, err := c.request(ctx, http.MethodGet, "/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Knock returns a request that every registry answers.
func (c *client) Knock() (method, address string) { return http.MethodGet, c.base.String() + "/v2/" }

// Address implements backends.Addressed.
func (c *client) Address() string {
	if c.base.Host == dockerHub {
		return "https://docker.io"
	}
	return c.base.String()
}
