// SPDX-License-Identifier: Apache-2.0

package drivetest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

// unit is what all pieces of an upload but the last are a multiple of, and what an upload that
// breaks off is cut to.
const unit = 256 << 10

// A session is an upload under way.
// https://developers.google.com/workspace/drive/api/guides/manage-uploads#resumable
type session struct {
	call *call // that began it
	size int64
	body bodytest.Body
	node *node // once it is whole
}

// begin begins a session.
func (c *call) begin() *failure {
	size, err := strconv.ParseInt(c.r.Header.Get("X-Upload-Content-Length"), 10, 64)
	if err != nil || c.param("uploadType") != "resumable" || c.body["parents"] == nil {
		return c.bad("an upload of %s bytes, type %q, to %v", c.r.Header.Get("X-Upload-Content-Length"), c.param("uploadType"), c.body["parents"])
	}
	id := rand.Text()
	c.sessions[id] = &session{call: c, size: size}
	c.w.Header().Set("Location", c.URL+c.r.URL.Path+"?"+url.Values{"uploadType": {"resumable"}, "upload_id": {id}}.Encode())
	return nil
}

// Forget ends all uploads that are under way.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sessions)
}

// Sessions returns how many uploads were begun, and how many bytes of all are stored.
func (s *Server) Sessions() (n int, stored int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.sessions {
		stored += u.body.Size()
	}
	return len(s.sessions), stored
}

var contentRange = regexp.MustCompile(`^bytes (?:(\d+)-(\d+)|\*)/(\d+)$`)

// piece takes a part of an upload, or tells how much is there.
func (s *Server) piece(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	u := s.sessions[r.URL.Query().Get("upload_id")]
	s.mu.Unlock()
	if u == nil {
		Refuse(w, 404, "notFound", "Not Found")
		return
	}
	if r.Method != http.MethodPut {
		s.answer(w, nil, s.bad("%s of an upload", r.Method))
		return
	}
	first, last, probe, f := s.span(u, r)
	if f == nil && !probe {
		f = s.store(u, r, first, last)
	}
	if f != nil {
		s.answer(w, nil, f)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.body.Size() < u.size || probe && u.node == nil && u.size == 0 {
		if n := u.body.Size(); n > 0 {
			w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", n-1))
		}
		w.WriteHeader(http.StatusPermanentRedirect)
		return
	}
	if u.node == nil {
		n := &node{kind: "application/octet-stream"}
		if f := u.call.describe(n); f != nil {
			s.answer(w, nil, f)
			return
		}
		n.revisions = []revision{s.revise(u.body)}
		u.node = s.make(n)
		s.touch(n)
	}
	out, f := u.finished(s)
	s.answer(w, out, f)
}

// finished is the answer to the last piece, also if it is asked for again.
func (u *session) finished(s *Server) (any, *failure) {
	return u.call.chosen(s.resource(u.node))
}

// span reads which part of the whole a request brings.
func (s *Server) span(u *session, r *http.Request) (first, last int64, probe bool, f *failure) {
	header := r.Header.Get("Content-Range")
	if header == "" && u.size == 0 {
		return 0, -1, false, nil
	}
	m := contentRange.FindStringSubmatch(header)
	if m == nil || m[3] != strconv.FormatInt(u.size, 10) {
		return 0, 0, false, s.bad("Content-Range %q of an upload of %d bytes", header, u.size)
	}
	if m[1] == "" {
		return 0, 0, true, nil
	}
	first, _ = strconv.ParseInt(m[1], 10, 64)
	last, _ = strconv.ParseInt(m[2], 10, 64)
	n := last - first + 1
	switch {
	case first != u.body.Size() || n <= 0 || last >= u.size || r.ContentLength != n:
		return 0, 0, false, s.bad("%d bytes as %q, where %d are stored", r.ContentLength, header, u.body.Size())
	case last+1 < u.size && n%unit != 0:
		return 0, 0, false, s.bad("a piece of %d bytes that is not the last", n)
	}
	return first, last, false, nil
}

// store keeps the piece, or whole units of what came of it.
func (s *Server) store(u *session, r *http.Request, first, last int64) *failure {
	var text bytes.Buffer
	_, err := io.Copy(&text, r.Body)
	got := text.Bytes()
	if most := s.opts.StoresAtMost; most > 0 && int64(len(got)) > most {
		got = got[:most]
	}
	if int64(len(got)) < last-first+1 {
		got = got[:len(got)/unit*unit]
	}
	body := bodytest.Join(u.body, s.bodies.Put(got))
	s.mu.Lock()
	u.body = body
	s.mu.Unlock()
	if err != nil {
		return &failure{400, "badRequest", err.Error()}
	}
	return nil
}
