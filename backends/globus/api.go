// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// transferServer is the Transfer API as a resource server of Globus Auth.
const transferServer = "transfer.api.globus.org"

// A document is what all answers of the Transfer API have.
type document struct {
	DataType string `json:"DATA_TYPE"`
}

// is reports whether it is of a type: "file_list", "endpoint#1.2.0".
//
// Errors: backends.ErrBadAnswer.
func (d document) is(dataType string) error {
	if got, _, _ := strings.Cut(d.DataType, "#"); got != dataType {
		return fmt.Errorf("%w: a document %.40q in place of %q", backends.ErrBadAnswer, d.DataType, dataType)
	}
	return nil
}

// ask sends a request to the Transfer API and returns the answer, whose body the caller closes.
// body, if not nil, is sent as JSON.
func (c *client) ask(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	address := c.transfer.String() + transferAPI + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	return c.loggedIn(ctx, transferServer, func(token string) (*http.Response, error) {
		req, err := httpx.NewRequest(ctx, method, address, body)
		if err != nil {
			return nil, err
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		return httpx.Answer(c.http, req)
	})
}

// loggedIn sends a request with the token for a resource server, and once more with another one
// if that is refused. Each answer but 2xx and 416 becomes an error.
func (c *client) loggedIn(ctx context.Context, server string, send func(token string) (*http.Response, error)) (*http.Response, error) {
	token, err := c.tokens.get(ctx, server)
	if err != nil {
		return nil, err
	}
	for again := false; ; again = true {
		resp, err := send(token)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			return resp, nil
		}
		wantsLogin := resp.StatusCode == http.StatusUnauthorized || resp.StatusCode/100 == 3
		refusal := c.refusal(server, resp)
		if !wantsLogin || again || token == "" {
			return nil, refusal
		}
		if token, err = c.tokens.renew(ctx, server, token, refusal); err != nil {
			return nil, err
		}
	}
}

// call is ask for a small document, which is decoded into answer.
func (c *client) call(ctx context.Context, method, path string, query url.Values, body, answer any) error {
	resp, err := c.ask(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return httpx.JSON(resp.Body, answer)
}

// operation returns the path of an operation on what a collection holds.
func operation(endpoint, name string) string { return "/operation/endpoint/" + endpoint + "/" + name }

// A fileDocument is what the Transfer API tells of a file or folder.
type fileDocument struct {
	document

	Name         string  `json:"name"`
	Type         string  `json:"type"` // "file", "dir", or what is neither
	Size         *int64  `json:"size"`
	LastModified *string `json:"last_modified"`
}

// modified returns when the file was written; zero if the server does not say.
func (f fileDocument) modified() time.Time {
	if f.LastModified == nil {
		return time.Time{}
	}
	for _, layout := range []string{"2006-01-02 15:04:05Z07:00", time.RFC3339} {
		if at, err := time.Parse(layout, *f.LastModified); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}

// stat returns the document of a file or folder.
func (c *client) stat(ctx context.Context, p place) (fileDocument, error) {
	var f fileDocument
	err := c.call(ctx, http.MethodGet, operation(p.endpoint, "stat"), url.Values{"path": {p.path}}, nil, &f)
	if err == nil {
		err = f.is("file")
	}
	if err == nil && f.Type == "" {
		err = fmt.Errorf("%w: a file without a type", backends.ErrBadAnswer)
	}
	return f, err
}

const (
	// listLimit is the most that one listing may tell. Globus makes the whole listing again for
	// each page, so one is asked for.
	listLimit = 100_000
	// maxListing is how many bytes of one are read.
	maxListing = 256 << 20
)

// A listing is one page of a folder, without the documents in it.
type listing struct {
	document

	AbsolutePath *string `json:"absolute_path"`
	Total        *int    `json:"total"` // of all pages

	n int // how many documents were told
}

// ls tells fn of each document of one page of a folder, until that returns false.
func (c *client) ls(ctx context.Context, p place, filter string, limit, offset int, fn func(fileDocument) bool) (listing, error) {
	query := url.Values{"path": {p.path + "/"}, "limit": {strconv.Itoa(limit)}, "show_hidden": {"0"}}
	if offset > 0 {
		query.Set("offset", strconv.Itoa(offset))
	}
	if filter != "" {
		query.Set("filter", filter)
	}
	resp, err := c.ask(ctx, http.MethodGet, operation(p.endpoint, "ls"), query, nil)
	if err != nil {
		return listing{}, err
	}
	defer resp.Body.Close()
	return readListing(io.LimitReader(resp.Body, maxListing), fn)
}

// readListing reads a listing without having all of it in memory.
//
// Errors: backends.ErrBadAnswer; those of backends.TransportError.
func readListing(body io.Reader, fn func(fileDocument) bool) (list listing, err error) {
	dec := json.NewDecoder(body)
	rest := map[string]json.RawMessage{}
	told := false
	err = eachField(dec, func(key string) error {
		if key != "DATA" {
			var value json.RawMessage
			err := dec.Decode(&value)
			rest[key] = value
			return err
		}
		told = true
		return eachElement(dec, func() (bool, error) {
			var f fileDocument
			if err := dec.Decode(&f); err != nil {
				return false, err
			}
			if err := f.is("file"); err != nil {
				return false, err
			}
			list.n++
			return fn(f), nil
		})
	})
	switch {
	case err == errStopped: //nolint:errorlint // it is ours, and nobody wraps it
		return list, nil
	case err != nil:
		return list, listingError(err)
	case !told:
		return list, fmt.Errorf("%w: a listing without DATA", backends.ErrBadAnswer)
	}
	text, err := json.Marshal(rest)
	if err == nil {
		err = httpx.Decode(text, &list)
	}
	if err == nil {
		err = list.is("file_list")
	}
	return list, err
}

// refusal makes an error of an answer that is none, and closes it.
func (c *client) refusal(server string, resp *http.Response) error {
	if resp.StatusCode/100 == 3 {
		return c.redirected(server, resp)
	}
	text, err := httpx.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		text = nil
	}
	resp.Body = io.NopCloser(bytes.NewReader(text))
	status := httpx.Error(resp)
	var e apiError
	if json.Unmarshal(text, &e) != nil || e.Code == "" {
		e = apiError{Message: string(text), Session: gridSession(string(text))}
	}
	return c.translate(server, &e, status)
}
