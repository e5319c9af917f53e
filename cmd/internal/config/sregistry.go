// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/all"
)

// The sregistry client (singularityhub/sregistry-cli) looks for NAME in the
// environment, then in the object of its backend in a JSON file. We read both;
// ChangeSregistry writes the file, as "sreg backend" is told to.

// clientName reads the name of a backend as sregistry does.
func clientName(s string) string {
	for _, c := range all.SregistryClients {
		if c.Alias != "" && strings.Contains(strings.ToLower(s), c.Alias) {
			return c.Name
		}
	}
	return s
}

// sregistrySettings is what its settings file says, by backend and name, and
// which backend it has active.
type sregistrySettings struct {
	values map[string]map[string]string
	active string
	path   string

	warning string // about the file; "" if there is nothing to say
}

// CheckOwner refuses a file that belongs neither to this user nor to root.
func CheckOwner(path string, info fs.FileInfo) error { return checkOwner(path, info, os.Geteuid()) }

// checkLegacy refuses a file with secrets and addresses that somebody else could have
// written, and returns a warning where others can read it: sregistry itself writes
// it so.
func checkLegacy(path string) (warning string, err error) {
	info, err := os.Stat(path)
	if err == nil {
		err = checkOwner(path, info, os.Geteuid())
	}
	if err != nil {
		return "", err
	}
	switch mode, others := info.Mode().Perm(), foreign(info); {
	case others&0o002 != 0:
		return "", fmt.Errorf("%s can be written by everybody (mode %#o): chmod 600 it", path, mode)
	case others != 0:
		return fmt.Sprintf("%s can be read by others (mode %#o), and may hold passwords: chmod 600 it", path, mode), nil
	}
	return "", nil
}

// readSregistry reads the settings file. A missing one is as good as an empty one: the
// client makes it when it first has something to write.
func readSregistry(in Inputs) (sregistrySettings, error) {
	s := sregistrySettings{values: map[string]map[string]string{}}
	path, named := SregistryFile(in), in.Getenv("SREGISTRY_CLIENT_SECRETS") != ""
	text, err := backends.ReadRegular(path, 0, maxFile)
	switch {
	case err != nil && named && !errors.Is(err, fs.ErrNotExist):
		return s, fmt.Errorf("SREGISTRY_CLIENT_SECRETS: %w", err)
	case err != nil:
		return s, nil
	}
	if s.warning, err = checkLegacy(path); err != nil {
		return s, err
	}
	s.path = path
	top, err := parseSregistry(path, text)
	if err != nil {
		return s, err
	}
	s.active, _ = top[Active].(string)
	for client, v := range top {
		table, ok := v.(map[string]any)
		if !ok {
			continue
		}
		s.values[client] = map[string]string{}
		for name, value := range table {
			switch value := value.(type) {
			case string:
				s.values[client][name] = value
			case map[string]any: // what Globus has answered to a login
				if text, err := json.Marshal(value); err == nil {
					s.values[client][name] = string(text)
				}
			}
		}
	}
	return s, nil
}

// setUp says what sets sregistry up for a backend without any of its variables:
// that it is the active one, or with table has a table in the settings file; ""
// if nothing does.
func (s sregistrySettings) setUp(client string, table bool, in Inputs) string {
	_, has := s.values[client]
	switch {
	case clientName(in.Getenv("SREGISTRY_CLIENT")) == client:
		return "SREGISTRY_CLIENT"
	case table && has, clientName(s.active) == client:
		return s.path
	}
	return ""
}

// remotes returns a remote for each backend that sregistry is set up for.
func (s sregistrySettings) remotes(in Inputs) (found []Remote) {
	for _, l := range all.SregistryClients {
		get := func(names string) string { _, value := s.first(in, l.Name, names); return value }
		origin, _ := s.first(in, l.Name, l.Needs)
		if origin != strings.ToUpper(origin) {
			origin = s.path
		}
		if origin == "" && l.Alone {
			origin = s.setUp(l.Name, l.Table, in)
		}
		if origin == "" {
			continue
		}
		r := Remote{Name: l.Name, Origin: origin, Guessed: true, Config: map[string]any{}}
		r.URL = address(get(l.URL), l.OwnScheme, get(l.HTTP))
		r.Type, r.User, r.Token = l.Type, get(l.User), get(l.Token)
		r.Insecure = !l.Verified && isTrue(in.Getenv("SREGISTRY_HTTPS_NOVERIFY"))
		if r.URL != "" {
			r.Config["url"] = r.URL
		}
		for key, value := range l.Fixed {
			r.Config[key] = value
		}
		for key, name := range l.Config {
			if value := get(name); value != "" {
				r.Config[key] = value
			}
		}
		found = append(found, r)
	}
	return found
}

// first returns the first of several variables that is set for a client, in the
// environment or else in the file.
func (s sregistrySettings) first(in Inputs, client, names string) (name, value string) {
	for name := range strings.FieldsSeq(names) {
		if v := in.Getenv(name); v != "" && name == strings.ToUpper(name) {
			return name, v
		}
		if v := s.values[client][name]; v != "" {
			return name, v
		}
	}
	return "", ""
}

// address makes of an address as sregistry's clients of registries take it, with
// or without a scheme and with the version of the API, one as we do. noHTTPS is the
// switch for those without a scheme, see all.SregistryClient.OwnScheme.
func address(base string, ownScheme bool, noHTTPS string) string {
	if base == "" {
		return ""
	}
	base = strings.TrimSuffix(strings.TrimRight(base, "/"), "/v2")
	scheme, host, ok := strings.Cut(base, "://")
	switch {
	case ownScheme && ok:
	case ownScheme && noHTTPS != "":
		return "http://" + base
	case !ok:
		scheme, host = "https", base
	}
	if !ownScheme && isTrue(noHTTPS) {
		scheme = "http"
	}
	return scheme + "://" + host
}

// isTrue reads a switch as sregistry does.
func isTrue(text string) bool {
	return slices.Contains([]string{"yes", "true", "t", "1", "y"}, strings.ToLower(text))
}
