// SPDX-License-Identifier: Apache-2.0

package globustest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// serveData is the HTTPS server of a collection.
func (s *Server) serveData(c *collection, w http.ResponseWriter, r *http.Request) {
	s.count(r.Method)
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	g, ok := s.bearer(r, c.id)
	switch {
	case ok && !g.consents(c):
		answer(w, http.StatusForbidden, object{"code": "permission_denied", "message": "no consent"})
		return
	case ok || c.Public && reads && r.Header.Get("Authorization") == "":
	case r.Header.Get("Authorization") == "":
		// Somebody with a browser is sent to where to log in.
		q := url.Values{"client_id": {c.id}, "response_type": {"code"}, "scope": {scopePrefix + c.id + "/https"}}
		w.Header().Set("Location", s.URL+"/v2/oauth2/authorize?"+q.Encode())
		w.WriteHeader(http.StatusFound)
		return
	default:
		w.Header().Set("WWW-Authenticate", "Bearer")
		answer(w, http.StatusUnauthorized, object{"code": "unauthenticated", "message": "the token is not active"})
		return
	}
	s.mu.Lock()
	ill := c.ill > 0
	if ill {
		c.ill--
	}
	s.mu.Unlock()
	switch {
	case ill:
		gridRefuse(w, "INTERNAL_ERROR", 108, "Cannot send after transport endpoint shutdown")
	case reads:
		s.get(c, w, r)
	case r.Method == http.MethodPut:
		s.put(c, w, r)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (s *Server) get(c *collection, w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	n := c.nodes[strings.TrimRight(r.URL.Path, "/")]
	s.mu.Unlock()
	if n == nil || n.dir {
		gridRefuse(w, "PATH_NOT_FOUND", 2, "No such file or directory")
		return
	}
	if s.opts.NoRange {
		r.Header.Del("Range")
	}
	modified := n.modified
	if s.opts.NoLastModified {
		modified = time.Time{}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", modified, bytes.NewReader(n.content))
}

// gridRefuse answers as those HTTPS servers do to whatever has failed: with 404, and what
// GridFTP has said.
func gridRefuse(w http.ResponseWriter, code string, errno int, reason string) {
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusNotFound)
	_, _ = fmt.Fprintf(w, "GlobusError: v=1 c=%s\nGridFTP-Errno: %d\nGridFTP-Reason: System error in stat\nGridFTP-Error-String: %s\n", code, errno, reason)
}

// put writes what comes, and leaves what came if no more does.
func (s *Server) put(c *collection, w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	s.mu.Lock()
	folder := c.folder(path)
	s.mu.Unlock()
	if !folder {
		gridRefuse(w, "PATH_NOT_FOUND", 2, "No such file or directory")
		return
	}
	content, err := io.ReadAll(r.Body)
	s.mu.Lock()
	c.nodes[path] = &node{content: content, modified: now()}
	s.mu.Unlock()
	if err != nil {
		answer(w, http.StatusBadRequest, object{"code": "bad_request", "message": "the body broke off"})
		return
	}
	w.WriteHeader(http.StatusCreated)
}
