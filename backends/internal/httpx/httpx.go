// SPDX-License-Identifier: Apache-2.0

// Package httpx is what the backends' HTTP code has in common: statuses become
// sentinels in exactly one function, and answers are read with a limit. It is
// not a REST framework. Start at [Error].
package httpx

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// MaxMetadata is the size in bytes above which an answer that is not an
// image is refused with backends.ErrBadAnswer (oras-go's default).
const MaxMetadata = 4 << 20

const (
	maxDetail = 200            // bytes of a service's own words in an error
	maxDrain  = 64 << 10       // bytes of an error's body read so that the connection can be used again
	maxDelay  = 24 * time.Hour // believed in a Retry-After
)

// Do sends req with hc. An error of the transport is backends.ErrUnavailable
// with detail (but a context's error stays what it is); a status that is
// neither 2xx nor in ok becomes Error(resp), with the body closed.
func Do(hc *http.Client, req *http.Request, ok ...int) (*http.Response, error) {
	resp, err := hc.Do(req)
	if err != nil {
		if ended := req.Context().Err(); ended != nil {
			return nil, ended
		}
		return nil, backends.TransportError(err)
	}
	if resp.StatusCode/100 == 2 || slices.Contains(ok, resp.StatusCode) {
		return resp, nil
	}
	return nil, Error(resp)
}

// Answer sends req as Do does, for callers that read refusals themselves: an answer of any
// status from 300 to 599 is returned too.
func Answer(hc *http.Client, req *http.Request) (*http.Response, error) {
	return Do(hc, req, refusals[:]...)
}

// HeadRefused reports whether err is how a HEAD was answered that a GET may be answered
// otherwise than: registries and proxies that know none say 403, 404, 405 or 501.
func HeadRefused(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) ||
		errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized)
}

// refusals are all statuses that a final answer can have besides 2xx.
var refusals = func() (all [300]int) {
	for i := range all {
		all[i] = 300 + i
	}
	return all
}()

// NewRequest makes a request for JSON; body, if not nil, is sent as such. An address
// that is none is fs.ErrInvalid.
func NewRequest(ctx context.Context, method, address string, body any) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, content)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// Error returns the sentinel for resp.StatusCode with a line of resp.Body as
// detail (quoted: it is the service's word), a *backends.DelayError where a
// Retry-After header says so; nil for 2xx. It closes the body if not nil.
//
//	401 ErrUnauthorized   403 fs.ErrPermission   404 410 fs.ErrNotExist
//	409 412 fs.ErrExist   405 501 errors.ErrUnsupported   416 fs.ErrInvalid
//	429 ErrRateLimited    408 5xx ErrUnavailable     others ErrBadAnswer
func Error(resp *http.Response) error {
	if resp.StatusCode/100 == 2 {
		return nil
	}
	what, text := sentinel(resp.StatusCode), fmt.Sprintf("HTTP %d%s", resp.StatusCode, detail(resp))
	err := backends.Saying(what, "%s: %s", Word(what), text)
	if resp.Body != nil {
		resp.Body.Close()
	}
	if after := retryAfter(resp.Header.Get("Retry-After")); after > 0 {
		return &backends.DelayError{Err: err, After: after}
	}
	return err
}

// Word is what a sentinel means for a registry: those of package fs speak of files.
func Word(sentinel error) string { return cmp.Or(words[sentinel], sentinel.Error()) }

var words = map[error]string{fs.ErrNotExist: "not found", fs.ErrExist: "conflict"}

func sentinel(status int) error {
	switch status {
	case http.StatusUnauthorized:
		return backends.ErrUnauthorized
	case http.StatusForbidden:
		return fs.ErrPermission
	case http.StatusNotFound, http.StatusGone:
		return fs.ErrNotExist
	case http.StatusConflict, http.StatusPreconditionFailed:
		return fs.ErrExist
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return errors.ErrUnsupported
	case http.StatusRequestedRangeNotSatisfiable:
		return fs.ErrInvalid
	case http.StatusTooManyRequests:
		return backends.ErrRateLimited
	case http.StatusRequestEntityTooLarge:
		return syscall.EFBIG
	case http.StatusInsufficientStorage:
		return syscall.EDQUOT
	case http.StatusRequestTimeout:
		return backends.ErrUnavailable
	}
	if status/100 == 5 {
		return backends.ErrUnavailable
	}
	return backends.ErrBadAnswer
}

// detail returns the first line of an error's body, quoted, unless that is a
// page for people.
func detail(resp *http.Response) string {
	if resp.Body == nil {
		return ""
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxDrain))
	if isHTML(resp.Header) {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	line = strings.TrimSpace(line)
	if len(line) > maxDetail {
		line = line[:maxDetail]
	}
	if line == "" {
		return ""
	}
	return fmt.Sprintf(" %q", backends.Redact(line))
}

func isHTML(h http.Header) bool {
	mediaType, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return mediaType == "text/html" || mediaType == "application/xhtml+xml"
}

// retryAfter reads a Retry-After header: seconds or a date (RFC 9110, 10.2.3).
func retryAfter(value string) time.Duration {
	var d time.Duration
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		d = time.Until(at)
	}
	return min(max(d, 0), maxDelay)
}

// JSON decodes body, at most MaxMetadata bytes of it, into v.
// Errors: backends.ErrBadAnswer if it is larger, not JSON, or nested too deep;
// those of backends.TransportError if it cannot be read.
func JSON(body io.Reader, v any) error {
	text, err := ReadAll(body)
	if err != nil {
		return err
	}
	return Decode(text, v)
}

// Decode decodes the JSON of an answer into v.
// Errors: backends.ErrBadAnswer, with what is there instead.
func Decode(text []byte, v any) error {
	text = bytes.TrimSpace(text)
	switch {
	case len(text) == 0:
		return fmt.Errorf("%w: nothing where JSON should be", backends.ErrBadAnswer)
	case text[0] == '<':
		return ErrPage
	case string(text) == "null":
		return fmt.Errorf("%w: null where something should be", backends.ErrBadAnswer)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%w: not the JSON of a registry: %v", backends.ErrBadAnswer, err)
	}
	return nil
}

// ErrPage is a page for people in the place of an answer: the sign-in of a network,
// or a web site at an address that is not the registry's.
var ErrPage = fmt.Errorf("%w: a page for people in place of JSON (is there a network to sign in to, or is url another one?)", backends.ErrBadAnswer)

// ReadAll reads body, at most MaxMetadata bytes of it.
// Errors: backends.ErrBadAnswer if it is larger; those of
// backends.TransportError if it cannot be read.
func ReadAll(body io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(body, MaxMetadata+1))
	switch {
	case errors.Is(err, context.Canceled):
		return nil, context.Canceled
	case err != nil:
		return nil, backends.TransportError(err)
	case len(text) > MaxMetadata:
		return nil, fmt.Errorf("%w: an answer of more than %d bytes", backends.ErrBadAnswer, MaxMetadata)
	}
	return text, nil
}
