// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/sregfs/sregfs/backends"
)

// A credentials file can have logins for parts of a registry: "HOST/team" is for the
// repositories at and below team, and the longest that fits counts
// (containers-auth.json(5)). Such a part, without the host, is the scope of a login;
// "" is that of the login for the whole registry.

type scopeKey struct{}

// withScope says in ctx which login a request is for.
func withScope(ctx context.Context, scope string) context.Context {
	return context.WithValue(ctx, scopeKey{}, scope)
}

func scopeFrom(ctx context.Context) string {
	scope, _ := ctx.Value(scopeKey{}).(string)
	return scope
}

// scope returns that of the login for a repository.
func (l *login) scope(repo string) string {
	if l.secret != nil || repo == "" {
		return ""
	}
	l.mu.Lock()
	l.age()
	scopes := l.scopes
	l.mu.Unlock()
	if scopes == nil {
		scopes = l.readScopes()
	}
	longest := ""
	for _, scope := range scopes {
		if (repo == scope || strings.HasPrefix(repo, scope+"/")) && len(scope) > len(longest) {
			longest = scope
		}
	}
	return longest
}

func (l *login) readScopes() []string {
	scopes := []string{}
	for _, file := range l.files {
		names, _ := readNames(file) // stored says what is wrong with it
		for _, name := range names.all {
			if scope, ok := scopeIn(name, shortName(l.host)); ok && scope != "" {
				scopes = append(scopes, scope)
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.scopes = scopes
	return scopes
}

// shortName returns what files call a host that has parts: for Docker Hub Podman's name.
func shortName(host string) string {
	if host == dockerHub {
		return "docker.io"
	}
	return host
}

// fileNames are what a credentials file has logins or helpers for, in order.
type fileNames struct {
	all     []string
	helpers map[string]string // by name: a program that is asked
	store   string            // the program that is asked for whatever has none of its own
}

// maxCredentials is how large a credentials file may be, in bytes.
const maxCredentials = 4 << 20

// readNames leaves it to oras-go to say what is wrong with the text of a file.
//
// Errors: those of backends.ReadRegular.
func readNames(file string) (fileNames, error) {
	var content struct {
		Auths       map[string]json.RawMessage `json:"auths"`
		CredHelpers map[string]string          `json:"credHelpers"`
		CredsStore  string                     `json:"credsStore"`
	}
	text, err := backends.ReadRegular(file, 0, maxCredentials)
	if err != nil || json.Unmarshal(text, &content) != nil {
		return fileNames{}, err
	}
	all := slices.Concat(slices.Collect(maps.Keys(content.Auths)), slices.Collect(maps.Keys(content.CredHelpers)))
	slices.Sort(all)
	return fileNames{slices.Compact(all), content.CredHelpers, content.CredsStore}, nil
}

// of returns under which names to look for the login of a scope of a host.
//
// oras-go takes any name that begins with the host where there is none for the
// host itself, one of several by chance: that of another part must not be among them.
func (n fileNames) of(host, scope string) []string {
	names := slices.DeleteFunc(slices.Clone(n.all), func(name string) bool {
		in, ok := scopeIn(name, host)
		return !ok || in != scope
	})
	if scope == "" && n.store != "" && !slices.Contains(names, host) {
		names = append(names, host) // the store may know what the file does not list
	}
	// What is written as it is now goes before what old programs wrote.
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(strings.Count(a, "://"), strings.Count(b, "://")) })
	return names
}

// scopeIn returns the scope that a name in a credentials file stands for, if it is of
// that host. Old programs wrote "https://HOST/v1/" for the whole host.
func scopeIn(name, host string) (scope string, ok bool) {
	scheme, rest, hasScheme := strings.Cut(name, "://")
	if !hasScheme {
		rest = name
	} else if scheme != "https" && scheme != "http" {
		return "", false
	}
	rest, ok = strings.CutPrefix(strings.TrimRight(rest, "/")+"/", host+"/")
	scope = strings.TrimSuffix(rest, "/")
	if hasScheme && (scope == "v1" || scope == "v2") {
		scope = ""
	}
	return scope, ok
}

// stored returns what a file, or the program that it names, has for the scope of a
// host; an empty credential if nothing.
func (l *login) stored(ctx context.Context, file, scope string) (auth.Credential, error) {
	names, err := readNames(file)
	if errors.Is(err, fs.ErrNotExist) && !l.configured {
		return auth.EmptyCredential, nil
	}
	if err != nil {
		return auth.EmptyCredential, err
	}
	store, err := credentials.NewFileStore(file)
	if err != nil {
		return auth.EmptyCredential, err
	}
	var ask []string
	switch server := credentials.ServerAddressFromHostname(l.host); {
	case scope != "":
		ask = names.of(shortName(l.host), scope)
	case server != l.host: // Docker Hub: Docker's own name, and Podman's
		ask = append([]string{server}, names.of(shortName(l.host), "")...)
	default:
		ask = names.of(l.host, "")
	}
	for _, name := range ask {
		get := store.Get
		if helper := cmp.Or(names.helpers[name], names.store); helper != "" {
			get = func(ctx context.Context, server string) (auth.Credential, error) {
				return l.askHelper(ctx, helper, server)
			}
		}
		if cred, err := get(ctx, name); err != nil || cred != auth.EmptyCredential {
			return cred, err
		}
	}
	return auth.EmptyCredential, nil
}
