// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// An answerError is the server's refusal with what tells how to go on.
type answerError struct {
	status int
	date   time.Time // the server's clock; zero if it does not say
	err    error     // the sentinel
}

func (e *answerError) Error() string { return e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

// statusOf returns the status of an answer that is an error, 0 for other errors.
func statusOf(err error) int {
	if e, ok := errors.AsType[*answerError](err); ok {
		return e.status
	}
	return 0
}

// limitPause is how long the views whose limit was met are left alone. They count by
// the day, and do not say when it ends.
const limitPause = 15 * time.Minute

func answer(resp *http.Response) error {
	date, _ := http.ParseTime(resp.Header.Get("Date"))
	e := &answerError{status: resp.StatusCode, date: date}
	// A view refuses a person in JSON; with a page it refuses everybody.
	over := resp.StatusCode == http.StatusForbidden && ranged.IsPage(resp.Header)
	if e.err = httpx.Error(resp); over {
		e.err = &backends.DelayError{After: limitPause, Err: fmt.Errorf(
			"%w: HTTP 403 for everybody here: the server answers a number of requests a day (its VIEW_RATE_LIMIT)", backends.ErrRateLimited)}
	}
	return e
}

// url returns an address on the server. What stands in path is plain or escaped.
func (c *client) url(path string) string { return c.home.String() + path }

// escape is for what a person typed into a path.
func escape(s string) string { return url.PathEscape(s) }

// do sends req. Errors: *answerError for an answer that is none of 2xx; those
// of httpx.Do.
func (c *client) do(req *http.Request) (*http.Response, error) {
	resp, err := httpx.Answer(c.http, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	return nil, answer(resp)
}

// text sends req and returns the header and the body of the answer.
func (c *client) text(req *http.Request) (http.Header, []byte, error) {
	resp, err := c.do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	text, err := httpx.ReadAll(resp.Body)
	return resp.Header, text, err
}

// object sends req and decodes the JSON object or array of the answer into v.
func (c *client) object(req *http.Request, v any) error {
	header, text, err := c.text(req)
	if err != nil {
		return err
	}
	return decode(header, text, v)
}

// verdict returns the error that an answer of status 200 can be: the server's
// views end in "return Response(429)" where they mean a status, which makes the
// number the body and the status 200.
func verdict(header http.Header, text []byte) error {
	status, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil || status < 400 || status > 599 {
		return nil
	}
	said := answer(&http.Response{StatusCode: status, Header: header})
	if status == http.StatusTooManyRequests {
		// The quota of a week: trying again in a moment costs requests alone.
		return backoff.Permanent(fmt.Errorf("%w (the server allows a number of downloads each week)", said))
	}
	return said
}

// decode reads the object or array of an answer of status 200.
func decode(header http.Header, text []byte, v any) error {
	if err := verdict(header, text); err != nil {
		return err
	}
	return httpx.Decode(text, v)
}

// bearer sends a request to the library API and decodes the "data" of the
// answer into v, which may be nil.
func (c *client) bearer(ctx context.Context, method, path string, body, v any) error {
	token, err := c.login.get(ctx, "")
	if err != nil {
		return err
	}
	send := func(token string) error {
		req, err := httpx.NewRequest(ctx, method, c.url(path), body)
		if err != nil {
			return err
		}
		if strings.HasPrefix(path, tagsPath) {
			// This view has a parser for no media type at all.
			req.Header.Del("Content-Type")
		}
		req.Header.Set("Authorization", "Bearer "+token)
		return c.data(req, v)
	}
	if err = send(token); !errors.Is(err, backends.ErrUnauthorized) {
		return err
	}
	if token, noToken := c.login.get(ctx, token); noToken == nil {
		return send(token)
	}
	return err
}

// data sends req and decodes {"data": v}. Without v only the status counts.
func (c *client) data(req *http.Request, v any) error {
	header, text, err := c.text(req)
	if err != nil {
		return err
	}
	if v == nil {
		if bytes.HasPrefix(bytes.TrimSpace(text), []byte("<")) {
			return httpx.ErrPage
		}
		return verdict(header, text)
	}
	var envelope struct {
		Data json.RawMessage `json:"data"`
	}
	if err := decode(header, text, &envelope); err != nil {
		return err
	}
	if len(envelope.Data) == 0 {
		return fmt.Errorf("%w: an answer of the library API without data", backends.ErrBadAnswer)
	}
	return decode(header, envelope.Data, v)
}

// target reads an address that the server gave in an answer: of an object store,
// or of the server under another of its names.
func (c *client) target(address string) (*url.URL, error) {
	u, err := c.home.Parse(address)
	if err == nil && u.Scheme == "http" && c.home.Scheme == "https" && u.Hostname() == c.home.Hostname() {
		// A server behind a TLS proxy often believes that it speaks http.
		u.Scheme, u.Host = c.home.Scheme, c.home.Host
		address = u.String()
	}
	return httpx.Target(c.home, address)
}

// A word is a string, or a number that is used as one: identifiers are numbers
// in one API and strings in the other.
type word string

// UnmarshalJSON takes a string, a number or null.
func (w *word) UnmarshalJSON(text []byte) error {
	switch {
	case string(text) == "null":
		*w = ""
	case len(text) > 0 && text[0] == '"':
		return json.Unmarshal(text, (*string)(w))
	case len(text) > 0 && strings.IndexByte("-0123456789", text[0]) >= 0:
		*w = word(text)
	default:
		return fmt.Errorf("neither a string nor a number")
	}
	return nil
}
