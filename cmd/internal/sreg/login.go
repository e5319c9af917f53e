// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/all"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/engine"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

// loginFlags are the flags by which a script gives a login.
type loginFlags struct {
	user  string
	stdin bool
}

func (a *app) loginCmd() *cobra.Command {
	var f loginFlags
	cmd := &cobra.Command{
		Use:   "login REMOTE",
		Short: "Store a login for a remote",
		Long: `Ask for what the remote's type needs (a user name, a password or token, the code
of a web page), try it, and keep it in ~/.config/sregfs/credentials/REMOTE, which
only you can read. It is used where the configuration names no token_file,
token_env or token_command, and only for the address that the remote has now.

A script says --token-stdin, and --user where a user name is needed.`,
		Example: `  sreg login dropbox
  pass show ghcr | sreg login ghcr --user me --token-stdin`,
		Args: needArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.login(cmd.Context(), args[0], f) },
	}
	cmd.Flags().StringVar(&f.user, "user", "", "the user `name`")
	cmd.Flags().BoolVar(&f.stdin, "token-stdin", false, "read the password or token from the standard input")
	return cmd
}

func (a *app) login(ctx context.Context, name string, f loginFlags) error {
	o, err := a.options()
	if err != nil {
		return err
	}
	r, err := remoteNamed(o, name)
	if err == nil {
		err = needsLogin(r, f)
	}
	if err != nil {
		return err
	}
	l, err := a.askLogin(ctx, o, r, f)
	if err != nil {
		return err
	}
	untried, err := a.tryLogin(ctx, o, r, l)
	if err != nil {
		return fmt.Errorf("login %s: %w", name, err)
	}
	path, err := o.StoreLogin(r, l)
	if err != nil {
		return fmt.Errorf("login %s: %w", name, err)
	}
	if untried == nil {
		a.notice(fmt.Sprintf("logged in to %s; the login is in %s", name, path))
	} else {
		a.notice(fmt.Sprintf("the login for %s is in %s, but it could not be tried: %v", name, path, backends.Printable(exit.Text(untried))))
	}
	a.reload(ctx, o, name)
	return nil
}

// remoteNamed returns a remote of the configuration.
func remoteNamed(o engine.Options, name string) (config.Remote, error) {
	var known []string
	for _, r := range o.Settings.Remotes {
		if r.Name == name {
			return r, nil
		}
		known = append(known, r.Name)
	}
	if backends.CheckHost(name) == nil {
		return config.Remote{}, backends.NotFound("%s is used without a table, with the logins of \"docker login\", \"podman login\" and \"apptainer registry login\": for one of its own \"sreg remote add\" makes a remote", name)
	}
	return config.Remote{}, backends.NotFound("no remote is named %q%s: \"sreg remote add\" makes one",
		name, backends.DidYouMean(name, known))
}

// needsLogin refuses a login that would not be used.
func needsLogin(r config.Remote, f loginFlags) error {
	source, typ := tokenSource(r), typeOf(r)
	switch {
	case typ.Local:
		return usagef("remote %s is a directory of this machine: it has no login", r.Name)
	case source != "":
		return usagef("remote %s has its token from %s, which goes before a stored login", r.Name, source)
	case f.user != "" && r.User != "" && f.user != r.User:
		return usagef("remote %s has user = %q in its configuration", r.Name, r.User)
	case f.user != "" && typ.Login == backends.LoginToken:
		return usagef("remote %s: a login of type %q has no user name", r.Name, r.Type)
	}
	return nil
}

// typeOf returns the type of a remote.
func typeOf(r config.Remote) backends.Type {
	t, _ := all.Types.Named(r.Type) // the configuration has none that is unknown
	return t
}

// tokenSource names the setting of a remote's secret; "" if there is none.
func tokenSource(r config.Remote) string {
	switch {
	case r.Token != "" && r.Guessed:
		return r.Origin
	case r.Token != "":
		return "the configuration file"
	case r.TokenFile != "":
		return "token_file " + r.TokenFile
	case r.TokenEnv != "":
		return "the variable " + r.TokenEnv
	case r.TokenCommand != "":
		return "token_command"
	}
	return ""
}

// askLogin asks the user for the login: on a web page if the service has that, else for a
// user name and a password. With --token-stdin it asks nothing.
func (a *app) askLogin(ctx context.Context, o engine.Options, r config.Remote, f loginFlags) (l engine.Login, err error) {
	l.User = f.user
	if !f.stdin && f.user == "" { // a page asks for the user itself
		p, err := newProbe(ctx, o, r)
		if err != nil {
			return l, err
		}
		defer p.close()
		if l.Secret, err = a.webLogin(ctx, p.client); errors.Is(err, errors.ErrUnsupported) {
			l.Secret, err = a.loopbackLogin(ctx, p.client)
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			return l, err
		}
	}
	if l.User, err = a.askUser(ctx, r, f); err != nil {
		return l, err
	}
	if f.stdin {
		l.Secret, err = a.readAll(ctx)
	} else {
		l.Secret, err = a.askSecret(ctx, "Password or token: ")
	}
	if err == nil && l.Secret == "" {
		err = usagef("login %s: no password or token was given", r.Name)
	}
	return l, err
}

// askUser returns the user name; "" if the configuration has it, or if a token needs none.
func (a *app) askUser(ctx context.Context, r config.Remote, f loginFlags) (string, error) {
	kind := typeOf(r).Login
	needed := kind == backends.LoginUser
	switch {
	case f.user != "" || r.User != "" || kind == backends.LoginToken:
		return f.user, nil
	case !term.Is(a.in) && needed:
		return "", usagef("login %s: say --user", r.Name)
	case !term.Is(a.in):
		return "", nil
	}
	question := "User name: "
	if !needed {
		question = "User name (empty for a token alone): "
	}
	user, err := a.ask(ctx, question)
	if err == nil && user == "" && needed {
		err = usagef("login %s: no user name was given", r.Name)
	}
	return user, err
}

// tryLogin returns an error if the service refuses the login. If the service cannot be
// reached now, or accepts any login, the login is stored unchecked and untried says why.
func (a *app) tryLogin(ctx context.Context, o engine.Options, r config.Remote, l engine.Login) (untried, err error) {
	if r.User == "" {
		r.User = l.User
	}
	r.Token = l.Secret
	p, err := newProbe(ctx, o, r)
	if err != nil {
		return nil, err
	}
	defer p.close()
	err = p.checkLogin(ctx, o)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, fs.ErrPermission):
		return nil, err
	}
	return err, nil
}

// runningMount returns where this user's mount is, "" if none is running.
func runningMount(o engine.Options) string {
	if p, err := statedir.Holder(o.State); err == nil {
		return p.Mount
	}
	return ""
}

func (a *app) logoutCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "logout REMOTE",
		Short: "Remove the stored login of a remote",
		Long: `Remove what "sreg login" has stored. Logins that other programs keep, or that the
configuration names, stay.`,
		Args: needArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := a.options()
			if err != nil {
				return err
			}
			return a.logout(o, args[0])
		},
	}
}

func (a *app) logout(o engine.Options, name string) error {
	path, err := o.DropLogin(name)
	r, unknown := remoteNamed(o, name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && unknown != nil:
		return unknown
	case errors.Is(err, fs.ErrNotExist):
		return backends.NotFound("logout %s: no login is stored in %s%s", name, path, otherLogins(r))
	case err != nil:
		return fmt.Errorf("logout %s: %w", name, err)
	}
	a.notice(fmt.Sprintf("logged out of %s: %s is removed%s", name, path, otherLogins(r)))
	return nil
}

// otherLogins says which login a remote may have besides the stored one.
func otherLogins(r config.Remote) string {
	switch source := tokenSource(r); {
	case source != "":
		return "; its token is from " + backends.Printable(source)
	case typeOf(r).OCI:
		return "; logins of docker, podman, singularity and apptainer are used still: their own logout removes them"
	}
	return ""
}
