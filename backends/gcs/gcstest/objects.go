// SPDX-License-Identifier: Apache-2.0

package gcstest

import (
	"bytes"
	"crypto/md5" //nolint:gosec // Google tells it
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

// An object is one version of one.
type object struct {
	name       string
	body       bodytest.Body
	generation int64
	created    time.Time
	about      map[string]any // as it was sent
	older      bool           // replaced or removed, in a bucket that keeps such
	crc, md5   string
}

// Put puts an object into the bucket, as another program would. metadata may be nil.
func (s *Server) Put(name string, content []byte, metadata map[string]string) {
	about := map[string]any{"contentType": "application/octet-stream"}
	if metadata != nil {
		about["metadata"] = metadata
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(name, s.bodies.Put(content), about)
}

// Metadata returns what is kept with an object; nil if it is not there.
func (s *Server) Metadata(name string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.live(name)
	if o == nil {
		return nil
	}
	return metadata(o.about)
}

func metadata(about map[string]any) map[string]string {
	m := map[string]string{}
	switch all := about["metadata"].(type) {
	case map[string]string:
		return maps.Clone(all)
	case map[string]any:
		for key, value := range all {
			m[key] = fmt.Sprint(value)
		}
	}
	return m
}

// Content returns the bytes of an object; nil if it is not there.
func (s *Server) Content(name string) []byte {
	s.mu.Lock()
	o := s.live(name)
	s.mu.Unlock()
	if o == nil {
		return nil
	}
	return o.body.Bytes()
}

// Damage changes what is read of an object, but none of its sums.
func (s *Server) Damage(name string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live(name).body = s.bodies.Put(content)
}

// Readers returns whom an object was opened to.
func (s *Server) Readers(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.readers[name])
}

// live, version and store are for who holds mu.
func (s *Server) live(name string) *object {
	if all := s.objects[name]; len(all) > 0 && !all[len(all)-1].older {
		return all[len(all)-1]
	}
	return nil
}

func (s *Server) version(name, generation string) *object {
	if generation == "" {
		return s.live(name)
	}
	for _, o := range s.objects[name] {
		if strconv.FormatInt(o.generation, 10) == generation {
			return o
		}
	}
	return nil
}

func (s *Server) store(name string, body bodytest.Body, about map[string]any) *object {
	s.retire(name)
	sum, crc := md5.New(), crc32.New(crc32.MakeTable(crc32.Castagnoli)) //nolint:gosec // as above
	body.CopyTo(sum, crc)
	s.generation += 1009
	o := &object{
		name: name, body: body, generation: s.generation, created: time.Now().UTC(), about: about,
		crc: base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc.Sum32())), md5: base64.StdEncoding.EncodeToString(sum.Sum(nil)),
	}
	s.objects[name] = append(s.objects[name], o)
	return o
}

// retire ends the live version.
func (s *Server) retire(name string) {
	o := s.live(name)
	switch {
	case o == nil:
	case s.opts.Versioned:
		o.older = true
	default:
		delete(s.objects, name)
	}
}

func generationOf(o *object) int64 {
	if o == nil {
		return 0
	}
	return o.generation
}

func (s *Server) resource(o *object) map[string]any {
	v := map[string]any{
		"kind": "storage#object", "id": fmt.Sprintf("%s/%s/%d", Bucket, o.name, o.generation), "name": o.name, "bucket": Bucket,
		"generation": strconv.FormatInt(o.generation, 10), "metageneration": "1", "size": strconv.FormatInt(o.body.Size(), 10),
		"crc32c": o.crc, "md5Hash": o.md5, "timeCreated": o.created.Format(time.RFC3339Nano), "updated": o.created.Format(time.RFC3339Nano),
		"storageClass": "STANDARD", "etag": "C" + o.crc,
		"mediaLink": fmt.Sprintf("%s/download/storage/v1/b/%s/o/%s?generation=%d&alt=media", s.URL, Bucket, url.PathEscape(o.name), o.generation),
	}
	if o.older {
		v["timeDeleted"] = o.created.Format(time.RFC3339Nano)
	}
	for _, key := range []string{"contentType", "metadata"} {
		if value, ok := o.about[key]; ok {
			v[key] = value
		}
	}
	return v
}

func (c *call) missing(name string) {
	message := "No such object: " + Bucket + "/" + name
	if c.what == "media" {
		c.w.Header().Set("Content-Type", "text/html; charset=UTF-8") // as Google says it
		c.w.WriteHeader(http.StatusNotFound)
		_, _ = c.w.Write([]byte(message))
		return
	}
	fail(c.w, http.StatusNotFound, "notFound", message)
}

func (c *call) find(name, generation string) *object {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	return c.server.version(name, generation)
}

func (c *call) get() {
	o := c.find(c.path["object"], c.q.Get("generation"))
	if o == nil {
		c.missing(c.path["object"])
		return
	}
	c.answer(c.server.resource(o))
}

func (c *call) serveMedia() {
	o := c.find(c.path["object"], c.q.Get("generation"))
	if o == nil {
		c.missing(c.path["object"])
		return
	}
	o.serve(c.w, c.r)
}

// serve sends the bytes, or the range that is asked for.
func (o *object) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", fmt.Sprint(o.about["contentType"]))
	h.Set("X-Goog-Generation", strconv.FormatInt(o.generation, 10))
	h.Add("X-Goog-Hash", "crc32c="+o.crc)
	h.Add("X-Goog-Hash", "md5="+o.md5)
	for key, value := range metadata(o.about) {
		h.Set("X-Goog-Meta-"+key, value)
	}
	http.ServeContent(w, r, "", time.Time{}, o.body.Reader())
}

func (c *call) list() {
	prefix, delimiter := c.q.Get("prefix"), c.q.Get("delimiter")
	size := c.server.opts.PageSize
	if n, err := strconv.Atoi(c.q.Get("maxResults")); err == nil {
		size = min(size, n)
	}
	after, err := base64.URLEncoding.DecodeString(c.q.Get("pageToken"))
	if err != nil {
		fail(c.w, http.StatusBadRequest, "invalid", "Invalid page token.")
		return
	}
	c.server.mu.Lock()
	items, prefixes, next := c.server.page(prefix, delimiter, string(after), size, c.q.Get("versions") == "true")
	c.server.mu.Unlock()
	v := map[string]any{"kind": "storage#objects"}
	if len(items) > 0 {
		v["items"] = items
	}
	if len(prefixes) > 0 {
		v["prefixes"] = prefixes
	}
	if next != "" {
		v["nextPageToken"] = base64.URLEncoding.EncodeToString([]byte(next))
	}
	c.answer(v)
}

// page returns what comes after a name; next is "" at the end. All versions of one are in one
// page.
func (s *Server) page(prefix, delimiter, after string, size int, versions bool) (items []map[string]any, prefixes []string, next string) {
	for _, name := range slices.Sorted(maps.Keys(s.objects)) {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok || s.live(name) == nil && !versions {
			continue
		}
		shown := name
		folder, _, isFolder := strings.Cut(rest, delimiter)
		if isFolder = isFolder && delimiter != ""; isFolder {
			shown = prefix + folder + delimiter
		}
		if shown <= after || isFolder && slices.Contains(prefixes, shown) {
			continue
		}
		if len(items)+len(prefixes) >= size {
			return items, prefixes, next
		}
		if next = shown; isFolder {
			prefixes = append(prefixes, shown)
			continue
		}
		for _, o := range s.objects[name] {
			if versions || !o.older {
				items = append(items, s.resource(o))
			}
		}
	}
	return items, prefixes, ""
}

func (c *call) remove() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	name := c.path["object"]
	o := c.server.live(name)
	switch {
	case o == nil:
		c.missing(name)
	case c.precondition(o.generation):
		c.server.retire(name)
		c.w.WriteHeader(http.StatusNoContent)
	}
}

// rewrite copies, in as many calls as the options say.
func (c *call) rewrite() {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.path["destinationBucket"] != Bucket {
		fail(c.w, http.StatusNotFound, "notFound", "The specified bucket does not exist.")
		return
	}
	from, to := c.path["sourceObject"], c.path["destinationObject"]
	o := s.version(from, c.q.Get("sourceGeneration"))
	if o == nil {
		c.missing(from)
		return
	}
	if !c.precondition(generationOf(s.live(to))) {
		return
	}
	calls := 0
	if token := c.q.Get("rewriteToken"); token != "" {
		if _, err := fmt.Sscanf(token, fmt.Sprintf("%d+%%d", o.generation), &calls); err != nil {
			fail(c.w, http.StatusBadRequest, "invalid", "The rewriteToken is not that of this copy.")
			return
		}
	}
	size := strconv.FormatInt(o.body.Size(), 10)
	if calls++; calls < s.opts.RewriteCalls {
		c.answer(map[string]any{
			"kind": "storage#rewriteResponse", "done": false, "objectSize": size, "totalBytesRewritten": "1", "rewriteToken": fmt.Sprintf("%d+%d", o.generation, calls),
		})
		return
	}
	about := c.about
	if about == nil {
		about = o.about
	}
	made := s.store(to, o.body, about)
	c.answer(map[string]any{"kind": "storage#rewriteResponse", "done": true, "objectSize": size, "totalBytesRewritten": size, "resource": s.resource(made)})
}

func (c *call) allow() {
	s, name := c.server, c.path["object"]
	s.mu.Lock()
	defer s.mu.Unlock()
	entity, _ := c.about["entity"].(string)
	switch {
	case s.version(name, c.q.Get("generation")) == nil:
		c.missing(name)
	case s.opts.Uniform:
		fail(c.w, http.StatusBadRequest, "invalid", "Cannot use ACL API to update bucket policy when uniform bucket-level access is enabled.")
	case c.about["role"] != "READER" || entity != "allUsers" && !strings.HasPrefix(entity, "user-"):
		fail(c.w, http.StatusBadRequest, "invalid", "Invalid argument.")
	default:
		s.readers[name] = append(s.readers[name], entity)
		c.answer(map[string]any{"kind": "storage#objectAccessControl", "bucket": Bucket, "object": name, "entity": entity, "role": "READER"})
	}
}

// insert takes an object in one request, or begins a session.
func (c *call) insert() {
	name, _ := c.about["name"].(string)
	if q := c.q.Get("name"); q != "" {
		name = q
	}
	if name == "" || len(name) > 1024 || strings.ContainsAny(name, "\r\n") {
		fail(c.w, http.StatusBadRequest, "invalid", "Invalid object name.")
		return
	}
	if c.media == nil {
		c.begin(name)
		return
	}
	body, err := c.server.bodies.Take(c.media)
	if err != nil {
		return // it stopped short
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if o := c.make(name, body, c.about); o != nil {
		c.answer(c.server.resource(o))
	}
}

// make makes an object of what was sent, or answers why not. It is for who holds mu.
func (c *call) make(name string, body bodytest.Body, about map[string]any) *object {
	for key, value := range metadata(about) {
		if strings.ContainsFunc(value, unicode.IsControl) {
			c.server.tb.Errorf("gcstest: the metadata %s of %q is no header, which it becomes: %q", key, name, value)
		}
	}
	crc := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	body.CopyTo(crc)
	if want, _ := about["crc32c"].(string); want != "" {
		raw, _ := base64.StdEncoding.DecodeString(want)
		if !bytes.Equal(raw, binary.BigEndian.AppendUint32(nil, crc.Sum32())) {
			fail(c.w, http.StatusBadRequest, "invalid", fmt.Sprintf("Provided CRC32C %q doesn't match calculated CRC32C.", want))
			return nil
		}
	}
	if !c.precondition(generationOf(c.server.live(name))) {
		return nil
	}
	return c.server.store(name, body, about)
}
