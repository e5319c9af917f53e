// SPDX-License-Identifier: Apache-2.0

package librarytest

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

// archs are the codes of a SIF's header that tests use.
var archs = map[string]string{"01": "386", "02": "amd64", "04": "arm64", "06": "ppc64le", "11": "s390x"}

// headSize is how many bytes of an image a library looks at.
const headSize = 48

// look reads from an image what a library does.
func (m *image) look(head []byte, size int64) {
	m.size, m.uploaded = size, true
	if len(head) >= headSize && string(head[32:41]) == "SIF_MAGIC" {
		m.arch = archs[string(head[45:47])]
	}
}

// sendFile sends an image, or redirects to where it is.
func (s *Server) sendFile(w http.ResponseWriter, r *http.Request, who session) {
	path := r.URL.Path[len("/v1/imagefile/"):]
	m := s.imageOf(path, r.FormValue("arch"))
	switch {
	case m == nil || !m.uploaded || s.opts.Registry != nil, s.opts.NoHashFile && strings.Contains(path, ":sha256."):
		notFound(w)
	case !visible(w, m.in.in, who):
	case s.opts.Store != nil:
		status := http.StatusSeeOther
		if s.opts.Found {
			status = http.StatusFound
		}
		http.Redirect(w, r, s.opts.Store.presign(http.MethodGet, m.key, nil, "", s.opts.Life), status)
	default:
		s.send(w, r, m.body.Reader())
	}
}

// send sends what the server itself has. Called with s.mu held, which others can
// have while the bytes go.
func (s *Server) send(w http.ResponseWriter, r *http.Request, content *io.SectionReader) {
	s.mu.Unlock()
	defer s.mu.Lock()
	if s.opts.Stream {
		w.Header().Set("Content-Length", strconv.FormatInt(content.Size(), 10))
		_, _ = io.Copy(w, content) // a client that has gone is no matter
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, content)
}

// keep puts the bytes of an image where the server has them.
func (s *Server) keep(m *image, body bodytest.Body) {
	if s.opts.Store != nil {
		s.opts.Store.put(s.tb, m.key, body.Reader())
		return
	}
	m.body = body
}

// takeRaw is the upload of version 1.
func (s *Server) takeRaw(w http.ResponseWriter, r *http.Request) {
	body, err := s.bodies.Take(r.Body)
	if err != nil || body.Size() != r.ContentLength {
		return // the connection broke: nothing is stored
	}
	sum, begin := sha256.New(), &beginning{}
	body.CopyTo(sum, begin)
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.findImage(r.URL.Path[len("/v1/imagefile/"):])
	switch {
	case !s.session(r).known:
		fail(w, http.StatusUnauthorized, "Not authorized to upload this image")
	case m == nil || m.hash != "sha256."+hex.EncodeToString(sum.Sum(nil)):
		fail(w, http.StatusBadRequest, "not the image that was announced")
	default:
		s.keep(m, body)
		m.look(begin.head, begin.size)
		w.WriteHeader(http.StatusOK)
	}
}

// upload is version 2: presigned URLs.
func (s *Server) upload(w http.ResponseWriter, r *http.Request, parts []string) {
	m, step := s.findImage(parts[0]), r.Method
	if len(parts) > 1 {
		step += " " + parts[1]
	}
	var asked struct {
		Filesize, PartSize  int64
		SHA256sum, UploadID string
		PartNumber          int
		CompletedParts      []completedPart
	}
	decode(r, &asked)
	if m == nil || s.opts.Store == nil || s.opts.APIVersion == "none" {
		notFound(w)
		return
	}
	store := s.opts.Store
	switch step {
	case "POST":
		data(w, dict{"uploadURL": store.presign(http.MethodPut, m.key, nil, asked.SHA256sum, s.opts.Life)})
	case "PUT _complete", "PUT _multipart_complete":
		if step != "PUT _complete" && (s.uploads[asked.UploadID] != m || !store.complete(s.tb, m.key, asked.UploadID, asked.CompletedParts)) {
			fail(w, http.StatusBadRequest, "the parts are not those that came")
			return
		}
		s.completed(w, m)
	case "POST _multipart":
		if s.opts.NoParts {
			notFound(w)
			return
		}
		id, size := store.open(s.tb, m.key), s.opts.PartSize
		s.uploads[id] = m
		options := dict{}
		if s.opts.NoSums {
			options["s3compliant"] = "false"
		}
		data(w, dict{"uploadID": id, "totalParts": (asked.Filesize + size - 1) / size, "partSize": size, "options": options})
	case "PUT _multipart":
		if s.uploads[asked.UploadID] != m {
			notFound(w)
			return
		}
		q := url.Values{"uploadId": {asked.UploadID}, "partNumber": {strconv.Itoa(asked.PartNumber)}}
		data(w, dict{"presignedURL": store.presign(http.MethodPut, m.key, q, asked.SHA256sum, s.opts.Life)})
	case "PUT _multipart_abort":
		delete(s.uploads, asked.UploadID)
		data(w, dict{})
	default:
		notFound(w)
	}
}

// completed looks at what is in the store.
func (s *Server) completed(w http.ResponseWriter, m *image) {
	head, size, hash, ok := s.opts.Store.look(s.tb, m.key)
	if !ok || hash != m.hash {
		fail(w, http.StatusBadRequest, "not the image that was announced")
		return
	}
	m.look(head, size)
	data(w, dict{"quota": dict{"quotaTotal": 0, "quotaUsage": 0}, "containerUrl": "/library/" + m.in.in.in.name})
}
