// SPDX-License-Identifier: Apache-2.0

package ocitest_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

func get(t *testing.T, url string, user string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, "secret")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestStart(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]ocitest.Options{
		"open":  {},
		"basic": {User: "me", Password: "secret"},
		"token": {User: "me", Password: "secret", TokenAuth: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := ocitest.Start(t, opts)
			content := []byte("pretend image")
			digest := reg.PushSIF("a/b", "1", content, nil)
			body, ok := reg.Manifest("a/b", "1")
			if !ok || ocitest.Digest(body) != digest {
				t.Fatalf("manifest %s, %v; want one of digest %s", body, ok, digest)
			}
			want := http.StatusUnauthorized
			if opts.User == "" {
				want = http.StatusOK
			}
			if status, _ := get(t, reg.URL+"/v2/a/b/blobs/"+ocitest.Digest(content), ""); status != want {
				t.Errorf("anonymous GET gave %d, want %d", status, want)
			}
			if opts.User != "" && !opts.TokenAuth {
				if status, text := get(t, reg.URL+"/v2/a/b/blobs/"+ocitest.Digest(content), "me"); text != string(content) {
					t.Errorf("GET with credentials gave %d %q, want %q", status, text, content)
				}
			}
			if n := reg.Count("GET", "/blobs/"); n == 0 {
				t.Error("the log lacks the request")
			}
		})
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	digest := reg.PutBlob("a", []byte("kept"))
	reg.Stop()
	if status, _ := get(t, reg.URL+"/v2/", ""); status != http.StatusBadGateway {
		t.Errorf("stopped registry gave %d, want 502", status)
	}
	reg.Restart()
	if _, text := get(t, reg.URL+"/v2/a/blobs/"+digest, ""); text != "kept" {
		t.Errorf("blob after restart = %q, want %q", text, "kept")
	}
	if n := reg.BlobBytes(); n != 4 {
		t.Errorf("BlobBytes = %d, want 4", n)
	}
}
