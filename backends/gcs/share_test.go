// SPDX-License-Identifier: Apache-2.0

package gcs

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/gcs/gcstest"
	"github.com/sregfs/sregfs/backends/internal/google"
)

// Signatures are those of Google's own tests of all its clients: see the source in the file.
func TestSign(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/v4_signatures.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		ServiceAccount json.RawMessage
		SigningV4Tests []struct {
			Description, Bucket, Object, Timestamp, ExpectedURL string
			Expiration                                          int
			QueryParameters                                     map[string]string
		}
	}
	if err := json.Unmarshal(text, &v); err != nil || len(v.SigningV4Tests) == 0 {
		t.Fatal(err)
	}
	login, err := google.New(backends.Env{Secret: func(context.Context, bool) (string, error) { return string(v.ServiceAccount), nil }}, google.Options{})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := login.Signer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range v.SigningV4Tests {
		now, err := time.Parse(time.RFC3339, test.Timestamp)
		if err != nil {
			t.Fatal(err)
		}
		q := url.Values{}
		for name, value := range test.QueryParameters {
			q.Set(name, value)
		}
		got, err := sign(signer, googles, "/"+test.Bucket+"/"+slashed(test.Object), q, now, time.Duration(test.Expiration)*time.Second)
		if err != nil || got != test.ExpectedURL {
			t.Errorf("%s: %v\n%s, want\n%s", test.Description, err, got, test.ExpectedURL)
		}
	}
}

func get(t *testing.T, link string) (int, string) {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Get(link)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestShare(t *testing.T) {
	t.Parallel()
	srv := gcstest.Start(t, gcstest.Options{})
	srv.Put("in/some folder/hello&co:1.sif", []byte("shared"), nil)
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	account := string(srv.Account())
	secret := func(context.Context, bool) (string, error) { return account, nil }
	share := func(config map[string]any, secret backends.SecretFunc, with string) (string, error) {
		t.Helper()
		config["prefix"] = "in"
		c := openWith(t, srv, hc, config, secret)
		img, err := c.Stat(t.Context(), backends.Ref{Collection: "some folder", Name: "hello&co", Tag: "1"})
		if err != nil {
			t.Fatal(err)
		}
		return c.Share(t.Context(), img, with)
	}
	if link, err := share(map[string]any{}, token, ""); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "public = true") {
		t.Errorf("without a key: %q, %v", link, err)
	}
	link, err := share(map[string]any{}, secret, "")
	if err != nil {
		t.Fatal(err)
	}
	if status, text := get(t, link); text != "shared" {
		t.Errorf("signed: %d %s\n%s", status, text, link)
	}
	if status, _ := get(t, strings.Replace(link, "hello", "other", 1)); status != http.StatusForbidden {
		t.Errorf("another object: %d", status)
	}
	if plain, _, _ := strings.Cut(link, "?"); len(srv.Readers("in/some folder/hello&co:1.sif")) > 0 {
		t.Errorf("%s was opened", plain)
	} else if status, _ := get(t, plain); status != http.StatusForbidden {
		t.Errorf("without the signature: %d", status)
	}
	if _, err := share(map[string]any{}, token, "me@example.org"); err != nil || srv.Readers("in/some folder/hello&co:1.sif")[0] != "user-me@example.org" {
		t.Errorf("with somebody: %v, %v", srv.Readers("in/some folder/hello&co:1.sif"), err)
	}
	open := gcstest.Start(t, gcstest.Options{Public: true})
	open.Put("vsoch/hello:1.sif", []byte("everybody's"), nil)
	c := openWith(t, open, hc, map[string]any{"anonymous": true}, nil)
	img, err := c.Stat(t.Context(), mustRef(t, "vsoch/hello:1"))
	if err != nil {
		t.Fatal(err)
	}
	if link, err := c.Share(t.Context(), img, ""); err != nil || link != open.URL+"/images/vsoch/hello%3A1.sif" {
		t.Errorf("without a login: %q, %v", link, err)
	} else if _, text := get(t, link); text != "everybody's" {
		t.Errorf("without a login: %q", text)
	}
	if link, err = share(map[string]any{"public": true}, token, ""); err != nil {
		t.Fatal(err)
	}
	if status, text := get(t, link); text != "shared" {
		t.Errorf("public: %d %s", status, text)
	}
}

// A bucket whose objects cannot be opened one by one says so.
func TestShare_uniform(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gcstest.Options{Uniform: true}, map[string]any{"public": true})
	srv.Put("vsoch/hello:1.sif", []byte("x"), nil)
	img, err := c.Stat(t.Context(), mustRef(t, "vsoch/hello:1"))
	if err != nil {
		t.Fatal(err)
	}
	if link, err := c.Share(t.Context(), img, ""); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "uniform") || link != "" {
		t.Errorf("%q, %v", link, err)
	}
}
