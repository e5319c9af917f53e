// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/auth"
	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/files"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

const (
	// maxAnswer is the size in bytes above which an answer that is no image is
	// refused. A page of 2000 entries has about 1 MiB.
	maxAnswer = 16 << 20
	maxError  = 64 << 10 // bytes read of a refusal
)

const (
	argHeader    = "Dropbox-Api-Arg"
	resultHeader = "Dropbox-Api-Result"
)

// A transport is the http.RoundTripper below the SDK. It sends all requests to the host of
// the configuration, adds the login, and turns every refusal into one of our errors, so
// that the SDK sees successes only.
type transport struct {
	next   http.RoundTripper
	home   *url.URL // nil: as the SDK says
	tokens *tokens
}

// anonymous are the routes that are sent without a login.
var anonymous = map[string]bool{"/2/files/list_folder/longpoll": true, "/oauth2/token": true}

// RoundTrip implements http.RoundTripper. A login that has expired is renewed,
// and the request sent once more.
func (g *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := replayable(req)
	if err != nil {
		return nil, err
	}
	if anonymous[req.URL.Path] {
		resp, err := g.send(req, body, "")
		return g.checkAnswer(req, resp, err)
	}
	token, err := g.tokens.get(req.Context())
	if err != nil {
		return nil, err
	}
	resp, err := g.send(req, body, token)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return g.checkAnswer(req, resp, err)
	}
	refusal := unauthorized(resp)
	if !errors.Is(refusal, errToken) {
		return nil, refusal
	}
	if token, err = g.tokens.renew(req.Context(), token, refusal); err != nil {
		return nil, err
	}
	resp, err = g.send(req, body, token)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		return nil, unauthorized(resp)
	}
	return g.checkAnswer(req, resp, err)
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (g *transport) CloseIdleConnections() {
	if c, ok := g.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// refuseRedirect is an http.Client.CheckRedirect: Dropbox's API has none, and
// what followed would get the login.
func refuseRedirect(req *http.Request, _ []*http.Request) error {
	return fmt.Errorf("%w: redirect to %s refused", backends.ErrBadAnswer, req.URL.Host)
}

// replayable returns a function that makes the body anew, for the request may
// have to be sent twice. The bodies that the SDK gives no such function for are
// arguments in JSON, which are short.
func replayable(req *http.Request) (func() (io.ReadCloser, error), error) {
	if req.Body == nil || req.Body == http.NoBody {
		return func() (io.ReadCloser, error) { return http.NoBody, nil }, nil
	}
	defer req.Body.Close()
	if req.GetBody != nil {
		return req.GetBody, nil
	}
	text, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }, nil
}

func (g *transport) send(req *http.Request, body func() (io.ReadCloser, error), token string) (*http.Response, error) {
	out := req.Clone(req.Context())
	var err error
	if out.Body, err = body(); err != nil {
		return nil, err
	}
	if out.Body == http.NoBody {
		out.ContentLength = 0
	}
	if g.home != nil {
		out.URL.Scheme, out.URL.Host, out.Host = g.home.Scheme, g.home.Host, ""
	}
	if arg := out.Header.Get(argHeader); arg != "" {
		out.Header.Set(argHeader, asciiJSON(arg))
	}
	if token != "" {
		out.Header.Set("Authorization", "Bearer "+token)
	}
	return g.next.RoundTrip(out)
}

// asciiJSON writes JSON in printable ASCII, as a header must be: other
// characters as \uXXXX, those beyond U+FFFF as two of them (RFC 8259, 7). The
// SDK sends them as they are, which some proxies damage.
func asciiJSON(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r < 0x7f:
			b.WriteRune(r)
		case utf16.RuneLen(r) == 2:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// judge lets answers through that are what was asked for.
func (g *transport) checkAnswer(req *http.Request, resp *http.Response, err error) (*http.Response, error) {
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent:
		return nil, refused(resp)
	case strings.HasSuffix(req.URL.Path, "/files/download"):
		if err := checkDownload(req, resp); err != nil {
			resp.Body.Close()
			return nil, err
		}
		return resp, nil
	}
	resp.Body = &limitedBody{ReadCloser: resp.Body, left: maxAnswer}
	return resp, nil
}

// checkDownload looks whether a body is the range that was asked for: the SDK
// takes any status for it. It also leaves a body open whose header is no JSON.
func checkDownload(req *http.Request, resp *http.Response) error {
	if !json.Valid([]byte(resp.Header.Get(resultHeader))) {
		return fmt.Errorf("%w: a download without its metadata: not an answer of Dropbox", backends.ErrBadAnswer)
	}
	want, ranged := strings.CutPrefix(req.Header.Get("Range"), "bytes=")
	if !ranged {
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%w: HTTP %d for a whole file", backends.ErrBadAnswer, resp.StatusCode)
		}
		return nil
	}
	got := strings.TrimPrefix(resp.Header.Get("Content-Range"), "bytes ")
	start, _, _ := strings.Cut(want, "-")
	gotStart, _, _ := strings.Cut(got, "-")
	if resp.StatusCode != http.StatusPartialContent || gotStart != start {
		return fmt.Errorf("%w: asked for the bytes %s, got HTTP %d with the bytes %q", backends.ErrBadAnswer, want, resp.StatusCode, got)
	}
	return nil
}

// refused is the error of an answer that is no success. It closes the body.
func refused(resp *http.Response) error {
	if resp.StatusCode == http.StatusUnauthorized {
		return unauthorized(resp)
	}
	text := readRefusal(resp)
	switch resp.StatusCode {
	case http.StatusConflict:
		err := parseAPIError(text)
		if !has(err, files.UploadSessionFinishErrorTooManyWriteOperations) {
			return err
		}
		resp.StatusCode = http.StatusTooManyRequests // which it is, with the same headers
	case http.StatusBadRequest:
		// Which is how Dropbox says that an argument cannot be.
		return &refusalError{fmt.Errorf("%w: HTTP 400 %.200q", fs.ErrInvalid, backends.Redact(string(text)))}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		var limit auth.RateLimitAPIError
		if resp.Header.Get("Retry-After") == "" && json.Unmarshal(text, &limit) == nil && limit.RateLimitError != nil {
			resp.Header.Set("Retry-After", strconv.FormatUint(limit.RateLimitError.RetryAfter, 10))
		}
	}
	return &refusalError{httpx.Error(resp)}
}

// readRefusal returns the beginning of the body, which stays readable.
func readRefusal(resp *http.Response) []byte {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxError))
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(text))
	return text
}

// errToken says that another token could help.
var errToken = fmt.Errorf("%w: Dropbox refused the token", backends.ErrUnauthorized)

// unauthorized is the error of a 401. It closes the body.
func unauthorized(resp *http.Response) error {
	var answer auth.AuthAPIError
	if json.Unmarshal(readRefusal(resp), &answer) != nil || answer.AuthError == nil {
		return fmt.Errorf("%w (HTTP 401)", errToken)
	}
	switch tag := answer.AuthError.Tag; tag {
	case auth.AuthErrorMissingScope:
		scope := ""
		if answer.AuthError.MissingScope != nil {
			scope = answer.AuthError.MissingScope.RequiredScope
		}
		return fmt.Errorf("%w: the login lacks the permission %.60q (give it to the app on https://www.dropbox.com/developers/apps, then log in again)",
			backends.ErrUnauthorized, scope)
	case auth.AuthErrorUserSuspended, auth.AuthErrorRouteAccessDenied:
		return fmt.Errorf("%w: %s", backends.ErrUnauthorized, tag)
	default:
		return fmt.Errorf("%w: %.60q", errToken, tag)
	}
}

// A limitedBody gives an error where more comes than an answer may have.
type limitedBody struct {
	io.ReadCloser
	left int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("%w: an answer of more than %d bytes", backends.ErrBadAnswer, maxAnswer)
	}
	return n, err
}
