// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
)

// A catalogue whose second page is refused is not one that nobody may see.
func TestList_cataloguePageRefused(t *testing.T) {
	t.Parallel()
	for _, status := range []int{401, 403, 404, 405} {
		f := newFake(t)
		f.text("/v2/", "{}")
		f.on("/v2/_catalog", func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Query().Get("last") != "" {
				http.Error(w, "{}", status)
				return
			}
			w.Header().Set("Link", `</v2/_catalog?n=1&last=lab/a>; rel="next"`)
			fmt.Fprint(w, `{"repositories":["lab/a"]}`)
		})
		got, err := backends.Collect(open(t, config{"url": f.URL}).List(t.Context(), ""))
		if err == nil || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("HTTP %d for the second page: %v, %v", status, got, err)
		}
	}
}

// One repository that the account may not see, or that a proxy hides, does not keep
// the others from being listed; that the registry forgot one is the whole truth.
func TestList_repositoryRefused(t *testing.T) {
	t.Parallel()
	for _, refusal := range []struct {
		status int
		body   string
		untold bool
	}{
		{401, `{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}`, true},
		{403, `{"errors":[{"code":"DENIED","message":"no"}]}`, true},
		{404, `<html>nginx</html>`, true},
		{404, `{"errors":[{"code":"NAME_UNKNOWN","message":"no"}]}`, false},
	} {
		f := newFake(t)
		f.text("/v2/", "{}")
		f.text("/v2/_catalog", `{"repositories":["lab/a","lab/b"]}`)
		f.text("/v2/lab/b/tags/list", `{"tags":["1"]}`)
		f.manifest("lab/b", "1", []byte("sif"))
		f.on("/v2/lab/a/tags/list", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, refusal.body, refusal.status) })
		entries, err := backends.Collect(open(t, config{"url": f.URL}).List(t.Context(), "lab"))
		untold := len(entries) > 0 && entries[0].Untold != nil && entries[0].Image.Ref.Name == "a"
		if err != nil || untold != refusal.untold {
			t.Errorf("%d %s for a: %+v, %v, want untold %v", refusal.status, refusal.body, entries, err, refusal.untold)
		}
		if !refusal.untold && len(entries) != 1 {
			t.Errorf("%+v, want lab/b:1", entries)
		}
	}
}

// When the registry lets nobody in any more, the login has lapsed.
func TestList_loginLapsed(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.text("/v2/_catalog", `{"repositories":["lab/a","lab/b"]}`)
	f.text("/v2/lab/b/tags/list", `{"tags":["1"]}`)
	f.manifest("lab/b", "1", []byte("sif"))
	refuse := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
	f.on("/v2/", refuse)
	f.on("/v2/lab/a/tags/list", refuse)
	got, err := backends.Collect(open(t, config{"url": f.URL}).List(t.Context(), "lab"))
	backendtest.WantErr(t, fmt.Sprintf("List = %v", got), err, backends.ErrUnauthorized)
}
