// SPDX-License-Identifier: Apache-2.0

package library_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/library/librarytest"
)

// A liar answers each path with what a test tells it to.
type liar map[string]string

func (l liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, ok := l[r.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, text)
}

const version2 = `{"data":{"version":"1","apiVersion":"2.0.0-alpha.2"}}`

func lie(t *testing.T, l liar) string {
	t.Helper()
	l["/version"] = version2
	srv := httptest.NewServer(l)
	t.Cleanup(srv.Close)
	return srv.URL
}

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// Facts that cannot be are no facts.
func TestStat_hostile(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"page":          `<!DOCTYPE html><html>`,
		"empty":         ``,
		"array":         `[]`,
		"no data":       `{}`,
		"null":          `{"data":null}`,
		"error and 200": `{"error":{"code":500,"message":"no"}}`,
		"no hash":       `{"data":{"id":"1","size":5,"uploaded":true}}`,
		"other hash":    `{"data":{"id":"1","hash":"md5.0123","size":5,"uploaded":true}}`,
		"short hash":    `{"data":{"id":"1","hash":"sha256.abc","size":5,"uploaded":true}}`,
		"path in hash":  `{"data":{"id":"1","hash":"sha256.` + hex64 + `/../../x","size":5,"uploaded":true}}`,
		"negative size": `{"data":{"id":"1","hash":"sha256.` + hex64 + `","size":-5,"uploaded":true}}`,
		"huge size":     `{"data":{"id":"1","hash":"sha256.` + hex64 + `","size":99999999999999999999,"uploaded":true}}`,
		"no id":         `{"data":{"hash":"sha256.` + hex64 + `","size":5,"uploaded":true}}`,
		"deep":          strings.Repeat(`{"data":`, 100_000),
	} {
		b := newRemote(t, config{"url": lie(t, liar{"/v1/images/lab/c/tool:1": text})})
		img, err := b.Stat(t.Context(), backendtest.Ref(t, "lab/c/tool:1"))
		if !errors.Is(err, backends.ErrBadAnswer) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: Stat = %+v, %v, want ErrBadAnswer", name, img, err)
		}
	}
	b := newRemote(t, config{"url": lie(t, liar{
		"/v1/images/lab/c/tool:1":                                 `{"data":{"id":"1","hash":"sha256.` + hex64 + `","size":5,"uploaded":false}}`,
		"/v1/images/lab/c/tool:2":                                 `{"data":{"id":"1","hash":"sha256.` + hex64 + `","uploaded":true,"createdAt":"2018-02-27T15:50:00+6:00","description":"` + strings.Repeat("x", 5000) + `"}}`,
		"/v1/images/lab/c/tool:3":                                 `{"data":{"id":"1","hash":"sha256.` + hex64 + `","size":5,"uploaded":true,"deleted":true}}`,
		"/v1/images/lab/c/tool:sha256." + strings.Repeat("a", 64): `{"data":{"id":"1","hash":"sha256.` + hex64 + `","size":5,"uploaded":true}}`,
	})})
	_, err := b.Stat(t.Context(), backendtest.Ref(t, "lab/c/tool:1"))
	backendtest.WantErr(t, "an upload that has not ended", err, fs.ErrNotExist)
	if img := backendtest.Stat(t, b, "lab/c/tool:2"); img.Size != -1 || !img.Modified.IsZero() || img.Labels != nil {
		t.Errorf("of an image without facts: %+v", img)
	}
	_, err = b.Stat(t.Context(), backendtest.Ref(t, "lab/c/tool:3"))
	backendtest.WantErr(t, "a deleted image", err, fs.ErrNotExist)
	_, err = b.Stat(t.Context(), backends.Ref{Collection: "lab/c", Name: "tool", Version: "sha256:" + strings.Repeat("a", 64)})
	backendtest.WantErr(t, "another digest than asked for", err, backends.ErrBadAnswer)
}

// Names that cannot be are left out; ids lead nowhere else; lists have an end.
func TestList_hostile(t *testing.T) {
	t.Parallel()
	endless := `{"data":{"id":"9","name":"endless","containers":["k1"` + strings.Repeat(`,"k1"`, 200_000) + `]}}`
	b := newRemote(t, config{"url": lie(t, liar{
		"/v1/entities/lab":             `{"data":{"id":"1","name":"lab","collections":["c1","c2","c3","c1","gone"]}}`,
		"/v1/entities/way":             `{"data":{"id":"1","name":"way","collections":["../../version"]}}`,
		"/v1/collections/c1":           `{"data":{"id":"c1","name":"..","containers":[]}}`,
		"/v1/collections/c2":           `{"data":{"id":"c2","name":"fine","containers":[]}}`,
		"/v1/collections/c3":           `{"data":{"id":"c3","name":"fine","containers":[]}}`,
		"/v1/collections/lab/names":    `{"data":{"id":"9","name":"names","containers":["k1","k2","k3","k4"]}}`,
		"/v1/collections/lab/endless":  endless,
		"/v1/containers/k1":            `{"data":{"id":"k1","name":"tool","archTags":{"amd64":{"1":"i","../x":"i","a/b":"i","":"i","sha256.` + hex64 + `":"i"}}}}`,
		"/v1/containers/k2":            `{"data":{"id":"k2","name":"../../etc","imageTags":{"1":"i"}}}`,
		"/v1/containers/k3":            `{"data":{"id":"k3","name":"tool","imageTags":{"2":"i"}}}`,
		"/v1/containers/k4":            `{"data":{"id":"k4","name":"old","deleted":true,"imageTags":{"2":"i"}}}`,
		"/v1/collections/lab/nonsense": `{"data":{"id":"9","name":"nonsense","containers":{"a":1}}}`,
	})})
	for collection, want := range map[string][]string{"lab": {"lab/fine/"}, "lab/names": {"lab/names/tool:1"}, "lab/endless": {"lab/endless/tool:1"}} {
		if diff := cmp.Diff(want, backendtest.Names(t, b, collection)); diff != "" {
			t.Errorf("List(%s) (-want +got):\n%s", collection, diff)
		}
	}
	for _, collection := range []string{"way", "lab/nonsense"} {
		_, err := backends.Collect(b.List(t.Context(), collection))
		backendtest.WantErr(t, "List("+collection+")", err, backends.ErrBadAnswer)
	}
	for _, collection := range []string{"lab/fine/deeper", "..", "lab/..", "La"} {
		_, err := backends.Collect(b.List(t.Context(), collection))
		backendtest.WantErr(t, "List("+collection+")", err, fs.ErrNotExist)
	}
}

// A redirect to a registry that makes no sense is none.
func TestRedirect_hostile(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	facts := `{"data":{"id":"1","hash":"sha256.` + strings.TrimPrefix(backendtest.Source([]byte("hello")).Digest, "sha256:") + `","size":5,"uploaded":true}}`
	for name, text := range map[string]string{
		"empty": `{}`, "array": `[1]`, "page": `<html>`, "no address": `{"token":"t","name":"a/b/c"}`,
		"path in the name": `{"url":"http://registry.example","name":"../../etc"}`, "no name": `{"url":"http://registry.example","name":"/"}`,
		"upper case": `{"url":"http://registry.example","name":"A/B"}`, "below a path": `{"url":"http://registry.example/some/path","name":"a/b"}`,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/version":
				io.WriteString(w, version2)
			case r.URL.Path == "/v1/oci-redirect":
				asked.Add(1)
				io.WriteString(w, text)
			case strings.HasPrefix(r.URL.Path, "/v1/images/"):
				io.WriteString(w, facts)
			default:
				io.WriteString(w, "hello")
			}
		}))
		t.Cleanup(srv.Close)
		b := newRemote(t, config{"url": srv.URL})
		img := backendtest.Stat(t, b, "lab/c/tool:1")
		for range 3 {
			if got, err := backendtest.Read(t, b, img, 0, -1); string(got) != "hello" {
				t.Errorf("%s: read %q, %v", name, got, err)
			}
		}
		if n := asked.Swap(0); n != 1 {
			t.Errorf("%s: asked for %d times", name, n)
		}
	}
}

// An answer of ten gigabytes is not read to its end.
func TestAnswer_endless(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/version" {
			io.WriteString(w, version2)
			return
		}
		chunk := []byte(strings.Repeat(`{"a":"b"},`, 10_000))
		io.WriteString(w, `{"data":[`)
		for range 100_000 {
			n, err := w.Write(chunk)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	b := newRemote(t, config{"url": srv.URL})
	_, err := b.Stat(t.Context(), backendtest.Ref(t, "lab/c/tool:1"))
	backendtest.WantErr(t, "Stat", err, backends.ErrBadAnswer)
	_, err = backends.Collect(b.List(t.Context(), "lab"))
	backendtest.WantErr(t, "List", err, backends.ErrBadAnswer)
	_, err = backends.Collect(b.Search(t.Context(), "anything"))
	backendtest.WantErr(t, "Search", err, backends.ErrBadAnswer)
	if n := sent.Load(); n > 300<<20 {
		t.Errorf("%d bytes were taken", n)
	}
}

// Bodies of images that are not the image.
func TestOpen_hostile(t *testing.T) {
	t.Parallel()
	facts := `{"data":{"id":"1","hash":"sha256.` + hex64 + `","size":1000,"uploaded":true}}`
	for name, answer := range map[string]http.HandlerFunc{
		"page": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, strings.Repeat("<p>", 400)[:1000])
		},
		"longer": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 1001)) },
		"other range": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 500-999/1000")
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, strings.Repeat("x", 500))
		},
		"other size": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-999/2000")
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, strings.Repeat("x", 1000))
		},
		"compressed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, strings.Repeat("x", 1000))
		},
		"circle": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusSeeOther) },
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/version":
				io.WriteString(w, version2)
			case strings.HasPrefix(r.URL.Path, "/v1/images/"):
				io.WriteString(w, facts)
			case strings.HasPrefix(r.URL.Path, "/v1/imagefile/"):
				answer(w, r)
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		}))
		t.Cleanup(srv.Close)
		b := newRemote(t, config{"url": srv.URL})
		if got, err := backendtest.Read(t, b, backendtest.Stat(t, b, "lab/c/tool:1"), 0, -1); err == nil {
			t.Errorf("%s: %d bytes without an error", name, len(got))
		}
	}
}

// example returns a client for which each name of .example is the server at
// address; what is asked of any other is an error.
func example(t *testing.T, address string, cert *x509.Certificate) func(*backends.Env) {
	t.Helper()
	roots := x509.NewCertPool()
	if cert != nil {
		roots.AddCert(cert)
	}
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"},
		DialContext: func(ctx context.Context, network, host string) (net.Conn, error) {
			if !strings.Contains(host, ".example:") {
				t.Errorf("connected to %s", host)
				return nil, errors.New("no such host")
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return func(env *backends.Env) { env.HTTP = &http.Client{Transport: tr} }
}

// Where a library must not send its clients: from https to http, and from the
// Internet into a private network. Nothing is asked there, and no token sent.
func TestAddresses_refused(t *testing.T) {
	t.Parallel()
	var to atomic.Value
	facts := `{"data":{"id":"1","container":"1","hash":"sha256.` + hex64 + `","size":5,"uploaded":true}}`
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		address := to.Load().(string)
		switch path := r.URL.Path; {
		case path == "/version" && strings.HasPrefix(r.Host, "library."):
			io.WriteString(w, version2)
		case path == "/assets/config/config.prod.json":
			fmt.Fprintf(w, `{"libraryAPI":{"uri":%q}}`, address)
		case path == "/v1/oci-redirect" && r.FormValue("accessTypes") == "pull":
			fmt.Fprintf(w, `{"url":%q,"token":"t","name":"a/b/c"}`, address)
		case strings.HasPrefix(path, "/v1/images/") && strings.HasSuffix(path, ":1"):
			io.WriteString(w, facts)
		case r.Method == http.MethodGet && (strings.HasPrefix(path, "/v1/containers/") || strings.HasPrefix(path, "/v1/images/")):
			io.WriteString(w, strings.Replace(facts, hex64, strings.TrimPrefix(backendtest.Source([]byte("small")).Digest, "sha256:"), 1)[:len(facts)-len(`true}}`)]+`false}}`)
		case strings.HasSuffix(path, "/_multipart") && r.Method == http.MethodPost:
			io.WriteString(w, `{"data":{"uploadID":"u","totalParts":1,"partSize":6000000}}`)
		case strings.HasPrefix(path, "/v2/imagefile/") && r.Method != http.MethodGet:
			fmt.Fprintf(w, `{"data":{"uploadURL":%q,"presignedURL":%q}}`, address, address)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(srv.Close)
	via := example(t, srv.Listener.Addr().String(), srv.Certificate())
	for _, address := range []string{
		"http://store.example/x", "http://library.example/x", "https://127.0.0.1/x", "https://169.254.169.254/latest/meta-data", "https://10.1.2.3:8443/x",
		"https://[::1]/x", "https://[fe80::1]/x", "https://localhost/x", "https://a.localhost./x", "https://2130706433/x", "https://0x7f.1/x",
		"file:///etc/passwd", "https://me:pw@store.example/x", "ftp://store.example/x", "::",
	} {
		to.Store(address)
		b := newRemote(t, config{"url": "https://library.example"}, via, loggedIn())
		if got, err := backendtest.Read(t, b, backendtest.Stat(t, b, "lab/c/tool:1"), 0, -1); !errors.Is(err, backends.ErrBadAnswer) {
			t.Errorf("registry at %s: %d bytes, %v, want ErrBadAnswer", address, len(got), err)
		}
		for _, way := range []string{"single", "multipart"} {
			b = newRemote(t, config{"url": "https://library.example", "push_by": way}, via, loggedIn())
			_, err := b.Push(t.Context(), backendtest.Ref(t, "lab/c/tool:new"), backendtest.Source([]byte("small")))
			backendtest.WantErr(t, way+" to "+address, err, backends.ErrBadAnswer)
		}
		b = newRemote(t, config{"url": "https://cloud.example"}, via, loggedIn())
		if _, err := b.Stat(t.Context(), backendtest.Ref(t, "lab/c/tool:1")); err == nil {
			t.Errorf("a library at %s was asked", address)
		}
	}
	// An endpoint may name a library elsewhere.
	to.Store("https://library.example/")
	backendtest.Stat(t, newRemote(t, config{"url": "https://cloud.example"}, via, loggedIn()), "lab/c/tool:1")
}

// No other origin ever sees the token, wherever the library sends us.
func TestToken_staysHome(t *testing.T) {
	t.Parallel()
	var away atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		away.Add(1)
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, ""), librarytest.Token) {
				t.Errorf("%s %s: %s has the token", r.Method, r.URL, name)
			}
		}
		io.Copy(io.Discard, r.Body)
		switch {
		case strings.HasPrefix(r.URL.Path, "/v1/images/"):
			fmt.Fprintf(w, `{"data":{"id":"1","hash":"sha256.%s","size":5,"uploaded":true}}`, hex64)
		case strings.HasPrefix(r.URL.Path, "/v2/"):
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			io.WriteString(w, "hello")
		}
	}))
	t.Cleanup(other.Close)
	redirect := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/version":
			io.WriteString(w, version2)
		case path == "/v1/oci-redirect" && redirect:
			fmt.Fprintf(w, `{"url":%q,"token":"registry-token","name":"a/b/c"}`, other.URL)
		case path == "/v1/oci-redirect":
			w.WriteHeader(http.StatusNotFound)
		default: // everything is elsewhere
			http.Redirect(w, r, other.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		}
	}))
	t.Cleanup(srv.Close)
	for _, redirect = range []bool{false, true} {
		b := newRemote(t, config{"url": srv.URL}, loggedIn())
		img := backendtest.Stat(t, b, "lab/c/tool:1")
		got, err := backendtest.Read(t, b, img, 0, -1)
		if !redirect && string(got) != "hello" {
			t.Errorf("read %q, %v", got, err)
		}
		if redirect {
			backendtest.WantErr(t, "a registry that takes no token", err, backends.ErrUnauthorized)
		}
		_, _ = b.Push(t.Context(), backendtest.Ref(t, "lab/c/tool:2"), backendtest.Source([]byte("small")))
		_ = b.Delete(t.Context(), img)
		_, _ = backends.Collect(b.List(t.Context(), "lab"))
	}
	if away.Load() == 0 {
		t.Error("nothing was asked elsewhere")
	}
}

// A library that does not tell tags of another case apart says which one it has, and
// that is not replaced by who named the other.
func TestStat_otherSpelling(t *testing.T) {
	t.Parallel()
	image := fmt.Sprintf(`{"data":{"id":"0123","hash":"sha256.%s","size":5,"uploaded":true,"arch":"amd64","tags":["old","low"]}}`, hex64)
	b := newRemote(t, config{"url": lie(t, liar{"/version": version2, "/v1/images/lab/c/tool:LOW": image, "/v1/images/lab/c/tool:low": image})}, loggedIn())
	if img := backendtest.Stat(t, b, "lab/c/tool:LOW"); img.Ref != backendtest.Ref(t, "lab/c/tool:low") {
		t.Errorf("Stat(LOW) = %s", img.Ref)
	}
	src := backendtest.Source([]byte("small"))
	src.Replaces = backends.ReplaceAny
	if _, err := b.Push(t.Context(), backendtest.Ref(t, "lab/c/tool:LOW"), src); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "lab/c/tool:low") {
		t.Errorf("Push(LOW) = %v", err)
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	b := newRemote(t, config{})
	version := "sha256:" + hex64
	for _, good := range []backends.Ref{
		{Collection: "library", Name: "alpine", Tag: "3.20"}, {Collection: "a/b", Name: "c", Tag: "V1.0_x+y-z"},
		{Collection: "my-lab/some.tools", Name: "a_b", Version: version}, {Collection: "a/b", Name: "c", Tag: "1", Version: "ppc64le"},
		{Collection: "a/b", Name: "c", Version: "sif.01234567-89ab-cdef-0123-456789abcdef"}, {Collection: "a", Name: "c", Tag: "1", Version: "sha256." + hex64},
	} {
		if err := b.CheckName(good); err != nil {
			t.Errorf("CheckName(%v): %v", good, err)
		}
	}
	for _, bad := range []backends.Ref{
		{Name: "alpine", Tag: "1"}, {Collection: "a/b/c", Name: "d", Tag: "1"}, {Collection: "A", Name: "b", Tag: "1"}, {Collection: "a--b", Name: "c", Tag: "1"},
		{Collection: "a", Name: "-b", Tag: "1"}, {Collection: "a", Name: "b", Tag: "1,2"}, {Collection: "a", Name: "b", Tag: "sha256." + hex64},
		{Collection: "a", Name: "b", Tag: strings.Repeat("t", 129)}, {Collection: "a", Name: strings.Repeat("n", 256), Tag: "1"},
		{Collection: "a", Name: "b", Tag: "1", Version: "no version"}, {Collection: "a", Name: "b", Tag: "1", Version: "sha256:abc"},
	} {
		backendtest.WantErr(t, fmt.Sprintf("CheckName(%v)", bad), b.CheckName(bad), fs.ErrInvalid)
	}
}
