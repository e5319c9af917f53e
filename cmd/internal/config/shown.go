// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Row is one setting as it is shown to a person: without a secret.
type Row struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Origin string `json:"origin"` // where it is said: "file:line", "SREGFS_PUSH", "--push", "default"
}

// Shown returns all settings that were loaded, and those of every remote.
func Shown(s *Settings) []Row {
	var all []Row
	values := s.Values()
	for _, key := range slices.Sorted(maps.Keys(values)) {
		all = append(all, Row{key, values[key], s.Origins[key]})
	}
	for _, r := range s.Remotes {
		table := r.table()
		for _, key := range slices.Sorted(maps.Keys(table)) {
			all = append(all, Row{"remotes." + r.Name + "." + key, redacted(key, table[key]), cmp.Or(r.Origins[key], r.Origin)})
		}
	}
	return all
}

// table returns the keys of a remote that have a value.
func (r *Remote) table() map[string]any {
	t := maps.Clone(r.Config)
	if t == nil {
		t = map[string]any{}
	}
	c := r.Common
	for key, text := range map[string]string{
		"type": c.Type, "token": c.Token, "token_file": c.TokenFile, "token_env": c.TokenEnv, "token_command": c.TokenCommand,
		"user": c.User, "push": c.Push, "arch": c.Arch, "ca_file": c.CAFile, "client_cert": c.ClientCert, "client_key": c.ClientKey,
	} {
		if text != "" {
			t[key] = text
		}
	}
	for key, on := range map[string]bool{"read_only": c.ReadOnly, "insecure": c.Insecure, "allow_private": c.AllowPrivate, "plain_login": c.PlainLogin} {
		if on {
			t[key] = true
		}
	}
	for key, on := range map[string]*bool{"allow_overwrite": c.AllowOverwrite, "allow_delete": c.AllowDelete} {
		if on != nil {
			t[key] = *on
		}
	}
	if c.HelperEnv != nil {
		t["helper_env"] = c.HelperEnv
	}
	if c.Timeout != 0 {
		t["timeout"] = time.Duration(c.Timeout).String()
	}
	if c.MinRate != 0 {
		t["min_rate"] = c.MinRate.String()
	}
	return t
}

// Redacted stands for a secret.
const Redacted = "(not shown)"

// redacted is the value of a key without what may be a secret: of a command only the
// program, of an address no password.
func redacted(key string, value any) any {
	text, ok := value.(string)
	switch {
	case secretKey(key) || strings.Contains(key, "secret"):
		return Redacted
	case !ok:
		return value
	case key == "token_command":
		if program, _, more := strings.Cut(text, " "); more {
			return program + " " + Redacted
		}
	case strings.Contains(text, "@"):
		if u, err := url.Parse(text); err == nil && u.User != nil {
			return u.Redacted()
		}
	}
	return value
}
