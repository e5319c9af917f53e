// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/all"
)

// Local is the name of the remote that is always there.
const Local = "local"

// A Remote is one configured registry.
type Remote struct {
	Name   string
	Common        // the keys that remotes of all types share
	URL    string // for display; also in Config
	Config map[string]any
	Origin string // for messages: "config.toml:12", "--remote", "SREGISTRY_DROPBOX_TOKEN"
	// Origins is where the keys are that files have said: "config.toml:13".
	Origins map[string]string
	// Guessed says that nobody asked for this remote by name: a mistake in it is
	// shown where it appears, and does not keep the program from starting.
	Guessed bool
	// ByHost says that no configuration names it: its name is that of its host.
	ByHost bool
}

// Common is the keys that remotes of all types share.
type Common struct {
	Type string `toml:"type"`

	Token        string   `toml:"token"`         // also a password
	TokenFile    string   `toml:"token_file"`    // read at each login
	TokenEnv     string   `toml:"token_env"`     // name of a variable
	TokenCommand string   `toml:"token_command"` // for sh -c; prints it
	HelperEnv    []string `toml:"helper_env"`    // names of variables for it, besides the usual
	User         string   `toml:"user"`

	ReadOnly       bool     `toml:"read_only"`
	AllowOverwrite *bool    `toml:"allow_overwrite"` // nil: the general setting decides
	AllowDelete    *bool    `toml:"allow_delete"`
	Push           string   `toml:"push"` // "sync", "async", or "": the general setting
	Arch           string   `toml:"arch"`
	CAFile         string   `toml:"ca_file"`
	ClientCert     string   `toml:"client_cert"` // PEM; may hold the key too
	ClientKey      string   `toml:"client_key"`  // read for each connection, with ClientCert
	Insecure       bool     `toml:"insecure"`
	AllowPrivate   bool     `toml:"allow_private"`
	PlainLogin     bool     `toml:"plain_login"`
	Timeout        Duration `toml:"timeout"`  // of one operation with its retries
	MinRate        Size     `toml:"min_rate"` // bytes a second; 0 means the usual
}

// CommonKeys lists the keys of Common.
func CommonKeys() []string {
	return []string{"type", "token", "token_file", "token_env", "token_command", "user", "read_only", "allow_overwrite",
		"allow_delete", "push", "arch", "ca_file", "client_cert", "client_key", "insecure", "allow_private", "plain_login", "helper_env", "timeout", "min_rate", "url"}
}

// IsFileKey reports whether the value of a key of Common is the name of a file.
func IsFileKey(key string) bool {
	return slices.Contains([]string{"token_file", "ca_file", "client_cert", "client_key"}, key)
}

// A Duration is written "90s" or "5m".
type Duration time.Duration

// maxDuration is beyond what anybody means: he has mistaken the unit.
const maxDuration = 366 * 24 * time.Hour

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error { return d.Set(string(text)) }

// Set implements pflag.Value.
func (d *Duration) Set(text string) error {
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 || v > maxDuration {
		return fmt.Errorf("%q is no duration from 0s to %dh (write 90s, 5m)", text, maxDuration/time.Hour)
	}
	*d = Duration(v)
	return nil
}

// String implements pflag.Value.
func (d *Duration) String() string { return time.Duration(*d).String() }

// Type implements pflag.Value.
func (d *Duration) Type() string { return "duration" }

// At returns where the key is that an error is about, or else origin.
func (r *Remote) At(err error, origin string) string {
	if e, ok := errors.AsType[*backends.SettingError](err); ok {
		return cmp.Or(r.Origins[e.Key], origin)
	}
	return origin
}

// newRemote splits a table into what all remotes share and what belongs to the
// backend. The error does not say where the table was.
func newRemote(name string, table map[string]any) (Remote, error) {
	r := Remote{Name: name, Config: map[string]any{}}
	if err := backends.CheckRemoteName(name); err != nil {
		return r, err
	}
	shared := map[string]any{}
	for key, value := range table {
		if key != "url" && slices.Contains(CommonKeys(), key) {
			shared[key] = value
		} else {
			r.Config[key] = value
		}
	}
	if err := backends.DecodeTable(shared, &r.Common); err != nil {
		return r, err
	}
	r.URL, _ = table["url"].(string)
	return r, r.check()
}

func (r *Remote) check() error {
	types := all.Names()
	if r.Name == Local && r.Type == "" {
		r.Type = localType()
	}
	switch {
	case r.Type == "":
		return fmt.Errorf("type is missing (known: %s)", strings.Join(types, ", "))
	case !slices.Contains(types, r.Type):
		return fmt.Errorf("unknown type %q%s", r.Type, backends.DidYouMean(r.Type, types))
	case r.Name == Local && r.Type != localType():
		return fmt.Errorf("%q is always of type %q; give this remote another name", Local, localType())
	case !slices.Contains([]string{"", "sync", "async"}, r.Push):
		return fmt.Errorf("push is %q, not \"sync\" or \"async\"", r.Push)
	}
	sources := 0
	for _, s := range []string{r.Token, r.TokenFile, r.TokenEnv, r.TokenCommand} {
		if s != "" {
			sources++
		}
	}
	if sources > 1 {
		return errors.New("more than one of token, token_file, token_env and token_command")
	}
	return nil
}

// Host returns the host and port that url names, "" if there is none.
func (r *Remote) Host() string {
	address := r.URL
	if address != "" && !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}

// expand makes the file names in r absolute; relative ones are below dir.
func (r *Remote) expand(home, dir string) {
	for _, p := range []*string{&r.TokenFile, &r.CAFile, &r.ClientCert, &r.ClientKey} {
		*p = expand(*p, home, dir)
	}
	if path, ok := r.Config["path"].(string); ok && r.Type == localType() {
		r.Config["path"] = expand(path, home, dir)
	}
}

// parseRemoteFlag reads "NAME=TYPE[,key=value…]". A value is a string unless it
// reads true, false, a number, or stands in brackets or quotes, as in the file.
func parseRemoteFlag(spec string) (Remote, error) {
	parts := splitOutsideQuotes(spec, ',')
	name, typ, ok := strings.Cut(parts[0], "=")
	if !ok {
		return Remote{}, fmt.Errorf("%q is not NAME=TYPE[,key=value…]", spec)
	}
	table := map[string]any{"type": typ}
	for _, part := range parts[1:] {
		key, value, ok := strings.Cut(part, "=")
		if !ok {
			return Remote{}, fmt.Errorf("%s: %q is not key=value", name, part)
		}
		if secretKey(key) {
			return Remote{}, fmt.Errorf("%s: %s", name, secretAdvice(key))
		}
		table[key] = flagValue(value)
	}
	r, err := newRemote(name, table)
	if err != nil {
		return Remote{}, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

func flagValue(text string) any {
	switch {
	case text == "true" || text == "false":
		return text == "true"
	case strings.HasPrefix(text, "[") || strings.HasPrefix(text, `"`):
		var v struct{ V any }
		if toml.Unmarshal([]byte("V = "+text), &v) == nil {
			return v.V
		}
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	return text
}

// splitOutsideQuotes splits s at sep, but not within "…" or […].
func splitOutsideQuotes(s string, sep byte) []string {
	var parts []string
	quoted, depth, start := false, 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == sep && depth <= 0:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// sorted returns the remotes in the order of their names.
func sorted(remotes map[string]Remote) []Remote {
	var all []Remote
	for _, name := range slices.Sorted(maps.Keys(remotes)) {
		all = append(all, remotes[name])
	}
	return all
}
