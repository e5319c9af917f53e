// SPDX-License-Identifier: Apache-2.0

package gcstest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// discovery is what images need of Google's own description of the API, revision 20261009,
// less its texts: storage/v1/storage-api.json of the module google.golang.org/api v0.311.0.
//
//go:embed testdata/storage-api.json
var discovery []byte

// A description is a discovery document.
// https://developers.google.com/discovery/v1/reference/apis
type description struct {
	ServicePath string
	Parameters  map[string]parameter
	Resources   map[string]struct{ Methods map[string]method }
	Schemas     map[string]schema
}

type method struct {
	ID, HTTPMethod, Path string
	Parameters           map[string]parameter
	Request, Response    struct {
		Ref string `json:"$ref"`
	}
	SupportsMediaDownload bool
	MediaUpload           *struct {
		Protocols map[string]struct{ Path string }
	}
}

type parameter struct {
	Type, Format, Location string
	Required, Repeated     bool
	Enum                   []string
}

type schema struct {
	Ref                  string `json:"$ref"`
	Type, Format         string
	Properties           map[string]schema
	AdditionalProperties *schema
	Items                *schema
}

func describe(tb testing.TB) description {
	var d description
	if err := json.Unmarshal(discovery, &d); err != nil {
		tb.Fatal(err)
	}
	return d
}

// A call is a request that the description has.
type call struct {
	server *Server
	w      http.ResponseWriter
	r      *http.Request
	q      url.Values

	what     string            // see Hook
	read     func() error      // reads about, and finds media
	path     map[string]string // parameters in the path
	about    map[string]any    // the resource in the body
	response string            // the name of the answer's schema
	media    io.Reader         // what follows the resource in the body
}

// parse finds the method of a request, and how to read the body. What the method does not have
// is an error.
func (d description) parse(r *http.Request) (*call, error) {
	for _, resource := range d.Resources {
		for _, m := range resource.Methods {
			path := "/" + d.ServicePath + m.Path
			upload := m.MediaUpload != nil && strings.HasPrefix(r.URL.Path, "/upload/")
			if upload {
				path = m.MediaUpload.Protocols["simple"].Path
			}
			values, ok := match(path, strings.TrimPrefix(r.URL.EscapedPath(), "/download")) // a mediaLink's
			if session := upload && r.URL.Query().Has("upload_id"); ok && session {
				return &call{what: "session", path: values, response: m.Response.Ref, read: func() error { return nil }}, nil
			}
			if !ok || m.HTTPMethod != r.Method || (m.MediaUpload != nil) != upload {
				continue
			}
			c := &call{what: m.ID, path: values, response: m.Response.Ref}
			if m.SupportsMediaDownload && r.URL.Query().Get("alt") == "media" {
				c.what = "media"
			}
			if err := d.checkQuery(m, r); err != nil {
				return nil, err
			}
			c.read = func() error { return c.readBody(d, m, r) }
			return c, nil
		}
	}
	return nil, errors.New("no method of the API")
}

var variable = regexp.MustCompile(`\\\{(\w+)\\\}`)

// match takes the parameters out of a path.
func match(template, path string) (map[string]string, bool) {
	names := variable.FindAllStringSubmatch(regexp.QuoteMeta(template), -1)
	m := regexp.MustCompile("^" + variable.ReplaceAllString(regexp.QuoteMeta(template), "([^/]+)") + "$").FindStringSubmatch(path)
	if m == nil {
		return nil, false
	}
	values := map[string]string{}
	for i, name := range names {
		value, err := url.PathUnescape(m[i+1])
		if err != nil {
			return nil, false
		}
		values[name[1]] = value
	}
	return values, true
}

func (d description) checkQuery(m method, r *http.Request) error {
	for name, values := range r.URL.Query() {
		p, ok := m.Parameters[name]
		if !ok {
			p, ok = d.Parameters[name]
		}
		if !ok || p.Location != "query" || len(values) > 1 && !p.Repeated {
			return fmt.Errorf("%s has no parameter %s, or only one", m.ID, name)
		}
		for _, value := range values {
			if len(p.Enum) > 0 && name != "uploadType" && !slices.Contains(p.Enum, value) {
				return fmt.Errorf("%s=%s", name, value)
			}
			if _, err := strconv.ParseInt(value, 10, 64); err != nil && (p.Format == "int64" || p.Type == "integer") {
				return fmt.Errorf("%s=%s: %w", name, value, err)
			}
		}
	}
	return nil
}

// readBody reads the resource that the body is, or begins with.
func (c *call) readBody(d description, m method, r *http.Request) error {
	mediaType, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	body := io.Reader(r.Body)
	switch {
	case mediaType == "multipart/related" && r.URL.Query().Get("uploadType") == "multipart" && m.MediaUpload != nil:
		parts := multipart.NewReader(r.Body, params["boundary"])
		part, err := parts.NextRawPart()
		if err != nil {
			return err
		}
		text, err := io.ReadAll(part)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
		if c.media, err = parts.NextRawPart(); err != nil {
			return err
		}
	case m.MediaUpload != nil && r.URL.Query().Get("uploadType") != "resumable":
		return fmt.Errorf("uploadType and Content-Type %q", mediaType)
	case r.ContentLength == 0:
		return nil
	case mediaType != "application/json":
		return fmt.Errorf("Content-Type %q", mediaType)
	}
	if m.Request.Ref == "" {
		return fmt.Errorf("%s has no body", m.ID)
	}
	if err := json.NewDecoder(body).Decode(&c.about); err != nil {
		return err
	}
	return d.conforms(schema{Ref: m.Request.Ref}, c.about)
}

// check reports an answer that is none of the description's.
func (d description) check(tb testing.TB, name string, v map[string]any) {
	text, err := json.Marshal(v)
	var plain any
	if err == nil {
		err = json.Unmarshal(text, &plain)
	}
	if err == nil {
		err = d.conforms(schema{Ref: name}, plain)
	}
	if err != nil {
		tb.Errorf("gcstest: the answer %s: %v", text, err)
	}
}

// conforms reports whether a JSON value is of a schema.
func (d description) conforms(s schema, v any) error {
	if s.Ref != "" {
		var ok bool
		if s, ok = d.Schemas[s.Ref]; !ok {
			return fmt.Errorf("no schema %s", s.Ref)
		}
	}
	ok := true
	switch v := v.(type) {
	case map[string]any:
		ok = s.Type == "object"
		for name, value := range v {
			inner, known := s.Properties[name]
			if !known && s.AdditionalProperties != nil {
				inner, known = *s.AdditionalProperties, true
			}
			if !known {
				return fmt.Errorf("no property %s", name)
			}
			if err := d.conforms(inner, value); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	case []any:
		ok = s.Type == "array"
		for _, value := range v {
			if err := d.conforms(*s.Items, value); err != nil {
				return err
			}
		}
	case string:
		_, err := strconv.ParseUint(v, 10, 64)
		ok = s.Type == "string" && (err == nil || s.Format != "int64" && s.Format != "uint64")
	case bool:
		ok = s.Type == "boolean"
	case float64:
		ok = s.Type == "integer" || s.Type == "number"
	}
	if !ok {
		return fmt.Errorf("%v is no %s", v, s.Type)
	}
	return nil
}

// choose returns the fields of v that a request wants: "a,b(c,d)".
// https://cloud.google.com/storage/docs/json_api#partial-response
func choose(v map[string]any, fields string) (map[string]any, error) {
	chosen, rest, err := chooseSome(v, fields)
	if err == nil && rest != "" {
		err = fmt.Errorf("what is %q", rest)
	}
	return chosen, err
}

var field = regexp.MustCompile(`^\w+`)

func chooseSome(v map[string]any, fields string) (chosen map[string]any, rest string, err error) {
	chosen = map[string]any{}
	for {
		name := field.FindString(fields)
		if name == "" {
			return nil, fields, fmt.Errorf("no name at %q", fields)
		}
		value, ok := v[name]
		if fields = fields[len(name):]; strings.HasPrefix(fields, "(") {
			items, _ := value.([]map[string]any)
			some := make([]map[string]any, 0, len(items))
			end := fields
			for _, item := range append(slices.Clone(items), map[string]any{}) {
				var inner map[string]any
				if inner, end, err = chooseSome(item, fields[1:]); err != nil || !strings.HasPrefix(end, ")") {
					return nil, end, fmt.Errorf("no end of %s: %w", name, err)
				}
				some = append(some, inner)
			}
			value, fields = some[:len(items)], end[1:]
		}
		if ok {
			maps.Copy(chosen, map[string]any{name: value})
		}
		if !strings.HasPrefix(fields, ",") {
			return chosen, fields, nil
		}
		fields = fields[1:]
	}
}
