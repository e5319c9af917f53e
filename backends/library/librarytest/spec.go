// SPDX-License-Identifier: Apache-2.0

package librarytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// What the library accepts and answers, as far as it is written down:
//
//   - api/server/openapi.yml of github.com/sylabs/scs-library-client at commit
//     09eedd3a6bd4df8ce3155836acf5a22a95d89273 (2026-03-09), for version 1;
//   - in the same tree client/request.go, response.go, models.go, api.go, push.go,
//     pull.go, delete.go and oci.go, where openapi.yml is silent: the "arch" of
//     images, version 2 of uploads and tags, redirects, oci-redirect.
//
// The table was made from these and not from what backends/library sends.

// A field says of which JSON type one is: "string", "integer", "boolean", "strings"
// (an array of them), "map" (of strings), "maps" (of maps), "object", "objects".
type fields map[string]string

// definitions are those of openapi.yml, with the fields that only
// client/models.go has.
var definitions = map[string]struct {
	fields   fields
	required []string
}{
	"entity": {fields{
		"id": "string", "name": "string", "createdAt": "string", "updatedAt": "string", "owner": "string", "defaultPrivate": "boolean",
		"collections": "strings", "description": "string", "deleted": "boolean",
	}, []string{"name"}},
	"collection": {fields{
		"id": "string", "name": "string", "entity": "string", "entityName": "string", "containers": "strings",
		"description": "string", "private": "boolean", "deleted": "boolean",
	}, []string{"name"}},
	"container": {fields{
		"id": "string", "name": "string", "description": "string", "collection": "string", "collectionName": "string",
		"entity": "string", "entityName": "string", "images": "strings", "archTags": "maps", "imageTags": "map", "size": "integer",
		"createdAt": "string", "updatedAt": "string", "deleted": "boolean", "downloadCount": "integer",
	}, []string{"name"}},
	"image": {fields{
		"id": "string", "hash": "string", "description": "string", "container": "string", "containerName": "string",
		"collection": "string", "collectionName": "string", "entity": "string", "entityName": "string", "size": "integer",
		"uploaded": "boolean", "signed": "boolean", "encrypted": "boolean", "arch": "string", "tags": "strings", "deleted": "boolean",
		"fingerprints": "strings", "createdAt": "string",
	}, []string{"id"}},
	"newImage":   {fields{"hash": "string", "container": "string", "description": "string"}, []string{"hash", "container"}},
	"tag":        {fields{"Tag": "string", "ImageID": "string"}, []string{"Tag", "ImageID"}},
	"archTag":    {fields{"Arch": "string", "Tag": "string", "ImageID": "string"}, []string{"Arch", "Tag", "ImageID"}},
	"version":    {fields{"version": "string", "apiVersion": "string"}, []string{"apiVersion"}},
	"search":     {fields{"entity": "objects", "collection": "objects", "container": "objects", "image": "objects"}, nil},
	"error":      {fields{"code": "integer", "message": "string"}, []string{"code", "message"}},
	"upload":     {fields{"filesize": "integer", "md5sum": "string", "sha256sum": "string"}, []string{"filesize"}},
	"uploadURL":  {fields{"uploadURL": "string"}, []string{"uploadURL"}},
	"empty":      {fields{}, nil},
	"start":      {fields{"filesize": "integer"}, []string{"filesize"}},
	"started":    {fields{"uploadID": "string", "totalParts": "integer", "partSize": "integer", "options": "map"}, []string{"uploadID", "totalParts", "partSize"}},
	"part":       {fields{"partSize": "integer", "uploadID": "string", "partNumber": "integer", "sha256sum": "string"}, []string{"partSize", "uploadID", "partNumber"}},
	"partURL":    {fields{"presignedURL": "string"}, []string{"presignedURL"}},
	"finish":     {fields{"uploadID": "string", "completedParts": "objects"}, []string{"uploadID", "completedParts"}},
	"abort":      {fields{"uploadID": "string"}, []string{"uploadID"}},
	"finished":   {fields{"quota": "object", "containerUrl": "string"}, nil},
	"ociAddress": {fields{"token": "string", "url": "string", "name": "string"}, []string{"url"}},
}

// An operation is one of a path.
type operation struct {
	method, path string   // {ref} stands for any number of parts, {id} for one
	query        []string // the parameters that there are; a required one begins with "!"
	body         string   // a definition; "file" is an image, "" none
	statuses     []int    // of the answers that there are
	answer       string   // the definition of "data", "[]" before it for an array; "file", "map", "maps", "" anything; "=" before it without "data"
}

// operations: the statuses are those of openapi.yml. A 400 of what it has none for
// is what client/restclient.go makes of any other answer.
var operations = []operation{
	{"GET", "/version", nil, "", []int{200, 404}, "version"},
	{"GET", "/assets/config/config.prod.json", nil, "", []int{404}, ""}, // of endpoints only: SingularityCE, endpoint/service.go
	{"GET", "/v1/entities", nil, "", []int{200, 401, 500}, "[]entity"},
	{"POST", "/v1/entities", nil, "entity", []int{200, 201, 400, 401, 403, 500}, "entity"},
	{"GET", "/v1/entities/{ref}", nil, "", []int{200, 401, 403, 404, 500}, "entity"},
	{"POST", "/v1/collections", nil, "collection", []int{200, 201, 400, 401, 403, 500}, "collection"},
	{"GET", "/v1/collections/{ref}", nil, "", []int{200, 401, 403, 404, 500}, "collection"},
	{"POST", "/v1/containers", nil, "container", []int{200, 201, 400, 401, 403, 500}, "container"},
	{"GET", "/v1/containers/{ref}", nil, "", []int{200, 401, 403, 404, 500}, "container"},
	{"POST", "/v1/tags/{ref}", nil, "tag", []int{200, 400, 401, 403, 404, 500}, "map"},
	{"POST", "/v2/tags/{ref}", nil, "archTag", []int{200, 400, 401, 403, 404, 500}, "maps"}, // client/api.go: setTagV2
	{"POST", "/v1/images", nil, "newImage", []int{200, 201, 400, 401, 403, 500}, "image"},
	{"GET", "/v1/images/{ref}", []string{"!arch"}, "", []int{200, 401, 403, 404, 500}, "image"},                       // arch: client/api.go: GetImage
	{"DELETE", "/v1/images/{ref}", []string{"!arch"}, "", []int{200, 401, 403, 404, 500}, "image"},                    // arch: client/delete.go
	{"GET", "/v1/imagefile/{ref}", []string{"!arch"}, "", []int{200, 206, 302, 303, 401, 403, 404, 416, 500}, "file"}, // client/pull.go
	{"POST", "/v1/imagefile/{ref}", nil, "file", []int{200, 400, 401, 403, 500, 507}, ""},
	{"GET", "/v1/search", []string{"!value", "arch", "signed"}, "", []int{200, 400, 401, 500}, "search"},
	{"POST", "/v2/imagefile/{id}", nil, "upload", []int{200, 401, 404}, "uploadURL"}, // from here on client/push.go
	{"PUT", "/v2/imagefile/{id}/_complete", nil, "empty", []int{200, 204, 400, 401, 404}, "finished"},
	{"POST", "/v2/imagefile/{id}/_multipart", nil, "start", []int{200, 401, 404}, "started"},
	{"PUT", "/v2/imagefile/{id}/_multipart", nil, "part", []int{200, 401, 404}, "partURL"},
	{"PUT", "/v2/imagefile/{id}/_multipart_complete", nil, "finish", []int{200, 400, 401, 404}, "finished"},
	{"PUT", "/v2/imagefile/{id}/_multipart_abort", nil, "abort", []int{200, 401, 404}, "empty"},
	{"GET", "/v1/oci-redirect", []string{"!namespace", "!mapped", "!accessTypes"}, "", []int{200, 401, 403, 404}, "=ociAddress"}, // client/oci.go: ociRegistryAuth
}

// What the names of openapi.yml's definitions look like.
var patterns = map[string]*regexp.Regexp{
	"name": regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`),
	"hash": regexp.MustCompile(`^((sha256\.[a-f0-9]{64})|(sif\.[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}))$`),
}

func (o operation) matches(r *http.Request) bool {
	if r.Method != o.method {
		return false
	}
	pattern := regexp.QuoteMeta(o.path)
	pattern = strings.ReplaceAll(pattern, `\{ref\}`, `[^?]+`)
	pattern = strings.ReplaceAll(pattern, `\{id\}`, `[^/?]+`)
	return regexp.MustCompile("^" + pattern + "$").MatchString(r.URL.Path)
}

// checked lets answer answer, and compares what was asked and what is answered with
// the specification.
func (s *Server) checked(w http.ResponseWriter, r *http.Request, answer http.HandlerFunc) {
	i := slices.IndexFunc(operations, func(o operation) bool { return o.matches(r) })
	if i < 0 {
		s.tb.Errorf("the library has no %s %s", r.Method, r.URL.Path)
		notFound(w)
		return
	}
	o := operations[i]
	if err := o.checkRequest(r); err != nil {
		s.tb.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	answer(rec, r)
	if err := o.checkAnswer(rec); err != nil && r.Context().Err() == nil {
		s.tb.Errorf("answer %d to %s %s: %v: %.300s", rec.status, r.Method, r.URL, err, rec.text.Bytes())
	}
}

func (o operation) checkRequest(r *http.Request) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	for name := range q {
		if !slices.Contains(o.query, name) && !slices.Contains(o.query, "!"+name) {
			return fmt.Errorf("unknown parameter %q", name)
		}
	}
	for _, name := range o.query {
		if required, ok := strings.CutPrefix(name, "!"); ok && q.Get(required) == "" {
			return fmt.Errorf("parameter %q is missing", required)
		}
	}
	if o.path == "/v1/search" && len(q.Get("value")) < 3 {
		return fmt.Errorf("value is shorter than 3")
	}
	if auth := r.Header.Get("Authorization"); auth != "" && !strings.HasPrefix(auth, "Bearer ") {
		return fmt.Errorf("login %q", auth)
	}
	switch o.body {
	case "file":
		if r.ContentLength <= 0 {
			return fmt.Errorf("\"Content length is required by the API\"") // client/push.go
		}
		return nil
	case "":
		if r.ContentLength != 0 {
			return fmt.Errorf("a body of %d bytes", r.ContentLength)
		}
		return nil
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil // the client has gone
	}
	r.Body = io.NopCloser(bytes.NewReader(text))
	return checkObject(text, o.body)
}

func (o operation) checkAnswer(rec *recorder) error {
	if !slices.Contains(o.statuses, rec.status) {
		return fmt.Errorf("a status that there is none of")
	}
	if rec.status >= 400 && rec.status != http.StatusRequestedRangeNotSatisfiable {
		return rec.part("error", "error")
	}
	switch what := strings.TrimPrefix(o.answer, "="); {
	case what == "file" || what == "" || rec.status >= 300:
		return nil
	case what != o.answer:
		return checkObject(rec.text.Bytes(), what)
	default:
		return rec.part("data", what)
	}
}

// part checks one field of the answer.
func (rec *recorder) part(field, definition string) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(rec.text.Bytes(), &all); err != nil || len(all) != 1 || all[field] == nil {
		return fmt.Errorf("want {%q: …}", field)
	}
	if definition == "map" || definition == "maps" {
		return checkType(all[field], definition)
	}
	each, ok := strings.CutPrefix(definition, "[]")
	if !ok {
		return checkObject(all[field], definition)
	}
	var array []json.RawMessage
	if err := json.Unmarshal(all[field], &array); err != nil {
		return err
	}
	for _, v := range array {
		if err := checkObject(v, each); err != nil {
			return err
		}
	}
	return nil
}

func checkObject(text []byte, definition string) error {
	d := definitions[definition]
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("no JSON object: %.100q", text)
	}
	for name, v := range all {
		if d.fields[name] == "" {
			return fmt.Errorf("%s has no %q", definition, name)
		}
		if err := checkType(v, d.fields[name]); err != nil {
			return fmt.Errorf("%s: %q: %w", definition, name, err)
		}
		pattern := patterns[name]
		var value string
		if pattern != nil && definition != "ociAddress" && (json.Unmarshal(v, &value) != nil || !pattern.MatchString(value)) {
			return fmt.Errorf("%s: %s = %s", definition, name, v)
		}
	}
	for _, name := range d.required {
		if all[name] == nil {
			return fmt.Errorf("%s without %q", definition, name)
		}
	}
	return nil
}

func checkType(v json.RawMessage, kind string) error {
	var to any
	switch kind {
	case "string":
		to = new(string)
	case "integer":
		to = new(int64)
	case "boolean":
		to = new(bool)
	case "strings":
		to = new([]string)
	case "map":
		to = new(map[string]string)
	case "maps":
		to = new(map[string]map[string]string)
	case "object":
		to = new(map[string]any)
	case "objects":
		to = new([]map[string]any)
	}
	return json.Unmarshal(v, to)
}

// A recorder keeps the status of an answer, and its text unless that is an image.
type recorder struct {
	http.ResponseWriter
	status int
	text   bytes.Buffer
}

// WriteHeader implements http.ResponseWriter.
func (rec *recorder) WriteHeader(status int) {
	rec.status = status
	rec.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (rec *recorder) Write(p []byte) (int, error) {
	if rec.Header().Get("Content-Type") == "application/json" {
		rec.text.Write(p)
	}
	return rec.ResponseWriter.Write(p)
}
