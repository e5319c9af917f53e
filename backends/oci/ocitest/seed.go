// SPDX-License-Identifier: Apache-2.0

package ocitest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Media types of what tests push.
const (
	OCIManifest = "application/vnd.oci.image.manifest.v1+json"
	OCIIndex    = "application/vnd.oci.image.index.v1+json"
	SIFConfig   = "application/vnd.sylabs.sif.config.v1+json"
	SIFLayer    = "application/vnd.sylabs.sif.layer.v1.sif"
)

// Digest returns "sha256:…" of data.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// PushSIF stores content as the image repo:tag, the way ORAS clients do, and
// returns the digest of its manifest. Annotations may be nil.
func (r *Registry) PushSIF(repo, tag string, content []byte, annotations map[string]string) string {
	r.t.Helper()
	config := r.putConfig(repo)
	layer := r.PutBlob(repo, content)
	title := repo[strings.LastIndexByte(repo, '/')+1:] + "_" + tag + ".sif"
	return r.PutManifest(repo, tag, OCIManifest, map[string]any{
		"schemaVersion": 2,
		"mediaType":     OCIManifest,
		"config":        map[string]any{"mediaType": SIFConfig, "digest": config, "size": 2},
		"layers": []any{map[string]any{
			"mediaType": SIFLayer, "digest": layer, "size": len(content),
			"annotations": map[string]string{"org.opencontainers.image.title": title},
		}},
		"annotations": annotations,
	})
}

// putConfig uploads the configuration that all SIFs have, once for each repository.
func (r *Registry) putConfig(repo string) string {
	r.t.Helper()
	r.mu.Lock()
	there := r.seeded[repo]
	r.mu.Unlock()
	digest := Digest([]byte("{}"))
	if there {
		return digest
	}
	r.PutBlob(repo, []byte("{}"))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seeded == nil {
		r.seeded = map[string]bool{}
	}
	r.seeded[repo] = true
	return digest
}

// PutBlob uploads content to repo and returns its digest.
func (r *Registry) PutBlob(repo string, content []byte) string {
	r.t.Helper()
	digest := Digest(content)
	location, err := url.Parse(r.do(repo, http.MethodPost, "/v2/"+repo+"/blobs/uploads/", "", nil).Get("Location"))
	r.must(err)
	query := location.Query()
	query.Set("digest", digest)
	r.do(repo, http.MethodPut, location.Path+"?"+query.Encode(), "application/octet-stream", content)
	return digest
}

// PutLarge uploads size bytes to repo, whose digest is known, and returns that.
func (r *Registry) PutLarge(repo, digest string, content io.Reader, size int64) string {
	r.t.Helper()
	location, err := url.Parse(r.do(repo, http.MethodPost, "/v2/"+repo+"/blobs/uploads/", "", nil).Get("Location"))
	r.must(err)
	query := location.Query()
	query.Set("digest", digest)
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPut, r.direct()+location.Path+"?"+query.Encode(), io.NopCloser(content))
	r.must(err)
	req.ContentLength = size
	resp := r.send(repo, req)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		r.t.Fatalf("seed: %s: %s", location.Path, resp.Status)
	}
	return digest
}

// PutManifest stores v, as JSON unless it is a []byte, under ref, a tag or a
// digest, and returns its digest.
func (r *Registry) PutManifest(repo, ref, mediaType string, v any) string {
	r.t.Helper()
	body, ok := v.([]byte)
	if !ok {
		var err error
		body, err = json.Marshal(v)
		r.must(err)
	}
	if ref == "" {
		ref = Digest(body)
	}
	r.do(repo, http.MethodPut, "/v2/"+repo+"/manifests/"+ref, mediaType, body)
	return Digest(body)
}

// Manifest returns the bytes of a manifest and whether there is one.
func (r *Registry) Manifest(repo, ref string) ([]byte, bool) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.direct()+"/v2/"+repo+"/manifests/"+ref, nil)
	r.must(err)
	req.Header.Set("Accept", OCIManifest+", "+OCIIndex+", "+DockerManifest)
	resp := r.send(repo, req)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	r.must(err)
	return body, resp.StatusCode == http.StatusOK
}

// Repositories returns the names of the repositories in a namespace ("" is all),
// in order, by the registry's own catalog, past the proxy.
func (r *Registry) Repositories(namespace string) []string {
	r.t.Helper()
	all := []string{}
	for last := ""; ; {
		const most = 1000
		req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet,
			r.direct()+"/v2/_catalog?"+url.Values{"n": {strconv.Itoa(most)}, "last": {last}}.Encode(), nil)
		r.must(err)
		resp := r.send("", req)
		var page struct{ Repositories []string }
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		r.must(err)
		for _, name := range page.Repositories {
			if namespace == "" || strings.HasPrefix(name, namespace+"/") {
				all = append(all, name)
			}
		}
		if len(page.Repositories) < most {
			return all
		}
		last = page.Repositories[most-1]
	}
}

// do sends a request to the registry past the proxy: it is neither logged nor
// hit by faults. Any status beyond 2xx fails the test.
func (r *Registry) do(repo, method, path, contentType string, body []byte) http.Header {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.direct()+path, bytes.NewReader(body))
	r.must(err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp := r.send(repo, req)
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode/100 != 2 {
		r.t.Fatal(fmt.Errorf("seed: %s %s: %s: %s", method, path, resp.Status, text))
	}
	return resp.Header
}

func (r *Registry) direct() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.target.String()
}

func (r *Registry) send(repo string, req *http.Request) *http.Response {
	r.t.Helper()
	switch {
	case r.tokens != nil:
		req.Header.Set("Authorization", "Bearer "+r.tokens.issue("seed", []access{
			{Type: "repository", Name: repo, Actions: []string{"pull", "push", "delete"}},
			{Type: "registry", Name: "catalog", Actions: []string{"*"}},
		}))
	case r.opts.User != "":
		req.SetBasicAuth(r.opts.User, r.opts.Password)
	}
	resp, err := r.client.Do(req)
	r.must(err)
	return resp
}

// Untag takes a tag away, as somebody else may, and with the last tag of these bytes the
// image whose blob is layer. The registry deletes by digest only, and with a manifest all
// its tags: the others of the same manifest are put back.
func (r *Registry) Untag(repo, tag, layer string) {
	r.t.Helper()
	manifest, _ := r.Manifest(repo, tag)
	var same []string
	used := false
	for _, other := range r.Tags(repo) {
		if body, _ := r.Manifest(repo, other); other != tag {
			used = used || bytes.Contains(body, []byte(layer))
			if bytes.Equal(body, manifest) {
				same = append(same, other)
			}
		}
	}
	r.do(repo, http.MethodDelete, "/v2/"+repo+"/manifests/"+Digest(manifest), "", nil)
	for _, other := range same {
		r.PutManifest(repo, other, OCIManifest, manifest)
	}
	if !used {
		r.do(repo, http.MethodDelete, "/v2/"+repo+"/blobs/"+layer, "", nil)
	}
}

// Tags returns the tags of a repository, of which there may be none.
func (r *Registry) Tags(repo string) []string {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.direct()+"/v2/"+repo+"/tags/list", nil)
	r.must(err)
	resp := r.send(repo, req)
	defer resp.Body.Close()
	var page struct{ Tags []string }
	if resp.StatusCode == http.StatusOK {
		r.must(json.NewDecoder(resp.Body).Decode(&page))
	}
	return page.Tags
}
