// SPDX-License-Identifier: Apache-2.0

package webdav

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/http/webtest"
)

const (
	ncFiles   = "/remote.php/dav/files/me/"
	ncUploads = "/remote.php/dav/uploads/me/"
)

// A nextcloud is what Nextcloud does besides WebDAV, in front of a real Apache: it keeps
// OC-Checksum (unseen) and X-OC-Mtime, and takes chunks. It is written from its developer manual,
// "Chunked file upload", version 2, and stricter where that demands what the server lets pass (a
// Destination everywhere, a least size of chunks).
type nextcloud struct {
	*httptest.Server
	t      testing.TB
	apache *webtest.Server
	proxy  *httputil.ReverseProxy
	client *http.Client
	least  int64                                             // bytes of a chunk that is not the last
	hook   func(w http.ResponseWriter, r *http.Request) bool // may answer itself

	mu      sync.Mutex // guards the fields below
	uploads map[string]*ncUpload
	shared  map[string]bool
}

type ncUpload struct {
	destination string // path
	chunks      map[int][]byte
}

func newNextcloud(t testing.TB, least int64) *nextcloud {
	t.Helper()
	n := &nextcloud{t: t, apache: webtest.ApacheDAV(t, webtest.Options{}), least: least, uploads: map[string]*ncUpload{}, shared: map[string]bool{}}
	n.apache.Put(ncFiles+".keep", nil, time.Now())
	at, err := url.Parse(n.apache.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	n.client = &http.Client{Transport: transport}
	n.proxy = &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(at)
			p.Out.Host = p.In.Host // which Destination names
		},
		ModifyResponse: func(resp *http.Response) error {
			if resp.Request.Method != http.MethodPut || resp.StatusCode/100 != 2 {
				return nil
			}
			return n.keep(resp.Request.URL.Path, resp.Request.Header)
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	n.Server = httptest.NewServer(n)
	t.Cleanup(n.Close)
	return n
}

func (n *nextcloud) file(path string) string {
	return filepath.Join(n.apache.Root, filepath.FromSlash(path))
}

// keep keeps what the headers of an upload say of a file. It looks at no byte of it.
func (n *nextcloud) keep(path string, h http.Header) error {
	if seconds, err := strconv.ParseInt(h.Get("X-OC-Mtime"), 10, 64); err == nil {
		if err := os.Chtimes(n.file(path), time.Now(), time.Unix(seconds, 0)); err != nil {
			return err
		}
	}
	update := `<remove><prop><checksums xmlns="http://owncloud.org/ns"/></prop></remove>`
	if sum := h.Get("OC-Checksum"); sum != "" {
		update = `<set><prop><o:checksums xmlns:o="http://owncloud.org/ns"><o:checksum>` + sum + `</o:checksum></o:checksums></prop></set>`
	}
	address := n.apache.URL + (&url.URL{Path: path}).EscapedPath()
	req, err := http.NewRequestWithContext(n.t.Context(), "PROPPATCH", address, strings.NewReader(`<propertyupdate xmlns="DAV:">`+update+`</propertyupdate>`))
	if err != nil {
		return err
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMultiStatus {
		return fmt.Errorf("PROPPATCH: %s", resp.Status)
	}
	return nil
}

func (n *nextcloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n.hook == nil || !n.hook(w, r) {
		n.serve(w, r)
	}
}

func (n *nextcloud) serve(w http.ResponseWriter, r *http.Request) {
	if user, password, _ := r.BasicAuth(); user != "" && (user != "me" || !slices.Contains(logins[:], password)) {
		w.Header().Set("WWW-Authenticate", `Basic realm="Nextcloud", charset="UTF-8"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if path, ok := strings.CutPrefix(r.URL.Path, ncUploads); ok {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		id, name, _ := strings.Cut(strings.TrimSuffix(path, "/"), "/")
		n.chunk(w, r, id, name, body)
		return
	}
	if r.URL.Path == "/ocs/v2.php/apps/files_sharing/api/v1/shares" {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.share(w, r)
		return
	}
	if r.Method == "LOCK" || r.Method == "UNLOCK" { // it has none without an app for it
		w.WriteHeader(http.StatusNotImplemented)
		return
	}
	n.proxy.ServeHTTP(w, r)
}

// chunk answers what is asked of an upload.
func (n *nextcloud) chunk(w http.ResponseWriter, r *http.Request, id, name string, body []byte) {
	up := n.uploads[id]
	destination := ""
	if r.Method != "PROPFIND" && r.Method != http.MethodDelete {
		to, err := url.Parse(r.Header.Get("Destination"))
		if err != nil || !strings.HasPrefix(to.Path, ncFiles) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		destination = to.Path
	}
	switch {
	case r.Method == "MKCOL" && name == "" && up != nil:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case r.Method == "MKCOL" && name == "":
		n.uploads[id] = &ncUpload{destination: destination, chunks: map[int][]byte{}}
		w.WriteHeader(http.StatusCreated)
	case up == nil:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == "PROPFIND" && name == "":
		up.list(w, r.URL.Path)
	case r.Method == http.MethodDelete && name == "":
		delete(n.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPut && destination == up.destination:
		up.put(w, name, body, n.parent(destination))
	case r.Method == "MOVE" && name == ".file" && destination == up.destination:
		n.assemble(w, r, id, up)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed) // "Chunks cannot be downloaded"
	}
}

// share answers the OCS Share API: it is JSON only if that is asked for, and a browser's request
// (without the header) is refused.
func (n *nextcloud) share(w http.ResponseWriter, r *http.Request) {
	path := r.FormValue("path")
	_, err := os.Stat(n.file(ncFiles + path))
	said := func(status int, data any) {
		w.WriteHeader(status)
		text, _ := json.Marshal(map[string]any{"ocs": map[string]any{"meta": map[string]any{"statuscode": status}, "data": data}})
		_, _ = w.Write(text)
	}
	link := map[string]any{"id": "1", "share_type": 3, "url": "https://cloud.example/s/1?" + path}
	user := map[string]any{"id": "2", "share_type": 0, "share_with": "somebody"}
	switch {
	case r.Header.Get("OCS-APIRequest") != "true":
		said(http.StatusPreconditionFailed, nil)
	case r.FormValue("format") != "json":
		_, _ = io.WriteString(w, `<?xml version="1.0"?><ocs/>`)
	case path == "" || err != nil:
		said(http.StatusNotFound, nil)
	case r.Method == http.MethodGet && n.shared[path]:
		said(http.StatusOK, []any{user, link})
	case r.Method == http.MethodGet:
		said(http.StatusOK, []any{user})
	case r.Method == http.MethodPost && r.PostFormValue("shareType") == "3" && !n.shared[path]:
		n.shared[path] = true
		said(http.StatusOK, link)
	default:
		said(http.StatusBadRequest, nil)
	}
}

// parent reports whether the folder of a path is there.
func (n *nextcloud) parent(path string) bool {
	_, err := os.Stat(filepath.Dir(n.file(path)))
	return err == nil
}

func (up *ncUpload) put(w http.ResponseWriter, name string, body []byte, parent bool) {
	number, err := strconv.Atoi(name)
	switch {
	case err != nil || number < 1 || number > 10_000:
		w.WriteHeader(http.StatusBadRequest)
	case !parent:
		w.WriteHeader(http.StatusNotFound)
	default:
		up.chunks[number] = body
		w.WriteHeader(http.StatusCreated)
	}
}

// list has the file that will be, and the parts by their numbers, as the server lists them.
func (up *ncUpload) list(w http.ResponseWriter, path string) {
	w.Header().Set("Content-Type", "application/xml; charset=utf-8")
	w.WriteHeader(http.StatusMultiStatus)
	fmt.Fprintf(w, `<?xml version="1.0"?><d:multistatus xmlns:d="DAV:"><d:response><d:href>%s</d:href><d:propstat><d:prop><d:resourcetype><d:collection/></d:resourcetype></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>`, path)
	sizes := map[string]int{".file": 0, ".target": 0}
	for number, body := range up.chunks {
		sizes[strconv.Itoa(number)] = len(body)
	}
	for name, size := range sizes {
		fmt.Fprintf(w, `<d:response><d:href>%s%s</d:href><d:propstat><d:prop><d:getcontentlength>%d</d:getcontentlength></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>`, path, name, size)
	}
	fmt.Fprint(w, `</d:multistatus>`)
}

// assemble puts the chunks together at the destination, in the order of their names.
func (n *nextcloud) assemble(w http.ResponseWriter, r *http.Request, id string, up *ncUpload) {
	var whole bytes.Buffer
	numbers := slices.Sorted(maps.Keys(up.chunks))
	for i, number := range numbers {
		if int64(len(up.chunks[number])) < n.least && i < len(numbers)-1 {
			w.WriteHeader(http.StatusInternalServerError) // EntityTooSmall, of the object store
			return
		}
		whole.Write(up.chunks[number])
	}
	path := n.file(up.destination)
	_, err := os.Stat(path)
	exists := err == nil
	switch {
	case r.Header.Get("Oc-Total-Length") != strconv.Itoa(whole.Len()):
		http.Error(w, "Chunks on server do not sum up", http.StatusBadRequest)
		return
	case exists && r.Header.Get("Overwrite") == "F":
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	case !n.parent(up.destination):
		w.WriteHeader(http.StatusConflict)
		return
	}
	if err := cmp.Or(os.WriteFile(path, whole.Bytes(), 0o644), n.keep(up.destination, r.Header)); err != nil {
		n.t.Error(err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	delete(n.uploads, id)
	if exists {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// left returns the uploads that the server still has.
func (n *nextcloud) left() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.uploads)
}

// hidden returns the hidden files of a folder.
func hidden(t *testing.T, srv *webtest.Server, folder string) []string {
	t.Helper()
	all, err := os.ReadDir(filepath.Join(srv.Root, filepath.FromSlash(folder)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range all {
		if strings.HasPrefix(e.Name(), ".sregfs-") {
			names = append(names, e.Name())
		}
	}
	return names
}
