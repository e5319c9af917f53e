// SPDX-License-Identifier: Apache-2.0

package globustest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const (
	timeLayout = "2006-01-02 15:04:05-07:00"
	home       = "/home/u" // what "/~" is
)

// transfer lets only requests with a token through.
func (s *Server) transfer(next func(http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		kind := strings.TrimSuffix(r.URL.Path, "/"+r.PathValue("id"))
		s.count(kind[strings.LastIndexByte(kind, '/')+1:])
		g, ok := s.bearer(r, transferServer)
		if !ok {
			refuse(w, r, http.StatusUnauthorized, "ClientError.AuthenticationFailed", "Token is not active", nil)
			return
		}
		c := s.collection(r.PathValue("id"))
		if strings.Contains(r.URL.Path, "/operation/") {
			switch {
			case c == nil:
				refuse(w, r, http.StatusNotFound, "EndpointNotFound", "No such endpoint '"+r.PathValue("id")+"'", nil)
				return
			case !g.consents(c):
				scopes := []string{transferScope + "[*" + scopePrefix + c.id + "/data_access]"}
				refuse(w, r, http.StatusForbidden, "ConsentRequired", "Missing required data_access consent", object{
					"required_scopes": scopes, "authorization_parameters": object{"required_scopes": scopes, "session_message": "Missing required data_access consent"},
				})
				return
			case c.Domain != "" && g.domain != c.Domain:
				refuse(w, r, http.StatusBadGateway, "ExternalError.DirListingFailed.LoginFailed", "Command Failed: Error (login)\nMessage: Login Failed\n", object{
					"authorization_parameters": object{"session_required_single_domain": []string{c.Domain}},
				})
				return
			}
			s.mu.Lock()
			refusal := c.refusal
			s.mu.Unlock()
			if refusal != nil {
				refuse(w, r, refusal.Status, refusal.Code, refusal.Message, refusal.More)
				return
			}
		}
		next(w, r)
	}
}

func (s *Server) endpointDoc(c *collection) object {
	doc := object{
		"DATA_TYPE": "endpoint", "id": c.id, "display_name": c.Name, "organization": "Lab", "username": "u_abc", "description": nil,
		"entity_type": "GCSv5_guest_collection", "public": c.Public, "is_globus_connect": false, "gcp_connected": nil, "gcp_paused": nil,
		"host_endpoint_id": nil, "disable_verify": false, "force_encryption": false, "mfa_required": false, "non_functional": false,
		"default_directory": nil, "shareable": true, "acl_available": true, "in_use": false, "DATA": []object{}, "https_server": c.data.URL,
	}
	if c.DataAccess {
		doc["entity_type"] = "GCSv5_mapped_collection"
	}
	if c.Gateway {
		doc["entity_type"], doc["https_server"] = "GCSv5_endpoint", nil
	}
	if c.NoHTTPS {
		doc["entity_type"], doc["https_server"] = "GCP_mapped_collection", nil
	}
	return doc
}

func (s *Server) getEndpoint(w http.ResponseWriter, r *http.Request) {
	c := s.collection(r.PathValue("id"))
	if c == nil {
		refuse(w, r, http.StatusNotFound, "EndpointNotFound", "No such endpoint", nil)
		return
	}
	answer(w, http.StatusOK, s.endpointDoc(c))
}

func (s *Server) endpointSearch(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	scope, text := q.Get("filter_scope"), strings.ToLower(q.Get("filter_fulltext"))
	if scope == "all" && text == "" {
		refuse(w, r, http.StatusBadRequest, "BadRequest", "filter_fulltext is required", nil)
		return
	}
	s.mu.Lock()
	var found []object
	for _, id := range s.order {
		c := s.collections[id]
		visible := scope == "all" || scope == "my-endpoints" && !c.Others
		if visible && strings.Contains(strings.ToLower(c.Name), text) {
			found = append(found, s.endpointDoc(c))
		}
	}
	s.mu.Unlock()
	limit, offset := number(q.Get("limit"), 25), number(q.Get("offset"), 0)
	end := min(offset+min(limit, 100), len(found))
	page := slices.Clone(found[min(offset, end):end])
	answer(w, http.StatusOK, object{
		"DATA_TYPE": "endpoint_list", "DATA": append([]object{}, page...), "limit": limit, "offset": offset, "has_next_page": end < len(found),
	})
}

func number(text string, usual int) int {
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		return n
	}
	return usual
}

// where is the absolute path that a request means.
func where(path string) string {
	path = strings.TrimRight(path, "/")
	switch rest, ok := strings.CutPrefix(path, "/~"); {
	case ok:
		return home + rest
	case path != "" && path[0] != '/':
		return home + "/" + path
	}
	return path
}

func fileDoc(name string, n *node) object {
	doc := object{
		"DATA_TYPE": "file", "group": "users", "last_modified": n.modified.Format(timeLayout), "link_group": nil, "link_last_modified": nil,
		"link_size": nil, "link_target": nil, "link_user": nil, "name": name, "permissions": "0644", "size": len(n.content), "type": "file", "user": "u",
	}
	if n.dir {
		doc["type"], doc["size"], doc["permissions"] = "dir", 4096, "0755"
	}
	return doc
}

func (s *Server) ls(w http.ResponseWriter, r *http.Request) {
	c, q := s.collection(r.PathValue("id")), r.URL.Query()
	path := where(q.Get("path"))
	s.mu.Lock()
	defer s.mu.Unlock()
	folder := c.nodes[path]
	switch {
	case folder == nil:
		refuse(w, r, http.StatusNotFound, "ClientError.NotFound", "Directory '"+path+"' not found on endpoint", nil)
		return
	case !folder.dir:
		refuse(w, r, http.StatusBadGateway, "ExternalError.DirListingFailed.NotDirectory", "Command Failed: Error (list)\nMessage: Not a directory\n", nil)
		return
	}
	matches, ok := nameFilter(q.Get("filter"))
	if !ok {
		refuse(w, r, http.StatusBadRequest, "ClientError.BadRequest", "Invalid filter", nil)
		return
	}
	var names []string
	for at := range c.nodes {
		name, below := strings.CutPrefix(at, path+"/")
		if below && !strings.Contains(name, "/") && matches(name) && (q.Get("show_hidden") != "0" || name[0] != '.') {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	total := len(names)
	limit, offset := min(number(q.Get("limit"), 100_000), 100_000), min(number(q.Get("offset"), 0), total)
	names = names[offset:min(offset+limit, total)]
	docs := []object{}
	for _, name := range names {
		docs = append(docs, fileDoc(name, c.nodes[path+"/"+name]))
	}
	doc := object{
		"DATA": docs, "DATA_TYPE": "file_list", "absolute_path": nil, "endpoint": c.id, "length": len(docs),
		"path": q.Get("path"), "rename_supported": true, "symlink_supported": true, "total": total,
	}
	if strings.HasPrefix(q.Get("path"), "/~") {
		doc["absolute_path"] = path + "/"
	}
	answer(w, http.StatusOK, doc)
}

// nameFilter reads the one filter that is in use here: "name:~PATTERN", where "*" is anything.
func nameFilter(filter string) (func(string) bool, bool) {
	if filter == "" {
		return func(string) bool { return true }, true
	}
	pattern, ok := strings.CutPrefix(filter, "name:~")
	prefix, star := strings.CutSuffix(pattern, "*")
	return func(name string) bool { return strings.HasPrefix(name, prefix) }, ok && star && !strings.ContainsAny(prefix, "*,/!~=")
}

func (s *Server) stat(w http.ResponseWriter, r *http.Request) {
	c, path := s.collection(r.PathValue("id")), where(r.URL.Query().Get("path"))
	s.mu.Lock()
	defer s.mu.Unlock()
	n := c.nodes[path]
	if n == nil {
		s.notFound(w, r, path)
		return
	}
	answer(w, http.StatusOK, fileDoc(path[strings.LastIndexByte(path, '/')+1:], n))
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request, path string) {
	refuse(w, r, http.StatusNotFound, "NotFound", "Path not found, Error (list)\nMessage: No such file or directory\n---\nDetails: '"+path+"'", nil)
}

func (s *Server) mkdir(w http.ResponseWriter, r *http.Request) {
	var arg struct {
		DataType string `json:"DATA_TYPE"`
		Path     string `json:"path"`
	}
	if json.NewDecoder(r.Body).Decode(&arg) != nil || arg.DataType != "mkdir" || arg.Path == "" {
		refuse(w, r, http.StatusBadRequest, "ClientError.BadRequest", "no mkdir document", nil)
		return
	}
	c, path := s.collection(r.PathValue("id")), where(arg.Path)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.nodes[path] != nil:
		refuse(w, r, http.StatusBadGateway, "ExternalError.MkdirFailed.Exists", "Path already exists", nil)
		return
	case !c.folder(path):
		s.notFound(w, r, path)
		return
	}
	c.nodes[path] = &node{dir: true, modified: now()}
	answer(w, http.StatusAccepted, object{
		"DATA_TYPE": "mkdir_result", "code": "DirectoryCreated", "message": "The directory was created successfully", "request_id": "r", "resource": r.URL.Path,
	})
}

// folder reports whether the folder above path is there.
func (c *collection) folder(path string) bool {
	n := c.nodes[path[:max(strings.LastIndexByte(path, '/'), 0)]]
	return n != nil && n.dir
}

func (s *Server) rename(w http.ResponseWriter, r *http.Request) {
	var arg struct {
		DataType string `json:"DATA_TYPE"`
		Old      string `json:"old_path"`
		New      string `json:"new_path"`
	}
	if json.NewDecoder(r.Body).Decode(&arg) != nil || arg.DataType != "rename" || arg.Old == "" || arg.New == "" {
		refuse(w, r, http.StatusBadRequest, "ClientError.BadRequest", "no rename document", nil)
		return
	}
	c, from, to := s.collection(r.PathValue("id")), where(arg.Old), where(arg.New)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.nodes[from] == nil || !c.folder(to):
		s.notFound(w, r, from)
		return
	case c.nodes[from].dir:
		refuse(w, r, http.StatusBadRequest, "ClientError.BadRequest", "not here: folders are not renamed", nil)
		return
	case c.nodes[to] != nil && (s.opts.NoReplace || c.nodes[to].dir):
		refuse(w, r, http.StatusBadGateway, "EndpointError", "Command Failed: Error (rename)\nMessage: Fatal FTP Response\n---\n"+
			`Details: 553-GlobusError: v=1 c=PATH_EXISTS\r\n553-GridFTP-Errno: 17\r\n553-GridFTP-Reason: System error in rename\r\n553 End.\r\n`, nil)
		return
	}
	c.nodes[to] = c.nodes[from]
	delete(c.nodes, from)
	answer(w, http.StatusOK, object{
		"DATA_TYPE": "result", "code": "FileRenamed", "message": "File or directory renamed successfully", "request_id": "r", "resource": r.URL.Path,
	})
}

// A task deletes files once its turn has come.
type task struct {
	id, endpoint string
	paths        []string
	waits        int // for so many requests of anybody
	fault        Fault
	failed       string // the code of its fatal error
}

func (s *Server) submissionID(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := newID()
	s.submissions[id] = false
	answer(w, http.StatusOK, object{"value": id})
}

func (s *Server) submitDelete(w http.ResponseWriter, r *http.Request) {
	var arg struct {
		DataType   string `json:"DATA_TYPE"`
		Submission string `json:"submission_id"`
		Endpoint   string `json:"endpoint"`
		Data       []struct {
			DataType string `json:"DATA_TYPE"`
			Path     string `json:"path"`
		} `json:"DATA"`
	}
	if json.NewDecoder(r.Body).Decode(&arg) != nil || arg.DataType != "delete" || len(arg.Data) == 0 || s.collection(arg.Endpoint) == nil {
		refuse(w, r, http.StatusBadRequest, "ClientError.BadRequest", "no delete document", nil)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if used, ok := s.submissions[arg.Submission]; used || !ok {
		refuse(w, r, http.StatusBadRequest, "ClientError.BadRequest", "no such submission_id", nil)
		return
	}
	s.submissions[arg.Submission] = true
	t := &task{id: newID(), endpoint: arg.Endpoint, waits: s.opts.Polls, fault: s.collections[arg.Endpoint].fault}
	for _, item := range arg.Data {
		t.paths = append(t.paths, where(item.Path))
	}
	s.tasks[t.id] = t
	answer(w, http.StatusAccepted, object{
		"DATA_TYPE": "delete_result", "code": "Accepted", "message": "The delete has been accepted and a task has been created and queued for execution",
		"request_id": "r", "resource": r.URL.Path, "submission_id": arg.Submission, "task_id": t.id,
		"task_link": object{"DATA_TYPE": "link", "href": "/v0.10/task/" + t.id + "?format=json", "rel": "related", "resource": "task", "title": "related task"},
	})
}

// advance lets a task come nearer to its turn. The caller holds mu.
func (s *Server) advance(t *task) {
	if t.failed != "" || t.fault.Paused || t.fault.NiceStatus != "" {
		return
	}
	if t.waits--; t.waits == 0 {
		if t.failed = t.fault.Fatal; t.failed != "" {
			return
		}
		for _, path := range t.paths {
			delete(s.collections[t.endpoint].nodes, path)
		}
	}
}

func (s *Server) getTask(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[r.PathValue("id")]
	if t == nil {
		refuse(w, r, http.StatusNotFound, "TaskNotFound", fmt.Sprintf("No task %q", r.PathValue("id")), nil)
		return
	}
	doc := object{
		"task_id": t.id, "type": "DELETE", "status": "ACTIVE", "nice_status": "Queued", "nice_status_details": nil,
		"nice_status_short_description": "queued", "is_ok": true, "is_paused": false, "fatal_error": nil, "faults": 0, "files": len(t.paths),
		"label": "sregfs", "completion_time": nil, "request_time": now().Format(timeLayout), "deadline": now().Format(timeLayout),
		"owner_id": App, "source_endpoint_id": t.endpoint, "command": "API 0.10", "directories": 0, "history_deleted": false, "subtasks_total": 1,
	}
	switch {
	case t.failed != "":
		doc["status"], doc["fatal_error"] = "FAILED", object{"code": t.failed, "description": strings.ToLower(strings.ReplaceAll(t.failed, "_", " "))}
	case t.fault.Paused:
		doc["is_paused"] = true
	case t.fault.NiceStatus != "":
		doc["nice_status"], doc["nice_status_short_description"], doc["is_ok"], doc["faults"] = t.fault.NiceStatus, "a fault", false, 1
	case t.waits <= 0:
		doc["status"] = "SUCCEEDED"
	}
	if doc["status"] != "ACTIVE" {
		doc["nice_status"], doc["nice_status_short_description"], doc["is_ok"] = nil, nil, nil
		doc["completion_time"] = now().Format(timeLayout)
	}
	answer(w, http.StatusOK, doc)
}

func (s *Server) cancelTask(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[r.PathValue("id")]
	if t == nil {
		refuse(w, r, http.StatusNotFound, "TaskNotFound", fmt.Sprintf("No task %q", r.PathValue("id")), nil)
		return
	}
	code := "TaskComplete"
	if t.failed == "" && (t.waits > 0 || t.fault.NiceStatus != "" || t.fault.Paused) {
		code, t.failed = "Canceled", "CANCELED"
	}
	answer(w, http.StatusOK, object{"DATA_TYPE": "result", "code": code, "message": "The task has been cancelled successfully.", "request_id": "r", "resource": r.URL.Path})
}
