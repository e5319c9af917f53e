// SPDX-License-Identifier: Apache-2.0

package library

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

const (
	// maxAnswer bounds the bytes of an answer: a collection names all its
	// containers in one, a container all its images and tags.
	maxAnswer = 32 << 20
	maxDetail = 64 << 10 // bytes of an error that are read
)

// do sends req to the library. Errors: the sentinel of a status that is none of
// 2xx, with the library's own words; those of httpx.Do.
func (c *client) do(req *http.Request) (*http.Response, error) {
	resp, err := httpx.Answer(c.http, req)
	if err != nil {
		return nil, err
	}
	if asked := resp.Request; asked != nil && asked.URL != nil && asked.Response == nil {
		// Not the request itself: its body would stay with it.
		kept := &http.Request{Method: asked.Method, URL: asked.URL}
		c.asked.Store(kept.WithContext(asked.Context()))
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	return nil, refusal(resp)
}

// refusal turns an answer into a sentinel. It closes the body.
func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxDetail)) // a lost end of a message is no matter
	resp.Body.Close()
	var said struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(text, &said) == nil && said.Error.Message != "" {
		text = []byte(said.Error.Message)
	}
	resp.Body = io.NopCloser(bytes.NewReader(text))
	return httpx.Error(resp)
}

// sentAway returns a request to an address out of an answer as one that the library
// has redirected to: the transport then keeps a public library from sending us to
// private addresses.
func (c *client) sentAway(req *http.Request) *http.Request {
	if asked := c.asked.Load(); asked != nil && req.Response == nil {
		req = req.WithContext(req.Context())
		req.Response = &http.Response{Request: asked}
	}
	return req
}

// object sends req and decodes the JSON object of the answer into v; without v only
// the status counts.
func (c *client) object(req *http.Request, v any) error {
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if ranged.IsPage(resp.Header) {
		return httpx.ErrPage
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case req.Context().Err() != nil:
		return req.Context().Err()
	case err != nil:
		return backends.TransportError(err)
	case len(text) > maxAnswer:
		return fmt.Errorf("%w: an answer of more than %d bytes", backends.ErrBadAnswer, maxAnswer)
	}
	text = bytes.TrimSpace(text)
	switch {
	case v == nil && (len(text) == 0 || text[0] != '<'):
		return nil // any words will do
	case v == nil:
		return httpx.ErrPage
	}
	return httpx.Decode(text, v)
}

// data sends req and decodes {"data": v}. Without v only the status counts.
func (c *client) data(req *http.Request, v any) error {
	if v == nil {
		return c.object(req, nil)
	}
	var envelope struct {
		Data json.RawMessage `json:"data"`
	}
	if err := c.object(req, &envelope); err != nil {
		return err
	}
	if len(envelope.Data) == 0 || string(envelope.Data) == "null" {
		return fmt.Errorf("%w: an answer of a library without data", backends.ErrBadAnswer)
	}
	return httpx.Decode(envelope.Data, v)
}

// loggedIn calls send with the token that there is, "" if there is none, and once
// more with a newer one if that was refused and there is one.
func (c *client) loggedIn(ctx context.Context, send func(base *url.URL, token string) error) error {
	base, err := c.base(ctx)
	if err != nil {
		return err
	}
	token, err := c.login.get(ctx)
	if err != nil {
		return err
	}
	err = send(base, token)
	if next, ok := c.login.another(ctx, token, err); ok {
		token = next
		err = send(base, token)
	}
	if !errors.Is(err, backends.ErrUnauthorized) {
		return err
	}
	if token == "" {
		return fmt.Errorf("%w (run \"sreg login %s\")", err, c.login.remote)
	}
	return c.login.refused()
}

// authorize puts the token on a request to the library.
func authorize(req *http.Request, token string) {
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
}

// ask sends a request to the library API and decodes the "data" of the answer into
// v, which may be nil.
func (c *client) ask(ctx context.Context, method, path string, body, v any) error {
	return c.loggedIn(ctx, func(base *url.URL, token string) error {
		req, err := httpx.NewRequest(ctx, method, base.String()+path, body)
		if err != nil {
			return err
		}
		if strings.HasPrefix(path, tagsV1) {
			// The clients of Sylabs send none, and the view of Singularity Registry
			// Server has a parser for no media type at all.
			req.Header.Del("Content-Type")
		}
		authorize(req, token)
		return c.data(req, v)
	})
}

// get is ask for what is only read.
func (c *client) get(ctx context.Context, path string, v any) error {
	return c.ask(ctx, http.MethodGet, path, nil, v)
}

// idPath is an id as part of a path: those of the real library are hexadecimal
// digits, those of its specification have slashes.
func idPath(id string) (string, error) {
	parts := strings.Split(id, "/")
	for i, part := range parts {
		if part == "" || part == "." || part == ".." || len(id) > 1024 {
			return "", fmt.Errorf("%w: %.100q is no id", backends.ErrBadAnswer, id)
		}
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/"), nil
}
