// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// newTestRegistry returns a registry with one image and the bytes of that.
func newTestRegistry(t *testing.T) (*coldRig, []byte) {
	t.Helper()
	img, err := randomImage(t.TempDir(), "bench/cold", "1", 3<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(img.path)
	if err != nil {
		t.Fatal(err)
	}
	reg, err := openRegistry()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := reg.close(); err != nil {
			t.Error(err)
		}
	})
	reg.add(img)
	return &coldRig{reg: reg, img: img}, content
}

// get returns status and body of an answer; bytes is a range, "" for all.
func get(t *testing.T, client *http.Client, url, bytes string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bytes != "" {
		req.Header.Set("Range", "bytes="+bytes)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

func newClient(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// Everything that is answered is the image, whichever way leads there.
func TestRegistry(t *testing.T) {
	t.Parallel()
	r, content := newTestRegistry(t)
	client := newClient(t)
	status, manifest := get(t, client, r.reg.url+"/v2/bench/cold/manifests/1", "")
	var m struct {
		Layers []struct {
			Digest string
			Size   int64
		}
	}
	if err := json.Unmarshal(manifest, &m); err != nil || status != http.StatusOK || len(m.Layers) != 1 {
		t.Fatalf("manifest: status %d, %v\n%s", status, err, manifest)
	}
	if m.Layers[0].Digest != sha256Of(content) || m.Layers[0].Size != int64(len(content)) {
		t.Errorf("the manifest says %+v of %d bytes with %s", m.Layers[0], len(content), sha256Of(content))
	}
	for _, c := range []struct {
		url, bytes string
		status     int
		want       []byte
	}{
		{r.blobURL(), "", http.StatusOK, content},
		{r.blobURL(), "1048570-1048580", http.StatusPartialContent, content[1048570:1048581]},
		{r.reg.url + "/files/bench/cold/1.sif", "2097152-", http.StatusPartialContent, content[2097152:]},
		{r.reg.url + "/v2/bench/cold/manifests/" + r.img.version, "", http.StatusOK, manifest},
		{r.reg.url + "/v2/bench/cold/blobs/sha256:00", "", http.StatusNotFound, nil},
		{r.reg.url + "/v2/bench/cold/manifests/2", "", http.StatusNotFound, nil},
	} {
		status, got := get(t, client, c.url, c.bytes)
		if status != c.status || !bytes.Equal(got, c.want) {
			t.Errorf("%s %s: status %d and %d bytes, want %d and %d", c.url, c.bytes, status, len(got), c.status, len(c.want))
		}
	}
	if _, page := get(t, client, r.reg.url+"/files/bench/cold/", ""); !strings.Contains(string(page), `href="1.sif"`) {
		t.Errorf("the page of files does not name the image:\n%s", page)
	}
	traffic := r.reg.traffic()
	if traffic.requests != 8 || traffic.fresh != 1 || traffic.bytes < int64(len(content)) {
		t.Errorf("%+v was counted for 8 requests on one connection", traffic)
	}
}

// A presigned address works until it does not.
func TestRegistry_redirect(t *testing.T) {
	t.Parallel()
	r, content := newTestRegistry(t)
	r.reg.signed.Store(int64(time.Hour))
	client := newClient(t)
	if status, got := get(t, client, r.blobURL(), "0-9"); status != http.StatusPartialContent || !bytes.Equal(got, content[:10]) {
		t.Errorf("by the redirect: status %d, %x", status, got)
	}
	if status, _ := get(t, client, r.reg.cdn+"/"+r.img.digest+"?until=1", ""); status != http.StatusForbidden {
		t.Errorf("by an address that works no more: status %d", status)
	}
}

// One round trip for a connection, one for each answer; not less than the rate
// allows. How much more it is, the machine decides.
func TestLink(t *testing.T) {
	t.Parallel()
	r, _ := newTestRegistry(t)
	const rtt = 20 * time.Millisecond
	r.reg.link.set(rtt, 50e6, 0)
	client := newClient(t)
	for i, want := range []time.Duration{2 * rtt, rtt} {
		start := time.Now()
		get(t, client, r.blobURL(), "0-99")
		if took := time.Since(start); took < want {
			t.Errorf("answer %d after %v, want %v", i+1, took, want)
		}
	}
	start := time.Now()
	get(t, client, r.blobURL(), "")
	if took, want := time.Since(start), rtt+60*time.Millisecond-maxLate; took < want {
		t.Errorf("3 MiB at 50 MB/s after %v, want %v", took, want)
	}
}
