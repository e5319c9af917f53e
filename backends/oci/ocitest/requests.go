// SPDX-License-Identifier: Apache-2.0

package ocitest

import (
	"io"
	"net/http"
	"slices"
	"strings"
)

// A Request is one that reached the proxy, with what became of it.
type Request struct {
	Method, Path, Query string
	Header              http.Header
	Status              int
	In, Out             int64 // bytes of the bodies that went by
}

// Requests returns what was asked so far, in the order of the answers' ends.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.log)
}

// Forget empties the log.
func (r *Registry) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = nil
}

// Count returns how many requests had this method ("" is any) and a path that
// contains part.
func (r *Registry) Count(method, part string) int {
	n := 0
	for _, req := range r.Requests() {
		if (method == "" || req.Method == method) && strings.Contains(req.Path, part) {
			n++
		}
	}
	return n
}

// BlobBytes returns how many bytes of blobs were sent to clients.
func (r *Registry) BlobBytes() int64 {
	var n int64
	for _, req := range r.Requests() {
		if req.Method == http.MethodGet && strings.Contains(req.Path, "/blobs/sha") {
			n += req.Out
		}
	}
	return n
}

type recorder struct {
	http.ResponseWriter
	status int
	n      int64
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController find what the recorder hides.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type countReader struct {
	io.ReadCloser
	n int64
}

func (r *countReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.n += int64(n)
	return n, err
}
