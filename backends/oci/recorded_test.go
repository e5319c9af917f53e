// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/oci/presettest"
)

var update = flag.Bool("update", false, "write testdata/recorded anew, from the docker-registry that is installed")

// A recording is what a registry answered to a list of requests, in their order.
type recording struct {
	About string         `json:"about"`
	Steps []recordedStep `json:"steps"`
}

// A recordedStep is one request. "{upload}" in its path is the Location of the answer
// before, without its query: that is put before the step's own.
type recordedStep struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
	Answer  recordedAnswer    `json:"answer"`
}

// A recordedAnswer is what we rely on: not the text for people, nor what is another each
// time.
type recordedAnswer struct {
	Status  int               `json:"status"`            // 0 if the connection breaks
	Headers map[string]string `json:"headers,omitempty"` // "*" for a value that is another each time
	Codes   []string          `json:"codes,omitempty"`   // of its errors
	Body    string            `json:"body,omitempty"`    // if it is not an error
}

// told are the headers that mean something to us, and whether they are the same each
// time.
var told = map[string]bool{
	"Content-Type": true, "Content-Length": true, "Docker-Content-Digest": true, "Content-Range": true, "Range": true, "Link": true,
	"Accept-Ranges": true, "Docker-Distribution-Api-Version": true, "Www-Authenticate": true, "Location": false, "Docker-Upload-Uuid": false,
}

// The registry that our tests ask is a real one. It answers as it did when what depends
// on it was written; and what stands before it, to be one of a known service, changes no
// more of its answers than it says.
func TestRegistry_recorded(t *testing.T) {
	t.Parallel()
	const file = "testdata/recorded/docker-registry.json"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rec recording
	if err := json.Unmarshal(text, &rec); err != nil {
		t.Fatal(err)
	}
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	if *update {
		for i, got := range replay(t, reg.URL, rec.Steps) {
			rec.Steps[i].Answer = got
		}
		var out bytes.Buffer
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "\t")
		if err := enc.Encode(rec); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want := make([]recordedAnswer, len(rec.Steps))
	for i, step := range rec.Steps {
		want[i] = step.Answer
	}
	limited := ocitest.Start(t, ocitest.Options{Delete: true})
	limited.Use((&presettest.HubLimits{Of: 1000, Source: "127.0.0.1"}).Before)
	for name, url := range map[string]string{"docker-registry": reg.URL, "behind the limits of Docker Hub": limited.URL} {
		got := replay(t, url, rec.Steps)
		for i, step := range rec.Steps {
			if diff := cmp.Diff(want[i], got[i]); diff != "" {
				t.Errorf("%s: %s %s (-recorded +now):\n%s", name, step.Method, step.Path, diff)
			}
		}
	}
}

// replay sends the requests one after the other.
func replay(t *testing.T, base string, steps []recordedStep) []recordedAnswer {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(client.CloseIdleConnections)
	var all []recordedAnswer
	upload := ""
	for _, step := range steps {
		path := step.Path
		if rest, ok := strings.CutPrefix(path, "{upload}"); ok {
			path = strings.TrimPrefix(upload, base)
			if query, ok := strings.CutPrefix(rest, "?"); ok {
				path += "&" + query
			}
		}
		req, err := http.NewRequestWithContext(t.Context(), step.Method, base+path, strings.NewReader(step.Body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range step.Headers {
			req.Header.Set(name, value)
		}
		resp, err := client.Do(req)
		if err != nil { // as with a range behind the end: the registry breaks off
			all = append(all, recordedAnswer{})
			continue
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		upload = resp.Header.Get("Location")
		all = append(all, recorded(resp, text))
	}
	return all
}

// recorded takes out of an answer what counts.
func recorded(resp *http.Response, text []byte) recordedAnswer {
	a := recordedAnswer{Status: resp.StatusCode, Headers: map[string]string{}}
	for name, same := range told {
		switch value := resp.Header.Get(name); {
		case value == "":
		case same:
			a.Headers[name] = value
		default:
			a.Headers[name] = "*"
		}
	}
	var said struct{ Errors []struct{ Code string } }
	if resp.StatusCode < 400 {
		a.Body = string(text)
		return a
	}
	delete(a.Headers, "Content-Length") // of a text for people
	if json.Unmarshal(text, &said) == nil {
		for _, e := range said.Errors {
			a.Codes = append(a.Codes, e.Code)
		}
	}
	return a
}
