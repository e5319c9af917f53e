// SPDX-License-Identifier: Apache-2.0

package drivetest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The description of the API that Google gives, as far as it is used here: where it is from
// says testdata/README.md.
//
//go:embed testdata/drive-api.json
var discovery []byte

// An api is a description (https://developers.google.com/discovery/v1/reference/apis).
type api struct {
	Revision    string
	ServicePath string
	Parameters  map[string]parameter
	Resources   map[string]struct{ Methods map[string]method }
	Schemas     map[string]schema
}

type method struct {
	ID          string
	HTTPMethod  string
	Path        string
	Parameters  map[string]parameter
	Request     *schema
	Response    *schema
	MediaUpload *struct {
		Protocols map[string]struct{ Path string }
	}
	SupportsMediaDownload bool

	path   *regexp.Regexp
	upload bool // by way of Protocols["simple"], which is that of a session too
}

type parameter struct {
	Type             string
	Format           string
	Enum             []string
	Minimum, Maximum string
	Required         bool
	Location         string
}

type schema struct {
	Ref                  string `json:"$ref"`
	Type                 string
	Items                *schema
	Properties           map[string]schema
	AdditionalProperties *schema
}

func load() *api {
	a := &api{}
	if err := json.Unmarshal(discovery, a); err != nil {
		panic(err) // a file of ours
	}
	return a
}

var variable = regexp.MustCompile(`\{(\w+)\}`)

// methods returns all of them with the paths that they are at.
func (a *api) methods() (found []method) {
	compile := func(path string) *regexp.Regexp {
		return regexp.MustCompile("^" + variable.ReplaceAllString(path, "(?P<$1>[^/]+)") + "$")
	}
	for _, r := range a.Resources {
		for _, m := range r.Methods {
			m.path = compile("/" + a.ServicePath + m.Path)
			found = append(found, m)
			if m.MediaUpload != nil {
				m.upload, m.path = true, compile(m.MediaUpload.Protocols["simple"].Path)
				found = append(found, m)
			}
		}
	}
	return found
}

// find returns the method of a request and the variables in its path.
func (s *Server) find(httpMethod, path string) (method, map[string]string, bool) {
	for _, m := range s.methods {
		match := m.path.FindStringSubmatch(path)
		if match == nil || m.HTTPMethod != httpMethod {
			continue
		}
		vars := map[string]string{}
		for i, name := range m.path.SubexpNames() {
			if name != "" {
				vars[name] = match[i]
			}
		}
		return m, vars, true
	}
	return method{}, nil, false
}

// checkQuery compares the parameters of a request with what the method takes.
func (a *api) checkQuery(m method, query url.Values) error {
	for name, values := range query {
		p, ok := m.Parameters[name]
		if !ok || p.Location != "query" {
			p, ok = a.Parameters[name]
		}
		if !ok || p.Location != "query" {
			return fmt.Errorf("%s has no parameter %q", m.ID, name)
		}
		for _, value := range values {
			if err := p.check(value); err != nil {
				return fmt.Errorf("%s: %s: %w", m.ID, name, err)
			}
		}
	}
	for name, p := range m.Parameters {
		if p.Required && p.Location == "query" && !query.Has(name) {
			return fmt.Errorf("%s needs %s", m.ID, name)
		}
	}
	return nil
}

func (p parameter) check(value string) error {
	if len(p.Enum) > 0 && !slices.Contains(p.Enum, value) {
		return fmt.Errorf("%q is none of %q", value, p.Enum)
	}
	switch p.Type {
	case "boolean":
		if value != "true" && value != "false" {
			return fmt.Errorf("%q is neither true nor false", value)
		}
	case "integer":
		n, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		if least, err := strconv.Atoi(p.Minimum); err == nil && n < least {
			return fmt.Errorf("%d is less than %d", n, least)
		}
		if most, err := strconv.Atoi(p.Maximum); err == nil && n > most {
			return fmt.Errorf("%d is more than %d", n, most)
		}
	}
	return nil
}

// check compares a body with a schema.
func (a *api) check(s schema, v any, at string) error {
	if s.Ref != "" {
		s = a.Schemas[s.Ref]
	}
	if v == nil {
		return nil
	}
	want := map[string]string{"object": "map[string]interface {}", "array": "[]interface {}", "string": "string", "boolean": "bool", "integer": "float64", "number": "float64"}[s.Type]
	if got := fmt.Sprintf("%T", v); want != "" && got != want {
		return fmt.Errorf("%s is a %s, want %s", at, got, s.Type)
	}
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			inner, ok := s.Properties[key]
			if !ok && s.AdditionalProperties != nil {
				inner, ok = *s.AdditionalProperties, true
			}
			if !ok {
				return fmt.Errorf("%s has no field %q", at, key)
			}
			if err := a.check(inner, value, at+"."+key); err != nil {
				return err
			}
		}
	case []any:
		for _, value := range v {
			if s.Items == nil {
				return fmt.Errorf("%s is no array", at)
			}
			if err := a.check(*s.Items, value, at+"[]"); err != nil {
				return err
			}
		}
	}
	return nil
}

// choose leaves of an answer what fields names: "kind,files(id,name),about/user".
func (a *api) choose(s schema, v any, fields string) (any, error) {
	if s.Ref != "" {
		s = a.Schemas[s.Ref]
	}
	if list, ok := v.([]any); ok && s.Items != nil {
		out := []any{}
		for _, item := range list {
			chosen, err := a.choose(*s.Items, item, fields)
			if err != nil {
				return nil, err
			}
			out = append(out, chosen)
		}
		return out, nil
	}
	if s.Items != nil { // checked even where there is nothing
		s = *s.Items
		if s.Ref != "" {
			s = a.Schemas[s.Ref]
		}
	}
	object, _ := v.(map[string]any)
	out := map[string]any{}
	for _, field := range split(fields) {
		name, inner := field, ""
		if i := strings.IndexAny(field, "(/"); i >= 0 {
			name, inner = field[:i], strings.TrimSuffix(strings.TrimPrefix(field[i:], "("), ")")
			inner = strings.TrimPrefix(inner, "/")
		}
		below, ok := s.Properties[name]
		if !ok {
			return nil, fmt.Errorf("no field %q", name)
		}
		value, there := object[name]
		if inner != "" {
			chosen, err := a.choose(below, value, inner)
			if err != nil {
				return nil, err
			}
			value = chosen
		}
		if there {
			out[name] = value
		}
	}
	if v == nil {
		return nil, nil //nolint:nilnil // nothing of nothing
	}
	return out, nil
}

// split cuts at commas that are in no parentheses.
func split(fields string) (all []string) {
	depth, from := 0, 0
	for i, r := range fields {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				all = append(all, fields[from:i])
				from = i + 1
			}
		}
	}
	return append(all, fields[from:])
}
