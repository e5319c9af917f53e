// SPDX-License-Identifier: Apache-2.0

// Package libapi sends the bytes of an image by version 2 of the library API,
// which the Sylabs library and Singularity Registry Server both speak: the server
// hands out presigned URLs, the bytes go to an object store, in one request or in
// parts, and the server is told when they are there.
//
// It knows nothing of names, logins and tags: begin at [Upload], which is told how
// to ask the server, and at [Hashed] for the content.
//
// The fields of the requests are those of client/request.go and client/response.go
// of github.com/sylabs/scs-library-client.
package libapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// MaxSingle is what S3 takes in one request.
const MaxSingle = 5 << 30

const (
	// maxParts is how many parts S3 takes, maxPart how large one may be.
	maxParts = 10_000
	maxPart  = 5 << 30
)

// An Upload is the bytes of one image on their way.
type Upload struct {
	Image  string // its id on the server
	Source backends.Source

	// Server sends a request with a JSON body to the server, with the login that
	// it wants, and decodes the "data" of the answer into v unless that is nil.
	Server func(ctx context.Context, method, path string, body, v any) error
	// Store sends what goes to the object store.
	Store *http.Client
	// Target reads an address that the server gave: it refuses those that cannot
	// be right.
	Target func(address string) (*url.URL, error)
	// Prepare is given the request to such an address last; may be nil.
	Prepare func(*http.Request) *http.Request

	// AlwaysSum says that the parts carry their sum in a header, whatever the
	// presigned URL says of headers.
	AlwaysSum bool
	// Aborts says that the server wants to be told of an upload that is given up.
	Aborts bool

	State *State // what is known of an earlier try; changed as the upload goes on
	Save  func() // keeps State
	Log   *slog.Logger
}

// A State is what an upload in parts needs to go on. Its JSON is what Sessions
// keep.
type State struct {
	Image    string `json:"image,omitempty"`
	Upload   string `json:"upload,omitempty"`
	PartSize int64  `json:"partSize,omitempty"`
	NoSums   bool   `json:"noSums,omitempty"` // the store takes no sum of a part
	Parts    []Part `json:"parts,omitempty"`
}

// A Part is one that the store has.
type Part struct {
	SHA256 string `json:"sha256"`
	Token  string `json:"token"` // the ETag
}

// ErrNoParts says that a server, or its store, takes no parts.
var ErrNoParts = errors.New("the server takes no parts")

// A refusal is the object store's.
type refusal struct {
	status int
	err    error
}

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

func (u *Upload) path() string { return "/v2/imagefile/" + url.PathEscape(u.Image) }

func (u *Upload) progress(stored int64) {
	if u.Source.Progress != nil {
		u.Source.Progress(stored)
	}
}

// tell returns a Hashed.Tell for bytes from off.
func (u *Upload) tell(off int64) func(int) {
	return func(n int) {
		off += int64(n)
		u.progress(off)
	}
}

// Send sends the bytes, in parts if there are more than partSize of them and the
// server takes parts.
//
// Errors: backends.ErrCorrupt if the content does not match its digest; those of
// Server and of the store.
func (u *Upload) Send(ctx context.Context, partSize int64) error {
	if u.Source.Size <= partSize {
		return u.Whole(ctx)
	}
	err := u.InParts(ctx)
	if errors.Is(err, ErrNoParts) && u.Source.Size <= MaxSingle {
		u.Log.Info("the image is sent in one piece", "reason", err)
		return u.Whole(ctx)
	}
	return err
}

// Whole sends all bytes in one request.
func (u *Upload) Whole(ctx context.Context) error {
	var opened struct {
		UploadURL string `json:"uploadURL"`
	}
	sum := strings.TrimPrefix(u.Source.Digest, "sha256:")
	body := map[string]any{"filesize": u.Source.Size, "sha256sum": sum}
	if err := u.Server(ctx, http.MethodPost, u.path(), body, &opened); err != nil {
		return err
	}
	h := NewHashed(u.Source.Content, 0, u.Source.Size)
	h.Check = func() error { return SameDigest(u.Source, h.SHA256()) }
	h.Tell = u.tell(0)
	if _, err := u.put(ctx, opened.UploadURL, h, u.Source.Size, sum, false); err != nil {
		return err
	}
	return u.Server(ctx, http.MethodPut, u.path()+"/_complete", map[string]any{}, nil)
}

// put sends a body to a presigned URL, which is all the permission it needs. It
// returns the ETag.
func (u *Upload) put(ctx context.Context, address string, h *Hashed, size int64, sum string, part bool) (string, error) {
	to, err := u.Target(address)
	if err != nil {
		return "", err
	}
	if size == 0 {
		if err := h.Check(); err != nil {
			return "", err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, to.String(), io.NopCloser(h))
	if err != nil {
		return "", fmt.Errorf("%w: %v", backends.ErrBadAnswer, err)
	}
	req.ContentLength = size
	if size == 0 {
		req.Body = http.NoBody
	}
	if !part {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	if sum != "" && (part && u.AlwaysSum || signs(to, "x-amz-content-sha256")) {
		req.Header.Set("X-Amz-Content-Sha256", sum)
	}
	if u.Prepare != nil {
		req = u.Prepare(req)
	}
	resp, err := httpx.Answer(u.Store, req)
	if wrong := h.Failed(); wrong != nil {
		if err == nil {
			resp.Body.Close()
		}
		return "", wrong
	}
	if err != nil {
		return "", err
	}
	if resp.StatusCode/100 != 2 {
		return "", &refusal{status: resp.StatusCode, err: httpx.Error(resp)}
	}
	resp.Body.Close()
	return resp.Header.Get("ETag"), nil
}

// signs reports whether a presigned URL was signed with that header, which it must
// then come with. (A store refuses those of its own that were not signed.)
func signs(u *url.URL, header string) bool {
	return slices.Contains(strings.Split(strings.ToLower(u.Query().Get("X-Amz-SignedHeaders")), ";"), header)
}

// stale reports whether what the server or the store knew of an upload is gone, or
// was refused.
func stale(err error) bool {
	if e, ok := errors.AsType[*refusal](err); ok {
		switch e.status {
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
			http.StatusGone, http.StatusPreconditionFailed:
			return true
		}
		return false
	}
	return errors.Is(err, fs.ErrNotExist)
}
