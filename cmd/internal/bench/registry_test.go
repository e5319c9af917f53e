// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// newTestRegistry returns a registry with one image and the bytes of that.
func newTestRegistry(t *testing.T) (*rig, []byte) {
	t.Helper()
	b := &bench{dir: t.TempDir()}
	r := b.newRig(3 << 20)
	t.Cleanup(r.reg.Close)
	content, err := os.ReadFile(r.img.path)
	if err != nil {
		t.Fatal(err)
	}
	return r, content
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

// A connCounter counts the connections that its requests are the first on. There
// can be more than one: under load the transport gives some up.
type connCounter struct {
	http.RoundTripper
	fresh int
}

func (c *connCounter) RoundTrip(req *http.Request) (*http.Response, error) {
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if !i.Reused {
			c.fresh++
		}
	}}
	return c.RoundTripper.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
}

// Everything that is answered is the image, whichever way leads there.
func TestRegistry(t *testing.T) {
	t.Parallel()
	r, content := newTestRegistry(t)
	client := newClient(t)
	counter := &connCounter{RoundTripper: client.Transport}
	client.Transport = counter
	status, manifest := get(t, client, r.reg.URL+"/v2/bench/cold/manifests/1", "")
	var m struct {
		Layers []struct {
			Digest string
			Size   int64
		}
	}
	if err := json.Unmarshal(manifest, &m); err != nil || status != http.StatusOK || len(m.Layers) != 1 {
		t.Fatalf("manifest: status %d, %v\n%s", status, err, manifest)
	}
	if m.Layers[0].Digest != string(digest.FromBytes(content)) || m.Layers[0].Size != int64(len(content)) {
		t.Errorf("the manifest says %+v of %d bytes with %s", m.Layers[0], len(content), string(digest.FromBytes(content)))
	}
	for _, c := range []struct {
		url, bytes string
		status     int
		want       []byte
	}{
		{r.reg.blobURL(r.img), "", http.StatusOK, content},
		{r.reg.blobURL(r.img), "1048570-1048580", http.StatusPartialContent, content[1048570:1048581]},
		{r.reg.URL + "/files/bench/cold/1.sif", "2097152-", http.StatusPartialContent, content[2097152:]},
		{r.reg.URL + "/v2/bench/cold/manifests/" + string(digest.FromBytes(r.img.manifest)), "", http.StatusOK, manifest},
		{r.reg.URL + "/v2/bench/cold/blobs/sha256:00", "", http.StatusNotFound, nil},
		{r.reg.URL + "/v2/bench/cold/manifests/2", "", http.StatusNotFound, nil},
	} {
		status, got := get(t, client, c.url, c.bytes)
		if status != c.status || !bytes.Equal(got, c.want) {
			t.Errorf("%s %s: status %d and %d bytes, want %d and %d", c.url, c.bytes, status, len(got), c.status, len(c.want))
		}
	}
	if _, page := get(t, client, r.reg.URL+"/files/bench/cold/", ""); !strings.Contains(string(page), `href="1.sif"`) {
		t.Errorf("the page of files does not name the image:\n%s", page)
	}
	fresh := 0
	for _, q := range r.reg.log {
		if strings.Contains(q.what, "+ ") {
			fresh++
		}
	}
	if sent := r.reg.sent(); len(r.reg.log) != 8 || fresh != counter.fresh || sent < int64(len(content)) {
		t.Errorf("%d requests on %d connections and %d bytes were counted for 8 requests on %d connections", len(r.reg.log), fresh, sent, counter.fresh)
	}
}

// One round trip for a connection, one for each answer; not less than the rate
// allows. How much more it is, the machine decides.
func TestLink(t *testing.T) {
	t.Parallel()
	r, _ := newTestRegistry(t)
	const rtt = 20 * time.Millisecond
	r.reg.link.set(network{rtt, 50e6, 0})
	client := newClient(t)
	for i, want := range []time.Duration{2 * rtt, rtt} {
		start := time.Now()
		get(t, client, r.reg.blobURL(r.img), "0-99")
		if took := time.Since(start); took < want {
			t.Errorf("answer %d after %v, want %v", i+1, took, want)
		}
	}
	start := time.Now()
	get(t, client, r.reg.blobURL(r.img), "")
	if took, want := time.Since(start), rtt+60*time.Millisecond-maxLate; took < want {
		t.Errorf("3 MiB at 50 MB/s after %v, want %v", took, want)
	}
}
