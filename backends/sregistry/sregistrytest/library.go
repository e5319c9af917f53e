// SPDX-License-Identifier: Apache-2.0

package sregistrytest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

// bearer checks the login of the library API and answers if it is not there.
func (s *Server) bearer(w http.ResponseWriter, r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if ok && (token == Token || token != "" && token == s.opts.Trust) {
		return true
	}
	reply(w, http.StatusUnauthorized, dict{"error": dict{"code": 401, "message": "Invalid token"}})
	return false
}

func data(w http.ResponseWriter, v any) { reply(w, http.StatusOK, dict{"data": v}) }

func (s *Server) tokenStatus(w http.ResponseWriter, r *http.Request, _ []string) {
	if s.bearer(w, r) {
		data(w, dict{"status": "OK"})
	}
}

func (s *Server) entity(w http.ResponseWriter, r *http.Request, m []string) {
	switch {
	case !s.bearer(w, r):
	case m[1] != User:
		notFound(w)
	default:
		data(w, dict{"id": "1", "name": User})
	}
}

func (s *Server) libraryCollection(w http.ResponseWriter, r *http.Request, m []string) {
	if !s.bearer(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	col := s.collections[m[2]]
	if col == nil || m[1] != User {
		notFound(w)
		return
	}
	data(w, dict{"id": strconv.Itoa(col.id), "name": col.name, "private": col.private})
}

func (s *Server) makeCollection(w http.ResponseWriter, r *http.Request, _ []string) {
	if !s.bearer(w, r) {
		return
	}
	var asked struct {
		Entity, Name string
		Private      bool
	}
	if json.NewDecoder(r.Body).Decode(&asked) != nil || asked.Entity != "1" || asked.Name == "" {
		reply(w, http.StatusBadRequest, dict{})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	col := s.collection(normalize(asked.Name))
	col.private = asked.Private
	data(w, dict{"id": strconv.Itoa(col.id), "name": col.name})
}

// nameless makes an image for a digest, with a tag that nobody asks for.
func (s *Server) nameless(w http.ResponseWriter, r *http.Request, m []string) {
	if !s.bearer(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	col, sum := s.collections[m[2]], strings.TrimPrefix(m[4], "sha256.")
	if col == nil || r.FormValue("arch") == "" {
		notFound(w)
		return
	}
	for _, c := range s.containers {
		if c.in == col && c.name == m[3] && c.sum == sum && c.key != "" {
			data(w, dict{"id": strconv.Itoa(c.id), "hash": "sha256." + sum, "uploaded": c.object != nil})
			return
		}
	}
	c := &container{id: s.id(), in: col, name: m[3], sum: sum, version: "sha256." + sum, modified: s.now()}
	c.tag = fmt.Sprintf("DUMMY-%08d", c.id)
	c.key = fmt.Sprintf("/%s/%d.sif", col.name, c.id)
	s.containers = append(s.containers, c)
	data(w, dict{"id": strconv.Itoa(c.id), "hash": "sha256." + sum, "uploaded": false})
}

func (s *Server) byID(id string) *container {
	for _, c := range s.containers {
		if strconv.Itoa(c.id) == id {
			return c
		}
	}
	return nil
}

// imageFile redirects to the object store.
func (s *Server) imageFile(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(m[1], m[2], m[3])
	switch {
	case c == nil || c.key == "" || c.object == nil || r.FormValue("arch") == "":
		notFound(w)
	case c.in.private && r.Header.Get("Authorization") != "Bearer "+Token:
		reply(w, http.StatusForbidden, dict{})
	default:
		http.Redirect(w, r, s.presign(http.MethodGet, c.key, nil), http.StatusFound)
	}
}

// presign returns an address of the object store that is good for one method.
// Called with s.mu held.
func (s *Server) presign(method, path string, query url.Values) string {
	q := url.Values{}
	for key := range query {
		q.Set(key, query.Get(key))
	}
	q.Set("X-Amz-Date", time.Now().UTC().Format("20060102T150405Z"))
	q.Set("X-Amz-Expires", "300")
	q.Set("X-Amz-Signature", s.signature(method, path, q))
	return s.StoreURL + path + "?" + q.Encode()
}

func (s *Server) signature(method, path string, q url.Values) string {
	mac := hmac.New(sha256.New, []byte(s.key))
	fmt.Fprintln(mac, method, path, q.Get("X-Amz-Date"), q.Get("X-Amz-Expires"), q.Get("uploadId"), q.Get("partNumber"), q.Get("sha"))
	return hex.EncodeToString(mac.Sum(nil))
}

func xmlError(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
}

// serveStore is the object store.
func (s *Server) serveStore(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s.mu.Lock()
	s.seen = append(s.seen, r.Method+" store"+r.URL.Path)
	good := hmac.Equal([]byte(q.Get("X-Amz-Signature")), []byte(s.signature(r.Method, r.URL.Path, q)))
	signed, err := time.Parse("20060102T150405Z", q.Get("X-Amz-Date"))
	stored := s.objects[r.URL.Path]
	s.mu.Unlock()
	switch {
	case r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "":
		xmlError(w, http.StatusBadRequest, "InvalidRequest") // S3 takes one login, not two
	case !good || err != nil || time.Since(signed) > 5*time.Minute:
		xmlError(w, http.StatusForbidden, "AccessDenied")
	case r.Method == http.MethodPut:
		s.storePut(w, r, q)
	case stored == nil:
		xmlError(w, http.StatusNotFound, "NoSuchKey")
	default:
		w.Header().Set("ETag", `"`+stored.md5+`"`)
		w.Header().Set("Content-Type", "binary/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, stored.Reader())
	}
}

func (s *Server) storePut(w http.ResponseWriter, r *http.Request, q url.Values) {
	if r.ContentLength < 0 {
		xmlError(w, http.StatusLengthRequired, "MissingContentLength")
		return
	}
	got, err := s.take(r.Body)
	number, _ := strconv.Atoi(q.Get("partNumber"))
	switch {
	case err != nil || got.Size() != r.ContentLength:
		return // the connection broke: nothing is stored
	case number > 0 && (s.opts.RefuseParts || r.Header.Get("X-Amz-Content-Sha256") != q.Get("sha")):
		xmlError(w, http.StatusForbidden, "SignatureDoesNotMatch")
		return
	case number > 0 && got.sha != q.Get("sha"):
		xmlError(w, http.StatusBadRequest, "XAmzContentSHA256Mismatch")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if number > 0 {
		up := s.uploads[q.Get("uploadId")]
		if up == nil {
			xmlError(w, http.StatusNotFound, "NoSuchUpload")
			return
		}
		up.parts[number] = got
	} else {
		s.objects[r.URL.Path] = got
	}
	w.Header().Set("ETag", `"`+got.md5+`"`)
}

func (s *Server) signUpload(w http.ResponseWriter, r *http.Request, m []string) {
	if !s.bearer(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.byID(m[1])
	if c == nil || c.key == "" {
		notFound(w)
		return
	}
	data(w, dict{"uploadURL": s.presign(http.MethodPut, c.key, nil)})
}

func (s *Server) complete(w http.ResponseWriter, r *http.Request, m []string) {
	if !s.bearer(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.byID(m[1])
	if c == nil || s.objects[c.key] == nil {
		notFound(w)
		return
	}
	c.object = s.objects[c.key]
	data(w, dict{"containerUrl": "entities/" + User})
}

func (s *Server) openParts(w http.ResponseWriter, r *http.Request, m []string) {
	if !s.bearer(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.byID(m[1])
	var asked struct{ Filesize int64 }
	if s.opts.NoParts || c == nil || json.NewDecoder(r.Body).Decode(&asked) != nil {
		notFound(w)
		return
	}
	size := s.opts.PartSize
	if size == 0 {
		size = 500 << 20
	}
	id := fmt.Sprintf("upload-%d", s.id())
	s.uploads[id] = &upload{container: c, partSize: size, parts: map[int]*object{}}
	data(w, dict{"uploadID": id, "totalParts": (asked.Filesize + size - 1) / size, "partSize": size})
}

func (s *Server) signPart(w http.ResponseWriter, r *http.Request, m []string) {
	if !s.bearer(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var asked struct {
		PartSize, PartNumber int64
		UploadID, SHA256sum  string
	}
	c := s.byID(m[1])
	if json.NewDecoder(r.Body).Decode(&asked) != nil || c == nil || s.uploads[asked.UploadID] == nil {
		notFound(w)
		return
	}
	q := url.Values{"uploadId": {asked.UploadID}, "partNumber": {strconv.FormatInt(asked.PartNumber, 10)}, "sha": {asked.SHA256sum}}
	data(w, dict{"presignedURL": s.presign(http.MethodPut, c.key, q)})
}

func (s *Server) completeParts(w http.ResponseWriter, r *http.Request, m []string) {
	if !s.bearer(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var asked struct {
		UploadID       string
		CompletedParts []struct {
			PartNumber int
			Token      string
		}
	}
	c := s.byID(m[1])
	err := json.NewDecoder(r.Body).Decode(&asked)
	up := s.uploads[asked.UploadID]
	if err != nil || up == nil || up.container != c {
		notFound(w)
		return
	}
	parts := make([]bodytest.Body, len(asked.CompletedParts))
	for i, part := range asked.CompletedParts {
		got := up.parts[part.PartNumber]
		if part.PartNumber != i+1 || got == nil || part.Token != `"`+got.md5+`"` {
			reply(w, http.StatusBadRequest, dict{"error": dict{"code": 400, "message": "InvalidPart"}})
			return
		}
		parts[i] = got.Body
	}
	o := newObject(bodytest.Join(parts...))
	s.objects[c.key], c.object = o, o
	delete(s.uploads, asked.UploadID)
	data(w, dict{})
}

// setTag names an image. It takes no Content-Type, and moves the tag.
func (s *Server) setTag(w http.ResponseWriter, r *http.Request, m []string) {
	if !s.bearer(w, r) {
		return
	}
	if r.Header.Get("Content-Type") != "" {
		reply(w, http.StatusUnsupportedMediaType, dict{"detail": "Unsupported media type"})
		return
	}
	var asked struct{ Tag, ImageID string }
	s.mu.Lock()
	defer s.mu.Unlock()
	err := json.NewDecoder(r.Body).Decode(&asked)
	c := s.byID(asked.ImageID)
	if err != nil || asked.Tag == "" || c == nil || c.object == nil || strconv.Itoa(c.in.id) != m[1] {
		reply(w, http.StatusBadRequest, dict{})
		return
	}
	tagged := c
	if !strings.HasPrefix(c.tag, "DUMMY-") {
		other := *c // the image has a name already: one container for each
		other.id = s.id()
		tagged = &other
	}
	tagged.tag = asked.Tag
	s.containers = slices.DeleteFunc(s.containers, func(o *container) bool { return o == tagged })
	s.replace(tagged)
	data(w, dict{})
}
