// SPDX-License-Identifier: Apache-2.0

package librarytest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

type dict map[string]any

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that has gone is no matter
}

func data(w http.ResponseWriter, v any) { reply(w, http.StatusOK, dict{"data": v}) }

func fail(w http.ResponseWriter, status int, message string) {
	reply(w, status, dict{"error": dict{"code": status, "message": message}})
}

func notFound(w http.ResponseWriter) { fail(w, http.StatusNotFound, "Not found") }

// serve answers one request, and compares both with the specification.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, Request{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Authorization")})
	s.mu.Unlock()
	s.checked(w, r, s.answer)
}

// A session is who asks.
type session struct{ token, known bool }

func (s *Server) session(r *http.Request) session {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return session{token: ok, known: ok && s.tokens[token]}
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	// The bodies of raw uploads are read before anything is locked.
	if r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/v1/imagefile/") {
		s.takeRaw(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	who := s.session(r)
	if who.token && !who.known {
		fail(w, http.StatusUnauthorized, "Not authorized - please authenticate")
		return
	}
	if s.opts.Registry != nil {
		s.scanRegistry()
	}
	switch path := r.URL.Path; {
	case path == "/version":
		if s.opts.APIVersion == "none" {
			notFound(w)
			return
		}
		data(w, dict{"version": "v1.2.0-0-gdeadbee", "apiVersion": s.opts.APIVersion})
	case path == "/v1/search":
		s.search(w, r, who)
	case path == "/v1/oci-redirect":
		s.redirect(w, r, who)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		s.read(w, r, who)
	case !who.known:
		fail(w, http.StatusUnauthorized, "Not authorized - please authenticate")
	default:
		s.write(w, r)
	}
}

// visible answers if the collection may not be seen.
func visible(w http.ResponseWriter, c *collection, who session) bool {
	switch {
	case c.hidden:
		fail(w, http.StatusForbidden, "Not authorized to access this entry")
	case c.private && !who.known:
		fail(w, http.StatusUnauthorized, "Not authorized to access this entry")
	default:
		return true
	}
	return false
}

// read answers what changes nothing.
func (s *Server) read(w http.ResponseWriter, r *http.Request, who session) {
	path := r.URL.Path
	switch {
	case path == "/v1/entities":
		own := []dict{}
		for _, e := range s.entities {
			if who.known {
				own = append(own, e.json())
			}
		}
		data(w, own)
	case strings.HasPrefix(path, "/v1/entities/"):
		if e := s.findEntity(path[len("/v1/entities/"):]); e != nil {
			data(w, e.json())
			return
		}
		notFound(w)
	case strings.HasPrefix(path, "/v1/collections/"):
		if c := s.findCollection(path[len("/v1/collections/"):]); c == nil {
			notFound(w)
		} else if visible(w, c, who) {
			data(w, c.json())
		}
	case strings.HasPrefix(path, "/v1/containers/"):
		if k := s.findContainer(path[len("/v1/containers/"):]); k == nil {
			notFound(w)
		} else if visible(w, k.in, who) {
			data(w, k.json())
		}
	case strings.HasPrefix(path, "/v1/images/"):
		if m := s.imageOf(path[len("/v1/images/"):], r.FormValue("arch")); m == nil {
			notFound(w)
		} else if visible(w, m.in.in, who) {
			data(w, m.json())
		}
	case strings.HasPrefix(path, "/v1/imagefile/"):
		s.sendFile(w, r, who)
	case strings.HasPrefix(path, "/v1/tags/"), strings.HasPrefix(path, "/v2/tags/"):
		s.readTags(w, path)
	default:
		notFound(w)
	}
}

// imageOf finds "entity/collection/container:ref".
func (s *Server) imageOf(path, arch string) *image {
	at := strings.LastIndexByte(path, ':')
	if at < 0 {
		return nil
	}
	if !s.archTags() {
		arch = "amd64" // one for all
	}
	return s.findContainer(path[:at]).under(path[at+1:], arch)
}

func (s *Server) archTags() bool { return s.opts.APIVersion == "2.0.0-alpha.2" }

func (s *Server) readTags(w http.ResponseWriter, path string) {
	k := s.findContainer(path[len("/v1/tags/"):])
	if k == nil {
		notFound(w)
		return
	}
	if strings.HasPrefix(path, "/v2/") {
		data(w, k.json()["archTags"])
		return
	}
	data(w, k.json()["imageTags"])
}

// write answers what makes or removes something.
func (s *Server) write(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case r.Method == http.MethodDelete && strings.HasPrefix(path, "/v1/images/"):
		s.remove(w, path[len("/v1/images/"):], r.FormValue("arch"))
	case r.Method == http.MethodPost && path == "/v1/entities":
		var asked struct{ Name string }
		decode(r, &asked)
		reply(w, http.StatusCreated, dict{"data": s.entity(asked.Name).json()})
	case r.Method == http.MethodPost && path == "/v1/collections":
		var asked struct{ Name, Entity string }
		decode(r, &asked)
		if e := s.findEntity(asked.Entity); e != nil && e.id == asked.Entity {
			reply(w, http.StatusCreated, dict{"data": s.collection(e.name, asked.Name).json()})
			return
		}
		fail(w, http.StatusBadRequest, "no such entity")
	case r.Method == http.MethodPost && path == "/v1/containers":
		var asked struct{ Name, Collection string }
		decode(r, &asked)
		if c := s.findCollection(asked.Collection); c != nil && c.id == asked.Collection {
			reply(w, http.StatusCreated, dict{"data": s.container(c.in.name, c.name, asked.Name).json()})
			return
		}
		fail(w, http.StatusBadRequest, "no such collection")
	case r.Method == http.MethodPost && path == "/v1/images":
		s.createImage(w, r)
	case r.Method == http.MethodPost && (strings.HasPrefix(path, "/v1/tags/") || strings.HasPrefix(path, "/v2/tags/")):
		s.setTag(w, r)
	case strings.HasPrefix(path, "/v2/imagefile/"):
		s.upload(w, r, strings.Split(path[len("/v2/imagefile/"):], "/"))
	default:
		notFound(w)
	}
}

// decode leaves what is no JSON for the check of the specification.
func decode(r *http.Request, v any) { _ = json.NewDecoder(r.Body).Decode(v) }

func (s *Server) createImage(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Hash, Container, Description string }
	decode(r, &asked)
	k := s.findContainer(asked.Container)
	if k == nil || k.id != asked.Container {
		fail(w, http.StatusBadRequest, "no such container")
		return
	}
	if k.under(asked.Hash, "") != nil {
		fail(w, http.StatusBadRequest, "the image exists")
		return
	}
	m := &image{id: s.id(), hash: asked.Hash, in: k, description: asked.Description, created: time.Now()}
	m.key = s.below + m.id
	k.images = append(k.images, m)
	reply(w, http.StatusCreated, dict{"data": m.json()})
}

func (s *Server) setTag(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Arch, Tag, ImageID string }
	decode(r, &asked)
	v2 := strings.HasPrefix(r.URL.Path, "/v2/")
	k, m := s.findContainer(r.URL.Path[len("/v1/tags/"):]), s.findImage(asked.ImageID)
	switch {
	case v2 && !s.archTags():
		notFound(w)
	case k == nil:
		notFound(w)
	case m == nil || m.in != k || !m.uploaded || asked.Tag == "" || v2 && asked.Arch == "":
		fail(w, http.StatusBadRequest, "no such image")
	default:
		if !v2 {
			asked.Arch = "amd64"
		}
		k.tag(asked.Arch, asked.Tag, m)
		if m.arch == "" {
			m.arch = asked.Arch
		}
		s.readTags(w, r.URL.Path)
	}
}

// remove deletes an image with all its tags.
func (s *Server) remove(w http.ResponseWriter, path, arch string) {
	m := s.imageOf(path, arch)
	if m == nil {
		notFound(w)
		return
	}
	for _, byTag := range m.in.tags {
		for tag, tagged := range byTag {
			if tagged == m {
				delete(byTag, tag)
				s.untagRegistry(m, tag)
			}
		}
	}
	m.in.images = slices.DeleteFunc(m.in.images, func(o *image) bool { return o == m })
	data(w, m.json())
}

func (s *Server) search(w http.ResponseWriter, r *http.Request, who session) {
	value, arch, signed := r.FormValue("value"), r.FormValue("arch"), r.FormValue("signed")
	if len(value) < 3 {
		fail(w, http.StatusBadRequest, "at least 3 characters")
		return
	}
	found := dict{"entity": []any{}, "collection": []any{}, "container": []any{}, "image": []any{}}
	add := func(kind string, v any) { found[kind] = append(found[kind].([]any), v) }
	for _, e := range s.entities {
		for _, c := range e.collections {
			for _, k := range c.containers {
				if c.hidden || c.private && !who.known || !strings.Contains(k.name, value) {
					continue
				}
				hit := k.json()
				if s.opts.BareTags {
					delete(hit, "archTags")
					delete(hit, "imageTags")
				}
				add("container", hit)
				for _, m := range k.images {
					fits := arch == "" || slices.Contains(strings.Split(arch, ","), m.arch)
					if fits && (signed == "" || signed == "true" == (len(m.signers) > 0)) {
						add("image", m.json())
					}
				}
			}
		}
	}
	data(w, found)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (e *entity) json() dict {
	ids := []string{}
	for _, c := range e.collections {
		ids = append(ids, c.id)
	}
	return dict{"id": e.id, "name": e.name, "collections": ids, "createdAt": stamp(time.Unix(1, 0)), "deleted": false, "defaultPrivate": false}
}

func (c *collection) json() dict {
	ids := []string{}
	for _, k := range c.containers {
		ids = append(ids, k.id)
	}
	return dict{"id": c.id, "name": c.name, "entity": c.in.id, "entityName": c.in.name, "containers": ids, "private": c.private, "deleted": false}
}

func (k *container) json() dict {
	ids, archTags, imageTags := []string{}, dict{}, dict{}
	for _, m := range k.images {
		ids = append(ids, m.id)
	}
	for arch, byTag := range k.tags {
		tags := dict{}
		for tag, m := range byTag {
			tags[tag] = m.id
			if arch == "amd64" { // for clients that know no architectures
				imageTags[tag] = m.id
			}
		}
		archTags[arch] = tags
	}
	return dict{
		"id": k.id, "name": k.name, "collection": k.in.id, "collectionName": k.in.name, "entity": k.in.in.id, "entityName": k.in.in.name,
		"images": ids, "archTags": archTags, "imageTags": imageTags, "deleted": false, "downloadCount": 8,
	}
}

func (m *image) json() dict {
	v := dict{
		"id": m.id, "hash": m.hash, "description": m.description, "container": m.in.id, "containerName": m.in.name,
		"collection": m.in.in.id, "collectionName": m.in.in.name, "entity": m.in.in.in.id, "entityName": m.in.in.in.name,
		"size": m.size, "uploaded": m.uploaded, "createdAt": stamp(m.created), "deleted": false,
	}
	if m.uploaded {
		v["signed"], v["encrypted"], v["arch"] = len(m.signers) > 0, m.encrypted, m.arch
	}
	if len(m.signers) > 0 {
		v["fingerprints"] = m.signers
	}
	tags := []string{}
	for _, byTag := range m.in.tags {
		for tag, tagged := range byTag {
			if tagged == m {
				tags = append(tags, tag)
			}
		}
	}
	if len(tags) > 0 {
		slices.Sort(tags)
		v["tags"] = slices.Compact(tags)
	}
	return v
}
