// SPDX-License-Identifier: Apache-2.0

package presettest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The tables find what is not as described, in requests and in answers.
func TestOperation_checkRequest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ typ, method, target, header, body, want string }{
		{"docker", "GET", "/v2/namespaces/a/repositories?page_size=100", "", "", ""},
		{"docker", "GET", "/v2/namespaces/a/repositories?page_size=101", "", "", "page_size"},
		{"docker", "GET", "/v2/namespaces/a/repositories?per_page=10", "", "", "per_page"},
		{"docker", "GET", "/v2/namespaces/a/repositories", "", "x", "body"},
		{"docker", "GET", "/v2/namespaces//repositories", "", "", "in no description"},
		{"docker", "GET", "/v2/repositories/a", "", "", "in no description"},
		{"docker", "POST", "/v2/auth/token", "Content-Type: application/json", `{"identifier":"a","secret":"b"}`, ""},
		{"docker", "POST", "/v2/auth/token", "Content-Type: application/json", `{"username":"a","password":"b"}`, "identifier"},
		{"docker", "POST", "/v2/auth/token", "", `{"identifier":"a","secret":"b"}`, "Content-Type"},
		{"ghcr", "GET", "/orgs/a/packages?package_type=container", "Authorization: Bearer x", "", ""},
		{"ghcr", "GET", "/orgs/a/packages?package_type=docker", "Authorization: Bearer x", "", "package_type"},
		{"ghcr", "GET", "/orgs/a/packages?package_type=container", "", "", "headers"},
		{"quay", "GET", "/api/v1/repository?public=true&namespace=a", "", "", ""},
		{"quay", "GET", "/api/v1/repository?public=yes", "", "", "public"},
		{"gitlab", "GET", "/api/v4/projects/a%2Fb/registry/repositories?tags=true", "Private-Token: x", "", ""},
		{"gitlab", "GET", "/api/v4/groups/a%2Fb/registry/repositories?tags=true", "Private-Token: x", "", "tags"},
		{"gitlab", "GET", "/api/v4/projects/a/b/registry/repositories", "", "", "in no description"},
		{"harbor", "GET", "/api/v2.0/projects/a/repositories?page_size=0", "", "", "page_size"},
	} {
		req := httptest.NewRequestWithContext(t.Context(), tt.method, tt.target, http.NoBody)
		req.Header.Set("Accept", "application/json")
		if name, value, ok := strings.Cut(tt.header, ": "); ok {
			req.Header.Set(name, value)
		}
		got := "in no description"
		if op, _ := find(Specs[tt.typ], req); op != nil {
			got = strings.Join(op.checkRequest(req, []byte(tt.body)), "; ")
		}
		if !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%s %s: %q, want %q", tt.method, tt.target, got, tt.want)
		}
	}
}

func TestOperation_checkAnswer(t *testing.T) {
	t.Parallel()
	op := &Operation{
		List: "all", Top: map[string]string{"next": "string?"}, Fields: map[string]string{"name": "string", "size": "number"},
		Header: []string{"X-Left"},
	}
	for _, tt := range []struct{ left, body, want string }{
		{"1", `{"next":null,"all":[{"name":"a","size":1}]}`, ""},
		{"1", `{"next":"x","all":[]}`, ""},
		{"", `{"next":null,"all":[]}`, "X-Left"},
		{"1", `{"all":[]}`, "next"},
		{"1", `{"next":null}`, "no list"},
		{"1", `{"next":null,"all":[{"name":1,"size":1}]}`, "name"},
		{"1", `{"next":null,"all":[{"name":"a"}]}`, "size"},
		{"1", `{"next":null,"all":[{"name":null,"size":1}]}`, "name"},
		{"1", `[`, "JSON"},
	} {
		header := http.Header{}
		if tt.left != "" {
			header.Set("X-Left", tt.left)
		}
		got := strings.Join(op.checkAnswer(http.StatusOK, header, []byte(tt.body)), "; ")
		if !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", tt.body, got, tt.want)
		}
	}
}
