// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The sregistry client (singularityhub/sregistry-cli) looks for NAME in the
// environment, then in the object of its backend in a JSON file. We read both
// and write neither.

// legacy says which of its backends become a remote of ours, and how.
var legacy = []struct {
	client string // its name for the backend, and our remote's
	typ    string // ours
	needs  string // the variable without which there is no remote; "" where being set up for it is enough
	url    string // the variable with the address; may be ""
	user   string
	token  string
}{
	{client: "dropbox", typ: "dropbox", needs: "SREGISTRY_DROPBOX_TOKEN", token: "SREGISTRY_DROPBOX_TOKEN"},
	{client: "registry", typ: "sregistry", needs: "SREGISTRY_REGISTRY_BASE", url: "SREGISTRY_REGISTRY_BASE",
		user: "SREGISTRY_REGISTRY_USERNAME", token: "SREGISTRY_REGISTRY_TOKEN"},
	{client: hub, typ: "hub"},
}

// hub is its name for Singularity Hub.
const hub = "hub"

// clientName reads the name of a backend as sregistry does.
func clientName(s string) string {
	if strings.Contains(strings.ToLower(s), "shub") {
		return hub
	}
	return s
}

// sregistrySettings is what its settings file says, by backend and name, and
// which backend it has active.
type sregistrySettings struct {
	values map[string]map[string]string
	active string
	path   string
}

// readSregistry reads the settings file. A missing one is as good as an empty one.
func readSregistry(in Inputs) (sregistrySettings, error) {
	s := sregistrySettings{values: map[string]map[string]string{}}
	path := in.Getenv("SREGISTRY_CLIENT_SECRETS")
	named := path != ""
	if !named {
		path = filepath.Join(in.Home, ".sregistry")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		if named {
			return s, fmt.Errorf("SREGISTRY_CLIENT_SECRETS: %w", err)
		}
		return s, nil
	}
	s.path = path
	var top map[string]any
	if err := json.Unmarshal(text, &top); err != nil {
		return s, fmt.Errorf("%s: %v", path, err)
	}
	s.active, _ = top["SREGISTRY_CLIENT"].(string)
	for client, v := range top {
		table, ok := v.(map[string]any)
		if !ok {
			continue
		}
		s.values[client] = map[string]string{}
		for name, value := range table {
			if text, ok := value.(string); ok {
				s.values[client][name] = text
			}
		}
	}
	return s, nil
}

// setUp says what sets sregistry up for a backend that needs no settings: that
// it is the active one, or has a table in the settings file; "" if nothing does.
func (s sregistrySettings) setUp(client string, in Inputs) string {
	_, table := s.values[client]
	switch {
	case clientName(in.Getenv("SREGISTRY_CLIENT")) == client:
		return "SREGISTRY_CLIENT"
	case table, clientName(s.active) == client:
		return s.path
	}
	return ""
}

// remotes returns a remote for each backend that sregistry is set up for.
func (s sregistrySettings) remotes(in Inputs) (all []Remote, notes []string) {
	for _, l := range legacy {
		get := func(name string) string {
			if v := in.Getenv(name); v != "" || name == "" {
				return v
			}
			return s.values[l.client][name]
		}
		origin := l.needs
		if l.needs == "" {
			origin = s.setUp(l.client, in)
		} else if get(l.needs) == "" {
			origin = ""
		}
		if origin == "" {
			continue
		}
		if !slices.Contains(in.Types, l.typ) {
			notes = append(notes, fmt.Sprintf("%s is set, but this release has no backend %q", origin, l.typ))
			continue
		}
		r := Remote{Name: l.client, Origin: origin, Guessed: true, URL: get(l.url), Config: map[string]any{}}
		r.Type, r.User, r.Token = l.typ, get(l.user), get(l.token)
		if r.URL != "" {
			r.Config["url"] = r.URL
		}
		all = append(all, r)
	}
	return all, notes
}
