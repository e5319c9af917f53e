// SPDX-License-Identifier: Apache-2.0

package gcstest

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

// unit is what a session keeps a multiple of, before its last byte.
const unit = 256 << 10

// A session is an upload under way.
type session struct {
	name   string
	about  map[string]any
	q      url.Values // of the request that began it
	size   int64      // -1: the last request will tell
	stored bodytest.Body
	state  int // 0, or the status that every request gets: cancelled, or gone
	made   *object
}

// Sessions returns how many uploads are under way.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, u := range s.sessions {
		if u.state == 0 && u.made == nil {
			n++
		}
	}
	return n
}

// Stored returns how many bytes the sessions under way keep.
func (s *Server) Stored() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int64(0)
	for _, u := range s.sessions {
		if u.state == 0 && u.made == nil {
			n += u.stored.Size()
		}
	}
	return n
}

// Forget ends the sessions as Google does after a week; they then get status, 404 or 410.
func (s *Server) Forget(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.sessions {
		u.state = status
	}
}

// begin begins a session. The condition is looked at when there is something to store:
// https://github.com/googleapis/google-cloud-java/issues/201
func (c *call) begin(name string) {
	size, err := strconv.ParseInt(c.r.Header.Get("X-Upload-Content-Length"), 10, 64)
	if err != nil {
		size = -1
	}
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counter++
	id := fmt.Sprintf("session-%d", s.counter)
	s.sessions[id] = &session{name: name, about: c.about, q: c.q, size: size}
	q := url.Values{"uploadType": {"resumable"}, "upload_id": {id}}
	c.w.Header().Set("Location", s.URL+"/upload/storage/v1/b/"+Bucket+"/o?"+q.Encode())
	c.w.Header().Set("X-GUploader-UploadID", id)
	c.w.WriteHeader(http.StatusOK)
}

// session serves a request of a session: PUT with bytes, PUT that asks how many there are,
// DELETE.
func (c *call) session() {
	s := c.server
	s.mu.Lock()
	u, state := s.sessions[c.q.Get("upload_id")], http.StatusNotFound
	if u != nil {
		state = u.state
	}
	s.mu.Unlock()
	switch {
	case state != 0:
		c.w.WriteHeader(state)
	case c.r.Method == http.MethodDelete:
		s.mu.Lock()
		u.state = 499
		s.mu.Unlock()
		c.w.WriteHeader(499)
	case c.r.Method != http.MethodPut && c.r.Method != http.MethodPost: // that is what Google's own clients send
		fail(c.w, http.StatusMethodNotAllowed, "methodNotAllowed", "Method Not Allowed")
	default:
		c.put(u)
	}
}

var contentRange = regexp.MustCompile(`^bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)$`)

func (c *call) put(u *session) {
	s := c.server
	header := c.r.Header.Get("Content-Range")
	m := contentRange.FindStringSubmatch(header)
	number := func(i int) int64 {
		if m == nil {
			return -1
		}
		n, err := strconv.ParseInt(m[i], 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	first, last, size := number(1), number(2), number(3)
	s.mu.Lock()
	if u.size < 0 {
		u.size = size
	}
	stored, fits := u.stored.Size(), m != nil && (size < 0 || size == u.size)
	s.mu.Unlock()
	if fits && first < 0 && c.r.ContentLength == 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		c.tell(u)
		return
	}
	whole := last+1 == size
	if !fits || first < 0 || first > stored || size >= 0 && last >= size || c.r.ContentLength != last-first+1 || !whole && (last-first+1)%unit != 0 {
		s.tb.Errorf("gcstest: Content-Range %q of %d bytes, of which %d are stored", header, u.size, stored)
		fail(c.w, http.StatusBadRequest, "invalid", "Failed to parse Content-Range header.")
		return
	}
	// What it has already it does not store again.
	if _, err := io.CopyN(io.Discard, c.r.Body, min(stored-first, last-first+1)); err != nil {
		return
	}
	body, err := s.bodies.Take(c.r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.stored.Size() != stored {
		fail(c.w, http.StatusServiceUnavailable, "backendError", "Another request to the session is under way.")
		return
	}
	if n := stored + body.Size(); size < 0 || n < size {
		body, _ = s.bodies.Take(io.NewSectionReader(body, 0, max(n/unit*unit-stored, 0)))
	}
	if u.stored = bodytest.Join(u.stored, body); err != nil {
		return // it stopped short, and nobody waits for the answer
	}
	c.tell(u)
}

// tell says how much is stored, and makes the object if all is. It is for who holds mu.
func (c *call) tell(u *session) {
	if u.made == nil && u.stored.Size() == u.size {
		c.q = u.q // with the conditions
		if u.made = c.make(u.name, u.stored, u.about); u.made == nil {
			u.state = http.StatusGone
			return
		}
	}
	switch {
	case u.made != nil:
		c.q = url.Values{}
		c.answer(c.server.resource(u.made))
		return
	case u.stored.Size() > 0:
		c.w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", u.stored.Size()-1))
	}
	c.w.Header().Set("Content-Length", "0")
	if c.r.Header.Get("X-GUploader-No-308") == "yes" { // as Google's own clients want it
		c.w.Header().Set("X-HTTP-Status-Code-Override", "308")
		return
	}
	c.w.WriteHeader(http.StatusPermanentRedirect)
}
