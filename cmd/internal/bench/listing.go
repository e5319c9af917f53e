// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
)

// listings answers as an OCI registry that has these repositories with so many
// tags each, tag0000000 and so on. Listings come in pages. Each tag has a manifest
// of its own, but no blob.
func listings(repositories map[string]int) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		path, _ := strings.CutPrefix(req.URL.Path, "/v2/")
		repo, isTags := strings.CutSuffix(path, "/tags/list")
		tags, known := repositories[repo]
		named, reference, isManifest := strings.Cut(path, "/manifests/")
		switch {
		case isManifest && repositories[named] > 0 && strings.HasPrefix(reference, "tag"):
			writeManifest(w, req, path)
		case path == "":
			answer(w, map[string]any{})
		case path == "_catalog":
			answer(w, map[string]any{"repositories": slices.Sorted(maps.Keys(repositories))})
		case isTags && known:
			writeTags(w, req, repo, tags)
		default:
			http.NotFound(w, req)
		}
	}))
}

// writeTags writes the page of tags that is asked for, and where the next one is.
func writeTags(w http.ResponseWriter, req *http.Request, repo string, count int) {
	query := req.URL.Query()
	first := 0
	if last, err := strconv.Atoi(strings.TrimPrefix(query.Get("last"), "tag")); err == nil {
		first = last + 1
	}
	end := count
	if n, err := strconv.Atoi(query.Get("n")); err == nil && n > 0 {
		end = min(count, first+n)
	}
	tags := make([]string, 0, end-first)
	for i := first; i < end; i++ {
		tags = append(tags, tagName(i))
	}
	if end < count {
		w.Header().Set("Link", fmt.Sprintf("</v2/%s/tags/list?n=%s&last=%s>; rel=\"next\"", repo, query.Get("n"), tags[len(tags)-1]))
	}
	answer(w, map[string]any{"name": repo, "tags": tags})
}

func tagName(i int) string { return fmt.Sprintf("tag%07d", i) }

// writeManifest writes the manifest of a SIF of 1 GiB, whose digest is that of
// its path here.
func writeManifest(w http.ResponseWriter, req *http.Request, path string) {
	text := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},`+
		`"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`, manifestType, configType, sha256Of([]byte("{}")), layerType, sha256Of([]byte(path)), 1<<30)
	w.Header().Set("Content-Type", manifestType)
	w.Header().Set("Docker-Content-Digest", sha256Of([]byte(text)))
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	if req.Method != http.MethodHead {
		_, _ = io.WriteString(w, text)
	}
}
