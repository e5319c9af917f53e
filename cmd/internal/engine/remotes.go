// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/exit"
)

// openRemotes opens the backends of all remotes, or of none: a mistake in what
// somebody wrote into the configuration ends the program before it does half of
// what was meant.
func openRemotes(ctx context.Context, o Options) ([]catalog.Remote, error) {
	var all []catalog.Remote
	for _, r := range o.Settings.Remotes {
		remote, err := o.openRemote(ctx, r)
		if err != nil {
			closeRemotes(all)
			return nil, err
		}
		all = append(all, remote)
	}
	return all, nil
}

// openRemote opens the backend of a remote. One that cannot be opened is kept with
// its error, unless that is a mistake in what somebody wrote.
func (o Options) openRemote(ctx context.Context, r config.Remote) (catalog.Remote, error) {
	remote := catalog.Remote{Name: r.Name, Type: r.Type, URL: r.URL, Policy: policyOf(o.Settings, r)}
	remote.Guessed = r.ByHost || r.Guessed && len(r.Config) == 0 && r.Token == ""
	remote.ByHost = r.ByHost
	if path, ok := r.Config["path"].(string); ok && remote.URL == "" {
		remote.URL = path
	}
	backend, err := o.OpenBackend(ctx, r)
	switch {
	case err == nil:
		if remote.URL == "" {
			remote.URL = backends.AddressOf(backend)
		}
		remote.Client = backends.NewClient(r.Name, backend, backends.ClientOptions{
			ReadOnly:   remote.Policy.ReadOnly,
			MaxElapsed: time.Duration(r.Timeout),
			Origin:     r.Type + " " + remote.URL,
			Log:        o.Log,
		})
	case errors.Is(err, fs.ErrInvalid) && !r.Guessed:
		return remote, exit.WithCode(exit.Usage, fmt.Errorf("%s: %w%s", r.At(err, r.Origin), err, nearCommon(r.Config)))
	default:
		o.Log.Warn("remote cannot be used", "remote", r.Name, "err", err)
		remote.Err = err
	}
	return remote, nil
}

func closeRemotes(all []catalog.Remote) {
	for _, r := range all {
		if r.Client != nil {
			_ = r.Client.Close()
		}
	}
}

// nearCommon helps where a key that all remotes share was misspelt: the backend,
// which is handed what nobody else knows, can only name keys of its own.
func nearCommon(table map[string]any) string {
	for _, key := range slices.Sorted(maps.Keys(table)) {
		if len(key) < 4 || slices.Contains(config.CommonKeys(), key) {
			continue
		}
		for _, common := range config.CommonKeys() {
			if hint := backends.DidYouMean(key, []string{common}); len(common) > 4 && hint == fmt.Sprintf(" (did you mean %q?)", common) {
				return hint
			}
		}
	}
	return ""
}

// policyOf combines the general settings with the remote's own, which win, except
// that nothing makes a read-only mount writable. The local store is its owner's:
// in it everything is allowed unless it says otherwise itself.
func policyOf(s *config.Settings, r config.Remote) catalog.Policy {
	own := func(v *bool, general bool) bool {
		switch {
		case v != nil:
			return *v
		case r.Name == config.Local:
			return true
		}
		return general
	}
	push := r.Push
	if push == "" {
		push = s.Push
	}
	return catalog.Policy{
		ReadOnly:  s.ReadOnly || r.ReadOnly,
		Overwrite: own(r.AllowOverwrite, s.AllowOverwrite),
		Delete:    own(r.AllowDelete, s.AllowDelete),
		Async:     push == "async",
	}
}

// typeOf returns the type of a remote; a zero one if there is none of its name.
func (o Options) typeOf(r config.Remote) backends.Type {
	t, _ := o.Types.Named(r.Type)
	return t
}

// OpenBackend opens the backend of one remote, without any request.
//
// Errors: fs.ErrInvalid for settings that cannot be; ErrUnauthorized for a
// token_file that others can read.
func (o Options) OpenBackend(ctx context.Context, r config.Remote) (backends.Backend, error) {
	typ := o.typeOf(r)
	if typ.Open == nil {
		return nil, fmt.Errorf("%w: unknown type %q", fs.ErrInvalid, r.Type)
	}
	if err := checkSecretFile(r.TokenFile); err != nil {
		return nil, err
	}
	client, err := o.HTTPClient(r)
	if err != nil {
		return nil, err
	}
	if r.Insecure {
		o.Log.Warn("certificates are not checked", "remote", r.Name)
	}
	for _, value := range r.Config { // whatever of it is an address is a place that somebody here chose
		if text, ok := value.(string); ok {
			backends.AddHome(client, text)
		}
	}
	r, secret := o.withLogin(r)
	b, err := typ.Open(ctx, backends.Env{
		Remote: r.Name,
		Type:   r.Type,
		HTTP:   client,
		Config: r.Config,
		Secret: secret,
		User:   r.User,
		Home:   o.Home,
		Cache:  o.metadata(r.Name),
		Getenv: o.Getenv, Helpers: helperEnv(o.Getenv, r.HelperEnv),
		Arch: r.Arch,
		Log:  o.Log.With("remote", r.Name),
	})
	if k, ok := b.(backends.Knocker); ok && err == nil {
		_, address := k.Knock()
		backends.AddHome(client, address)
	}
	return b, err
}
