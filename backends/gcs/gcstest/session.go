// SPDX-License-Identifier: Apache-2.0

package gcstest

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
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
	size   int64
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

// begin begins a session.
func (c *call) begin(name string) {
	size, err := strconv.ParseInt(c.r.Header.Get("X-Upload-Content-Length"), 10, 64)
	if err != nil {
		c.server.tb.Errorf("gcstest: a session without X-Upload-Content-Length: what is cut off would be stored as whole")
	}
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.precondition("ifGenerationMatch", generationOf(s.live(name))) {
		return
	}
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
	case c.r.Method != http.MethodPut:
		fail(c.w, http.StatusMethodNotAllowed, "methodNotAllowed", "Method Not Allowed")
	default:
		c.put(u)
	}
}

func (c *call) put(u *session) {
	s := c.server
	header := c.r.Header.Get("Content-Range")
	var first, last, size int64
	if _, err := fmt.Sscanf(header, "bytes */%d", &size); err == nil && c.r.ContentLength == 0 && size == u.size {
		s.mu.Lock()
		defer s.mu.Unlock()
		c.tell(u)
		return
	}
	_, err := fmt.Sscanf(header, "bytes %d-%d/%d", &first, &last, &size)
	whole := last+1 == size
	s.mu.Lock()
	stored := u.stored.Size()
	s.mu.Unlock()
	if err != nil || size != u.size || first > stored || last >= size || c.r.ContentLength != last-first+1 || !whole && (last-first+1)%unit != 0 {
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
	if n := stored + body.Size(); n < size {
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
		c.answer(u.made.resource())
		return
	case u.stored.Size() > 0:
		c.w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", u.stored.Size()-1))
	}
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusPermanentRedirect)
}
