// SPDX-License-Identifier: Apache-2.0

package presettest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// An Operation is one request that a service describes, with its answer.
type Operation struct {
	Source string // where it is described
	Method string
	Path   string // what stands in braces is any one part, percent-encoded
	// Query has the parameters that there are: "string", "boolean", "1..100",
	// or the one value that is meant.
	Query map[string]string
	// Needs are headers of which the request has to have one; "" among them
	// allows none.
	Needs []string
	Body  []string // fields of the request, strings
	// List is where the elements are: a field of the answer, "." if they are
	// the answer itself, "" if it is one object.
	List   string
	Top    map[string]string // fields of the answer beside the list: "string", "number", "boolean", with a "?" if null is one too
	Fields map[string]string // of each element
	Header []string          // of the answer
}

// Specs are the descriptions, by the type of remote. Nobody changes the map.
var Specs = map[string][]Operation{
	"docker": {
		{
			Source: "docs.docker.com/reference/api/hub/latest: AuthCreateAccessToken",
			Method: http.MethodPost, Path: "/v2/auth/token", Needs: []string{""}, Body: []string{"identifier", "secret"},
			Top: map[string]string{"access_token": "string"}, Header: hubHeaders,
		},
		{
			Source: "docs.docker.com/reference/api/hub/latest: listNamespaceRepositories",
			Method: http.MethodGet, Path: "/v2/namespaces/{namespace}/repositories",
			Query: map[string]string{"page": "1..100000", "page_size": "1..100", "name": "string", "ordering": "string"},
			Needs: []string{"", "Authorization"}, List: "results",
			Top: map[string]string{"count": "number", "next": "string?", "previous": "string?"},
			Fields: map[string]string{
				"name": "string", "namespace": "string", "repository_type": "string?", "status": "number", "is_private": "boolean",
				"pull_count": "number", "star_count": "number", "last_updated": "string?",
			},
			Header: hubHeaders,
		},
	},
	"ghcr": {
		githubPackages("/orgs/{org}/packages", "list-packages-for-an-organization"),
		githubPackages("/users/{username}/packages", "list-packages-for-a-user"),
	},
	"quay": {{
		Source: "docs.quay.io/api/swagger: listRepos; github.com/quay/quay, endpoints/api/repository.py and __init__.py (page_support)",
		Method: http.MethodGet, Path: "/api/v1/repository",
		Query: map[string]string{
			"namespace": "string", "public": "boolean", "starred": "boolean", "last_modified": "boolean", "popularity": "boolean",
			"repo_kind": "string", "next_page": "string",
		},
		Needs: []string{"", "Authorization"}, List: "repositories",
		Fields: map[string]string{
			"namespace": "string", "name": "string", "description": "string?", "is_public": "boolean", "kind": "string", "state": "string",
		},
	}},
	"gitlab": {
		gitlabRepositories("/api/v4/groups/{id}/registry/repositories", nil),
		gitlabRepositories("/api/v4/projects/{id}/registry/repositories", map[string]string{"tags": "boolean", "tags_count": "boolean"}),
	},
	"harbor": {
		harborRepositories("/api/v2.0/repositories", "listAllRepositories"),
		harborRepositories("/api/v2.0/projects/{project_name}/repositories", "listRepositories"),
	},
}

var hubHeaders = []string{"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}

func githubPackages(path, anchor string) Operation {
	return Operation{
		Source: "docs.github.com/en/rest/packages/packages#" + anchor, Method: http.MethodGet, Path: path,
		Query: map[string]string{
			"package_type": "container", "visibility": "string", "page": "1..100000", "per_page": "1..100",
		},
		Needs: []string{"Authorization"}, List: ".",
		Fields: map[string]string{
			"id": "number", "name": "string", "package_type": "string", "url": "string", "html_url": "string",
			"version_count": "number", "visibility": "string", "created_at": "string", "updated_at": "string",
		},
		Header: []string{"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"},
	}
}

func gitlabRepositories(path string, more map[string]string) Operation {
	op := Operation{
		Source: "docs.gitlab.com/api/container_registry#list-registry-repositories", Method: http.MethodGet, Path: path,
		Query: map[string]string{"page": "1..100000", "per_page": "1..100"},
		Needs: []string{"", "Private-Token", "Job-Token"}, List: ".",
		Fields: map[string]string{
			"id": "number", "name": "string", "path": "string", "project_id": "number", "location": "string", "created_at": "string",
		},
		Header: []string{"X-Next-Page"},
	}
	for name, kind := range more {
		op.Query[name] = kind
	}
	return op
}

func harborRepositories(path, id string) Operation {
	return Operation{
		Source: "github.com/goharbor/harbor, api/v2.0/swagger.yaml: " + id, Method: http.MethodGet, Path: path,
		Query: map[string]string{"q": "string", "sort": "string", "page": "1..100000", "page_size": "1..100"},
		Needs: []string{"", "Authorization"}, List: ".",
		Fields: map[string]string{
			"id": "number", "project_id": "number", "name": "string", "artifact_count": "number", "pull_count": "number",
			"creation_time": "string", "update_time": "string",
		},
		Header: []string{"X-Total-Count"},
	}
}

// find returns the operation of a request, and what stands for the braces.
func find(spec []Operation, req *http.Request) (*Operation, []string) {
	have := strings.Split(req.URL.EscapedPath(), "/")
	for i := range spec {
		op := &spec[i]
		want := strings.Split(op.Path, "/")
		if op.Method != req.Method || len(want) != len(have) {
			continue
		}
		var params []string
		fits := true
		for j, part := range want {
			if strings.HasPrefix(part, "{") {
				value, err := url.PathUnescape(have[j])
				params, fits = append(params, value), fits && err == nil && value != ""
			} else {
				fits = fits && part == have[j]
			}
		}
		if fits {
			return op, params
		}
	}
	return nil, nil
}

// checkRequest says what about a request is not as described.
func (op *Operation) checkRequest(req *http.Request, body []byte) (faults []string) {
	for name, values := range req.URL.Query() {
		kind, ok := op.Query[name]
		if !ok || len(values) != 1 || !fitsQuery(kind, values[0]) {
			faults = append(faults, fmt.Sprintf("parameter %s=%q, described as %q", name, values, kind))
		}
	}
	if !slices.ContainsFunc(op.Needs, func(name string) bool { return name == "" || req.Header.Get(name) != "" }) {
		faults = append(faults, fmt.Sprintf("has none of the headers %q", op.Needs))
	}
	if accept := req.Header.Get("Accept"); !strings.Contains(accept, "json") {
		faults = append(faults, "accepts "+accept)
	}
	if len(op.Body) > 0 {
		var fields map[string]string
		if err := json.Unmarshal(body, &fields); err != nil {
			return append(faults, err.Error())
		}
		for _, name := range op.Body {
			if fields[name] == "" {
				faults = append(faults, "field "+name+" is missing")
			}
		}
		if len(fields) != len(op.Body) || !strings.HasPrefix(req.Header.Get("Content-Type"), "application/json") {
			faults = append(faults, fmt.Sprintf("fields %v, Content-Type %s", fields, req.Header.Get("Content-Type")))
		}
	} else if len(body) > 0 {
		faults = append(faults, "has a body")
	}
	return faults
}

func fitsQuery(kind, value string) bool {
	from, to, isRange := strings.Cut(kind, "..")
	switch {
	case isRange:
		n, err := strconv.Atoi(value)
		low, _ := strconv.Atoi(from)
		high, _ := strconv.Atoi(to)
		return err == nil && low <= n && n <= high
	case kind == "boolean":
		return value == "true" || value == "false"
	case kind == "string":
		return value != ""
	}
	return kind == value
}

// checkAnswer says what about an answer is not as described.
func (op *Operation) checkAnswer(status int, header http.Header, body []byte) (faults []string) {
	if status != http.StatusOK {
		if !json.Valid(body) {
			faults = append(faults, "is no JSON")
		}
		return faults
	}
	for _, name := range op.Header {
		if _, ok := header[http.CanonicalHeaderKey(name)]; !ok {
			faults = append(faults, "header "+name+" is missing")
		}
	}
	var answer any
	if err := json.Unmarshal(body, &answer); err != nil {
		return append(faults, err.Error())
	}
	list, ok := answer, true
	if top, isObject := answer.(map[string]any); isObject {
		faults = append(faults, missing(top, op.Top)...)
		list, ok = top[op.List]
	}
	if op.List == "" {
		return faults
	}
	elements, isList := list.([]any)
	if !ok || !isList {
		return append(faults, "has no list "+op.List)
	}
	for _, element := range elements {
		fields, _ := element.(map[string]any)
		faults = append(faults, missing(fields, op.Fields)...)
	}
	return faults
}

// missing compares an object with the fields that it has to have.
func missing(object map[string]any, want map[string]string) (faults []string) {
	for name, kind := range want {
		value, ok := object[name]
		kind, null := strings.CutSuffix(kind, "?")
		is := map[bool]string{true: "null"}[value == nil]
		switch value.(type) {
		case string:
			is = "string"
		case float64:
			is = "number"
		case bool:
			is = "boolean"
		}
		if !ok || is != kind && (!null || is != "null") {
			faults = append(faults, fmt.Sprintf("field %s is %q, described as %s", name, is, kind))
		}
	}
	return faults
}
