// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
)

// An incoming is a blob on its way here: it is hashed and not kept.
type incoming struct {
	hash hash.Hash
	size int64
}

// push takes blobs in any number of pieces, and manifests. Blobs are forgotten
// but for their size: somebody who pushed can look whether they are there.
func (r *registry) push(w http.ResponseWriter, req *http.Request) {
	repo, last := cutLast(strings.TrimPrefix(req.URL.Path, "/v2/"), "/")
	repo, kind := cutLast(repo, "/")
	switch {
	case kind == "manifests" && req.Method == http.MethodPut:
		r.takeManifest(w, req, repo, last)
	case kind == "uploads" && req.Method == http.MethodPost:
		r.mu.Lock()
		id := fmt.Sprint(len(r.uploads) + 1)
		r.uploads[id] = &incoming{hash: sha256.New()}
		r.mu.Unlock()
		w.Header().Set("Location", "/v2/"+repo+"/uploads/"+id)
		w.WriteHeader(http.StatusAccepted)
	case kind == "uploads":
		r.takeBytes(w, req, last)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// takeBytes takes a piece, and with PUT the last one. One client at a time sends
// the pieces of an upload.
func (r *registry) takeBytes(w http.ResponseWriter, req *http.Request, id string) {
	r.mu.Lock()
	in := r.uploads[id]
	r.mu.Unlock()
	if in == nil {
		http.NotFound(w, req)
		return
	}
	n, err := io.CopyBuffer(in.hash, req.Body, make([]byte, 256<<10))
	in.size += n
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Location", req.URL.Path)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(in.size-1, 0)))
	if req.Method != http.MethodPut {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	digest := "sha256:" + hex.EncodeToString(in.hash.Sum(nil))
	if digest != req.URL.Query().Get("digest") {
		http.Error(w, "these bytes have the digest "+digest, http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	r.blobs[digest] = &image{size: in.size, digest: digest}
	r.mu.Unlock()
	w.Header().Set("Docker-Content-Digest", digest)
	w.WriteHeader(http.StatusCreated)
}

func (r *registry) takeManifest(w http.ResponseWriter, req *http.Request, repo, tag string) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	img := &image{repo: repo, tag: tag, manifest: body, version: sha256Of(body)}
	r.mu.Lock()
	r.images[repo+":"+tag] = img
	r.mu.Unlock()
	w.Header().Set("Docker-Content-Digest", img.version)
	w.WriteHeader(http.StatusCreated)
}

// pushed reports whether a tag of a repository was pushed, and forgets it and
// all blobs that came with it.
func (r *registry) pushed(repo, tag string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	img := r.images[repo+":"+tag]
	delete(r.images, repo+":"+tag)
	for digest, blob := range r.blobs {
		if blob.path == "" {
			delete(r.blobs, digest)
		}
	}
	return img != nil
}
