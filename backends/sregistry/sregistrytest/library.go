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
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

// bearer returns whose token the request has. What the views answer to one that is
// not known is up to them.
func (s *Server) bearer(r *http.Request) (user string) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case token == Token || token != "" && token == s.opts.Trust:
		return User
	case token == GuestToken:
		return Guest
	}
	return ""
}

// entities are the numbers of users.
var entities = map[string]string{User: "1", Guest: "2"}

func data(w http.ResponseWriter, v any) { reply(w, http.StatusOK, dict{"data": v}) }

func failure(w http.ResponseWriter, status int, format string, args ...any) {
	reply(w, status, dict{"error": dict{"code": status, "message": fmt.Sprintf(format, args...)}})
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request, _ []string) {
	data(w, dict{"version": "v1.0.0", "apiVersion": "2.0.0-alpha.1"})
}

func (s *Server) identity(w http.ResponseWriter, _ *http.Request, _ []string) {
	reply(w, http.StatusOK, dict{"name": "Tacosaurus Computing Center", "id": "taco", "url": s.URL})
}

func (s *Server) tokenStatus(w http.ResponseWriter, r *http.Request, _ []string) {
	if s.bearer(r) == "" {
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *Server) entity(w http.ResponseWriter, r *http.Request, m []string) {
	id := entities[m[1]]
	if id == "" || s.bearer(r) != m[1] {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	owned := []string{}
	for _, col := range s.collections {
		if col.owner == m[1] {
			owned = append(owned, strconv.Itoa(col.id))
		}
	}
	data(w, dict{
		"collections": owned, "deleted": false, "createdBy": "", "createdAt": addDate, "updatedBy": "", "updatedAt": "", "deletedAt": addDate,
		"id": id, "name": m[1], "description": m[1], "size": 0, "quota": 0, "defaultPrivate": false, "customData": "",
	})
}

func (s *Server) libraryCollection(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user := s.bearer(r)
	switch col := s.collections[m[2]]; {
	case user == "":
		w.WriteHeader(http.StatusForbidden)
	case col == nil || col.owner != user:
		w.WriteHeader(http.StatusNotFound)
	default:
		data(w, s.libraryData(col))
	}
}

func (s *Server) libraryData(col *collection) dict {
	inside := []string{}
	for _, c := range s.containers {
		if c.in == col {
			inside = append(inside, strconv.Itoa(c.id))
		}
	}
	owner := entities[col.owner]
	return dict{
		"containers": inside, "createdAt": addDate, "createdBy": owner, "customData": "", "deleted": false, "deletedAt": addDate,
		"description": col.name + " Collection", "entity": owner, "entityName": col.owner, "id": strconv.Itoa(col.id), "name": col.name,
		"owner": owner, "private": col.private, "size": len(inside), "updatedAt": addDate, "updatedBy": owner,
	}
}

// makeCollection makes a public one unless it is told otherwise, whatever the
// server's own choice is.
func (s *Server) makeCollection(w http.ResponseWriter, r *http.Request, _ []string) {
	user := s.bearer(r)
	if user == "" {
		failure(w, http.StatusForbidden, "Token not valid")
		return
	}
	var asked struct {
		Entity, Name string
		Private      bool
	}
	if json.NewDecoder(r.Body).Decode(&asked) != nil || asked.Entity == "" || asked.Name == "" {
		failure(w, http.StatusBadRequest, "Invalid payload.")
		return
	}
	if asked.Entity != entities[user] {
		failure(w, http.StatusForbidden, "Permission denied %s %s", entities[user], asked.Entity)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := normalize(asked.Name)
	if s.collections[name] != nil {
		failure(w, http.StatusForbidden, "A collection named '%s' exists already!", name)
		return
	}
	col := s.collection(name)
	col.owner, col.private = user, asked.Private
	data(w, s.libraryData(col))
}

// nameless makes an image for a digest, with a tag that nobody asks for: a new one
// each time.
func (s *Server) nameless(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user := s.bearer(r)
	switch col := s.collections[m[2]]; {
	case user == "":
		w.WriteHeader(http.StatusForbidden)
	case col == nil:
		w.WriteHeader(http.StatusNotFound)
	case col.owner != user:
		w.WriteHeader(http.StatusForbidden)
	default:
		id := s.id()
		c := &container{
			id: id, in: col, name: m[3], tag: fmt.Sprintf("DUMMY-%08d-0000-4000-8000-000000000000", id), version: "sha256." + m[4],
			modified: s.now(), metadata: dict{},
		}
		s.append(c)
		data(w, s.imageData(c))
	}
}

// imageData does not say whether the bytes are there.
func (s *Server) imageData(c *container) dict {
	tags := []string{}
	for _, o := range s.containers {
		if o.in == c.in && !strings.HasPrefix(o.tag, "DUMMY-") {
			tags = append(tags, o.tag)
		}
	}
	owner := entities[c.in.owner]
	return dict{
		"deleted": false, "createdBy": owner, "createdAt": addDate, "updatedBy": c.in.owner, "owner": owner, "id": strconv.Itoa(c.id),
		"hash": c.version, "description": c.in.name + " Collection", "container": c.version, "arch": "amd64", "fingerprints": []string{},
		"customData": "", "size": nil, "entity": owner, "entityName": c.in.owner, "collection": strconv.Itoa(c.in.id),
		"collectionName": c.in.name, "containerName": c.name, "tags": tags, "containerStars": 0, "containerDownloads": 0,
	}
}

// parsed returns what the library API reads a name as, and whether it is for user.
func (s *Server) parsed(text, user string) *container {
	in, name, tag := parse(text)
	for _, c := range s.containers {
		if c.in.name == in && c.name == name && (c.tag == tag || strings.HasPrefix(tag, "sha256") && c.version == tag) {
			if c.in.private && user != c.in.owner {
				return nil
			}
			return c
		}
	}
	return nil
}

func (s *Server) image(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.parsed(m[1], s.bearer(r))
	if c == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	data(w, s.imageData(c))
}

// imageFile redirects to the object store, whether the image is there or not.
func (s *Server) imageFile(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.parsed(m[1], s.bearer(r))
	if c == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	http.Redirect(w, r, s.presign(http.MethodGet, c.key(), nil), http.StatusFound)
}

func (s *Server) byID(id string) *container {
	for _, c := range s.containers {
		if strconv.Itoa(c.id) == id {
			return c
		}
	}
	return nil
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

// owned returns the image with that number, or answers why it cannot be had.
func (s *Server) owned(w http.ResponseWriter, r *http.Request, id string) *container {
	user, c := s.bearer(r), s.byID(id)
	switch {
	case user == "":
		w.WriteHeader(http.StatusForbidden)
	case c == nil:
		w.WriteHeader(http.StatusNotFound)
	case c.in.owner != user:
		w.WriteHeader(http.StatusForbidden)
	default:
		return c
	}
	return nil
}

func (s *Server) signUpload(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.owned(w, r, m[1]); c != nil {
		c.metadata["pushSecret"] = "0a1b2c3d-0000-4000-8000-000000000000"
		data(w, dict{"uploadURL": s.presign(http.MethodPut, c.key(), nil)})
	}
}

// complete looks at nothing but the number.
func (s *Server) complete(w http.ResponseWriter, _ *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID(m[1]) == nil {
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *Server) openParts(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.owned(w, r, m[1])
	if c == nil {
		return
	}
	var asked struct{ Filesize int64 }
	if s.opts.NoParts || json.NewDecoder(r.Body).Decode(&asked) != nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	size := s.opts.PartSize
	if size == 0 {
		size = 500 << 20
	}
	id, parts := fmt.Sprintf("upload-%d", s.id()), asked.Filesize/size+1
	s.uploads[id] = &upload{container: c, partSize: size, parts: map[int]*object{}}
	c.metadata = dict{
		"upload_id": id, "upload_filesize": asked.Filesize, "upload_max_size": size, "upload_by": parts, "upload_total_parts": parts,
	}
	data(w, dict{"uploadID": id, "totalParts": parts, "partSize": size})
}

func (s *Server) signPart(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.owned(w, r, m[1])
	if c == nil {
		return
	}
	var asked struct {
		PartSize, PartNumber int64
		UploadID, SHA256sum  string
	}
	if json.NewDecoder(r.Body).Decode(&asked) != nil || c.metadata["upload_id"] != asked.UploadID {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	q := url.Values{"uploadId": {asked.UploadID}, "partNumber": {strconv.FormatInt(asked.PartNumber, 10)}, "sha": {asked.SHA256sum}}
	data(w, dict{"presignedURL": s.presign(http.MethodPut, c.key(), q)})
}

func (s *Server) completeParts(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.owned(w, r, m[1])
	if c == nil {
		return
	}
	var asked struct {
		UploadID       string
		CompletedParts []struct {
			PartNumber int
			Token      string
		}
	}
	err := json.NewDecoder(r.Body).Decode(&asked)
	up := s.uploads[asked.UploadID]
	if err != nil || up == nil || up.container != c {
		broken(w)
		return
	}
	parts := make([]bodytest.Body, len(asked.CompletedParts))
	for i, part := range asked.CompletedParts {
		got := up.parts[part.PartNumber]
		if part.PartNumber != i+1 || got == nil || part.Token != `"`+got.md5+`"` {
			broken(w)
			return
		}
		parts[i] = got.Body
	}
	s.objects[c.key()] = newObject(bodytest.Join(parts...))
	delete(s.uploads, asked.UploadID)
	reply(w, http.StatusOK, dict{})
}

// abortParts deletes the image.
func (s *Server) abortParts(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.owned(w, r, m[1]); c != nil {
		s.drop(c)
	}
}

// setTag names an image. It takes no Content-Type. What had the name and the tag, in
// whatever collection, is deleted; where several have them, the view breaks.
func (s *Server) setTag(w http.ResponseWriter, r *http.Request, _ []string) {
	if s.bearer(r) == "" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if kind := r.Header.Get("Content-Type"); kind != "" {
		reply(w, http.StatusUnsupportedMediaType, dict{"detail": fmt.Sprintf("Unsupported media type %q in request.", kind)})
		return
	}
	var asked struct{ Tag, ImageID string }
	if json.NewDecoder(r.Body).Decode(&asked) != nil || asked.Tag == "" {
		broken(w)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.byID(asked.ImageID)
	if c == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	var existing []*container
	for _, o := range s.containers {
		if o != c && o.name == c.name && o.tag == asked.Tag {
			existing = append(existing, o)
		}
	}
	switch {
	case len(existing) > 1:
		broken(w)
		return
	case len(existing) == 1 && existing[0].frozen:
		s.drop(c)
		reply(w, http.StatusBadRequest, dict{"message": "This tag exists, and is frozen."})
		return
	case len(existing) == 1:
		if existing[0].key() != c.key() {
			s.clean(existing[0])
		}
		s.drop(existing[0])
	}
	c.tag = asked.Tag
	s.named[c.fullName()] = true
}
