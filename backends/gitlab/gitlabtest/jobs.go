// SPDX-License-Identifier: Apache-2.0

package gitlabtest

import (
	"fmt"
	"maps"
	"net/http"
	"time"
)

// A job is one that has succeeded.
type job struct {
	id       int64
	finished time.Time
	files    map[string][]byte // nil if it has left none
}

// Job makes a job that has left files, and returns its number.
func (s *Server) Job(files map[string][]byte, at time.Time) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.number()
	s.jobs = append(s.jobs, &job{id: id, finished: at, files: maps.Clone(files)})
	return id
}

func (j *job) json() any {
	v := map[string]any{
		"id": j.id, "name": "build", "status": "success", "stage": "build", "finished_at": j.finished, "created_at": j.finished,
		"web_url": "https://gitlab.example/" + Project + "/-/jobs/" + fmt.Sprint(j.id), "artifacts": []any{}, "artifacts_expire_at": nil,
	}
	if j.files != nil {
		v["artifacts_file"] = map[string]any{"filename": "artifacts.zip", "size": 1000}
	}
	return v
}

func (s *Server) listJobs(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]any, len(s.jobs))
	for i, j := range s.jobs {
		all[len(all)-1-i] = j.json() // the newest first
	}
	page(w, req, all)
}

// job returns the job of a request, or nil.
func (s *Server) job(req *http.Request) *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.jobs {
		if fmt.Sprint(j.id) == req.PathValue("job") {
			return j
		}
	}
	return nil
}

func (s *Server) oneJob(w http.ResponseWriter, req *http.Request) {
	if j := s.job(req); j != nil {
		reply(w, http.StatusOK, j.json())
		return
	}
	notFound(w, "")
}

// artifact sends a file as it is taken out of an archive: there is no size before its end, and
// no part.
func (s *Server) artifact(w http.ResponseWriter, req *http.Request) {
	j := s.job(req)
	if j == nil || j.files[req.PathValue("path")] == nil {
		notFound(w, "")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	_, _ = w.Write(j.files[req.PathValue("path")])
}
