// SPDX-License-Identifier: Apache-2.0

package library_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/library/librarytest"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
)

// A comparison is one request to both fakes: the fields of the "data" in each
// answer, or what the answer is where there is none.
type comparison struct {
	request           string
	registry, library []string
}

// A speaker asks one of the fakes.
type speaker struct {
	t          *testing.T
	url, token string
}

func (s speaker) ask(method, path, body string) (fields []string, data map[string]any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var envelope struct{ Data map[string]any }
	if json.Unmarshal(bytes.TrimSpace(text), &envelope) == nil && envelope.Data != nil {
		return slices.Sorted(maps.Keys(envelope.Data)), envelope.Data
	}
	if location := resp.Header.Get("Location"); location != "" {
		return []string{resp.Status, "X-Amz-Signature: " + resp.Proto[:4]}, map[string]any{"location": location}
	}
	return []string{resp.Status}, nil
}

// recorded sends what a push and a pull send to both servers.
func recorded(t *testing.T) []comparison {
	t.Helper()
	store := librarytest.StartStore(t)
	lib := librarytest.Start(t, librarytest.Options{Store: store, Found: true})
	reg := sregistrytest.Start(t, sregistrytest.Options{})
	content := []byte("content of an image")
	lib.Add(librarytest.Image{Entity: sregistrytest.User, Collection: "tools", Container: "hello", Tag: "1", Content: content})
	reg.Add(sregistrytest.Image{Collection: "tools", Name: "hello", Tag: "1", Content: content})
	sum := strings.TrimPrefix(backendtest.Source([]byte("another image")).Digest, "sha256:")
	var all []comparison
	both := []speaker{{t: t, url: reg.URL, token: sregistrytest.Token}, {t: t, url: lib.URL, token: librarytest.Token}}
	ids := make([]string, 2) // of the new image, in each
	each := func(method, path, body string) []map[string]any {
		c := comparison{request: method + " " + path}
		data := make([]map[string]any, 2)
		for i, s := range both {
			fields, d := s.ask(method, strings.ReplaceAll(path, "ID", ids[i]), body)
			data[i] = d
			if i == 0 {
				c.registry = fields
			} else {
				c.library = fields
			}
		}
		all = append(all, c)
		return data
	}
	user := sregistrytest.User
	each(http.MethodGet, "/v1/entities/"+user, "")
	each(http.MethodGet, "/v1/entities/nobody", "")
	each(http.MethodGet, "/v1/collections/"+user+"/tools", "")
	each(http.MethodGet, "/v1/collections/"+user+"/none", "")
	each(http.MethodGet, "/v1/images/"+user+"/tools/hello:sha256."+strings.TrimPrefix(backendtest.Source(content).Digest, "sha256:")+"?arch=amd64", "")
	both[0].url, both[1].url = reg.URL, lib.URL
	ids[0] = imageFile(t, both[0], "tools/hello:1")
	ids[1] = imageFile(t, both[1], user+"/tools/hello:1")
	if ids[0] != ids[1] {
		t.Errorf("imagefile: %q and %q", ids[0], ids[1])
	}
	// The registry server makes an image when it is asked for its digest; the library
	// wants a request of its own for that.
	_, made := both[0].ask(http.MethodGet, "/v1/images/"+user+"/tools/hello:sha256."+sum+"?arch=amd64", "")
	ids[0], _ = made["id"].(string)
	_, k := both[1].ask(http.MethodGet, "/v1/containers/"+user+"/tools/hello", "")
	container, _ := k["id"].(string)
	_, made = both[1].ask(http.MethodPost, "/v1/images", `{"hash":"sha256.`+sum+`","container":"`+container+`"}`)
	ids[1], _ = made["id"].(string)
	each(http.MethodPost, "/v2/imagefile/ID", `{"filesize":13,"sha256sum":"`+sum+`"}`)
	each(http.MethodPost, "/v2/imagefile/none", `{"filesize":13}`)
	opened := each(http.MethodPost, "/v2/imagefile/ID/_multipart", `{"filesize":13}`)
	for i, s := range both {
		id, _ := opened[i]["uploadID"].(string)
		fields, _ := s.ask(http.MethodPut, "/v2/imagefile/"+ids[i]+"/_multipart", `{"partSize":13,"uploadID":"`+id+`","partNumber":1,"sha256sum":"`+sum+`"}`)
		if !slices.Equal(fields, []string{"presignedURL"}) {
			t.Errorf("a part: %q", fields)
		}
	}
	return all
}

// imageFile says how a server redirects to the bytes.
func imageFile(t *testing.T, s speaker, path string) string {
	t.Helper()
	fields, data := s.ask(http.MethodGet, "/v1/imagefile/"+path+"?arch=amd64", "")
	location, _ := data["location"].(string)
	if !strings.Contains(location, "X-Amz-Signature=") {
		t.Errorf("imagefile: %q", fields)
	}
	return fields[0]
}
