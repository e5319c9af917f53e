// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// The sregistry client (singularityhub/sregistry-cli) looks for NAME in the
// environment, then in the object of its backend in a JSON file. We read both
// and write neither.

// legacy says which of its backends become a remote of ours, and how.
var legacy = []struct {
	client string // its name for the backend, and our remote's
	typ    string // ours
	needs  string // the variable without which there is no remote
	url    string // the variable with the address; may be ""
	user   string
	token  string
}{
	{client: "dropbox", typ: "dropbox", needs: "SREGISTRY_DROPBOX_TOKEN", token: "SREGISTRY_DROPBOX_TOKEN"},
	{client: "registry", typ: "sregistry", needs: "SREGISTRY_REGISTRY_BASE", url: "SREGISTRY_REGISTRY_BASE",
		user: "SREGISTRY_REGISTRY_USERNAME", token: "SREGISTRY_REGISTRY_TOKEN"},
}

// sregistrySettings is what its settings file says, by backend and name, and
// which backend it has active.
type sregistrySettings struct {
	values map[string]map[string]string
	active string
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
	var top map[string]any
	if err := json.Unmarshal(text, &top); err != nil {
		return s, fmt.Errorf("%s: %v", path, err)
	}
	s.active, _ = top["SREGISTRY_CLIENT"].(string)
	for client, v := range top {
		table, _ := v.(map[string]any)
		s.values[client] = map[string]string{}
		for name, value := range table {
			if text, ok := value.(string); ok {
				s.values[client][name] = text
			}
		}
	}
	return s, nil
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
		if get(l.needs) == "" {
			continue
		}
		if !slices.Contains(in.Types, l.typ) {
			notes = append(notes, fmt.Sprintf("%s is set, but this release has no backend %q", l.needs, l.typ))
			continue
		}
		r := Remote{Name: l.client, Origin: l.needs, Guessed: true, URL: get(l.url), Config: map[string]any{}}
		r.Type, r.User, r.Token = l.typ, get(l.user), get(l.token)
		if r.URL != "" {
			r.Config["url"] = r.URL
		}
		all = append(all, r)
	}
	return all, notes
}
