// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// What a request wants to do with a repository. Asking for all of it in the
// first token saves the second.
var (
	pull   = []string{auth.ActionPull}
	push   = []string{auth.ActionPull, auth.ActionPush}
	remove = []string{auth.ActionPull, auth.ActionPush, auth.ActionDelete}
)

// These end a listing that does not end by itself.
const (
	maxPages = 1000
	maxNames = 1_000_000
)

var errEndless = fmt.Errorf("%w: the listing has more than %d pages or %d names", backends.ErrBadAnswer, maxPages, maxNames)

// scoped returns ctx with the hint that a token for repo has to allow actions.
func (c *client) scoped(ctx context.Context, repo string, actions []string) context.Context {
	return auth.AppendScopesForHost(ctx, c.base.Host, auth.ScopeRepository(repo, actions...))
}

// request makes a request to the registry. Target is a path with an optional
// query; a name in it has passed CheckName and needs no escaping.
func (c *client) request(ctx context.Context, method, target string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+target, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	return req, nil
}

// do sends req with whatever login the registry asks for. A status that is
// neither 2xx nor in ok is an error, and the body is then closed.
func (c *client) do(req *http.Request, ok ...int) (*http.Response, error) {
	repo := repositoryIn(req.URL.Path)
	scope := c.login.scope(repo)
	req = req.WithContext(withScope(req.Context(), scope))
	for again := true; ; again = false {
		if err := c.login.authorize(req); err != nil {
			return nil, err
		}
		client := *c.auth
		cache := c.tokens.now(scope)
		client.Cache = cache
		resp, err := client.Do(req)
		if err == nil {
			c.limits.see(resp.Header)
		}
		if err != nil {
			err = c.transportError(req.Context(), err)
		} else if resp.StatusCode/100 != 2 && !slices.Contains(ok, resp.StatusCode) {
			err = c.statusError(resp)
		}
		if err == nil {
			cache.works(repo)
			return resp, nil
		}
		if !again || !c.renew(err, cache, req) || !rewind(req) {
			return nil, err
		}
	}
}

func rewind(req *http.Request) bool {
	if req.Body == nil || req.Body == http.NoBody {
		return true
	}
	if req.GetBody == nil {
		return false
	}
	body, err := req.GetBody()
	req.Body = body
	return err == nil
}

// statusError turns an answer into a sentinel, with the registry's own words:
// {"errors":[{"code","message"}]}. It closes the body.
func (c *client) statusError(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // a lost end of a message is no matter
	resp.Body.Close()
	code := 0
	var answer struct{ Errors errcode.Errors }
	if json.Unmarshal(body, &answer) == nil && len(answer.Errors) > 0 {
		// Not the detail: it is the registry's internals, and long.
		first := answer.Errors[0]
		body = []byte(strings.TrimSuffix(first.Code+": "+first.Message, ": "))
		code = statusOf(first.Code)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if code != 0 {
		resp.StatusCode = code
	}
	err := httpx.Error(resp)
	if len(answer.Errors) > 0 && answer.Errors[0].Code == errcode.ErrorCodeDigestInvalid {
		return fmt.Errorf("%w: HTTP %d %q", backends.ErrCorrupt, resp.StatusCode, backends.Redact(string(body)))
	}
	if len(answer.Errors) > 0 && errors.Is(err, fs.ErrNotExist) {
		return saidError{err}
	}
	switch {
	case errors.Is(err, backends.ErrUnauthorized):
		return fmt.Errorf("%w (%s)", err, c.unauthorized())
	case errors.Is(err, backends.ErrRateLimited):
		return c.refusal(err)
	case errors.Is(err, fs.ErrPermission) && c.preset.denied != "":
		return fmt.Errorf("%w (%s)", err, c.preset.denied)
	}
	return err
}

// A saidError is a "not found" in the registry's own form. Without that it may be
// a proxy's, which knows nothing of repositories.
type saidError struct{ error }

// Unwrap returns what was said.
func (e saidError) Unwrap() error { return e.error }

// unauthorized says, for an error, what it may be that the registry refuses.
func (c *client) unauthorized() string {
	if c.preset.secretive {
		return c.login.tried() + "; or there is no such repository, of which it says the same"
	}
	return c.login.tried()
}

// statusOf returns the status that says best what an error code means, for
// those that registries send with various statuses; else 0.
func statusOf(code string) int {
	switch code {
	case "TOOMANYREQUESTS":
		return http.StatusTooManyRequests
	case errcode.ErrorCodeUnsupported:
		return http.StatusMethodNotAllowed
	case errcode.ErrorCodeManifestUnknown, errcode.ErrorCodeNameUnknown, errcode.ErrorCodeBlobUnknown:
		return http.StatusNotFound
	}
	return 0
}

// transportError turns what auth.Client.Do returns into a sentinel.
func (c *client) transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if answer, ok := errors.AsType[*errcode.ErrorResponse](err); ok {
		return c.tokenError(answer)
	}
	if secret, ok := errors.AsType[secretError](err); ok {
		return secret.error
	}
	sent, ok := errors.AsType[*url.Error](err)
	switch {
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fmt.Errorf("%w: %s", backends.ErrUnauthorized, c.unauthorized())
	case ok && (errors.Is(err, errForeignLogin) || errors.Is(err, errForeignUpload)):
		return sent.Err // the guard's own words; the URL around them may be signed
	case ok || errors.Is(err, io.ErrUnexpectedEOF):
		return backends.TransportError(err)
	}
	// No request was under way: the challenge or the token makes no sense.
	return fmt.Errorf("%w: login at %s: %v", backends.ErrUnauthorized, c.base.Host, err)
}

// tokenError turns an answer of the token service into a sentinel; those of the
// registry itself go through statusError.
func (c *client) tokenError(answer *errcode.ErrorResponse) error {
	resp := &http.Response{StatusCode: answer.StatusCode}
	if len(answer.Errors) > 0 {
		resp.Body = io.NopCloser(strings.NewReader(answer.Errors[0].Error()))
	}
	err := httpx.Error(resp)
	if errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrRateLimited) {
		return fmt.Errorf("%w (token service %s)", err, answer.URL.Host)
	}
	// Whatever else it says, even a 404, says nothing of the image.
	return fmt.Errorf("%w: token service %s: %v (%s)", backends.ErrUnauthorized, answer.URL.Host, err, c.unauthorized())
}

// pages reads a listing from target on, following its links, and hands each
// page's body to read. After each page it yields nil, or the error that ends it:
// what takes time belongs there, where no connection is held.
func (c *client) pages(ctx context.Context, target string, read func(body io.Reader) error) iter.Seq[error] {
	return func(yield func(error) bool) {
		seen := map[string]bool{}
		for n := range maxPages {
			seen[target] = true
			next, err := c.page(ctx, target, read)
			if err == nil && next != "" && seen[next] {
				err = fmt.Errorf("%w: the listing goes in a circle at %q", backends.ErrBadAnswer, next)
			}
			if n > 0 {
				err = backends.BrokenOff(err)
			}
			if !yield(err) || err != nil || next == "" {
				return
			}
			target = next
		}
		yield(errEndless)
	}
}

// page reads one page, and returns where the next one is; "" if there is none.
func (c *client) page(ctx context.Context, target string, read func(body io.Reader) error) (next string, err error) {
	req, err := c.request(ctx, http.MethodGet, target, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.do(req)
	if err != nil {
		return "", err
	}
	err = read(resp.Body)
	resp.Body.Close()
	if err != nil {
		return "", err
	}
	if next = nextLink(resp.Header.Values("Link")); next == "" {
		return "", nil
	}
	return follow(req.URL, next)
}

// nextLink returns the target of rel="next" in Link headers (RFC 8288), or "".
func nextLink(headers []string) string {
	for _, header := range headers {
		for {
			_, rest, ok := strings.Cut(header, "<")
			if !ok {
				break
			}
			target, rest, ok := strings.Cut(rest, ">")
			if !ok {
				break
			}
			end := paramsEnd(rest)
			if isNext(rest[:end]) {
				return target
			}
			header = rest[end:]
		}
	}
	return ""
}

// paramsEnd returns where the parameters of a link, or one of a challenge, end: at a
// comma that is not quoted.
func paramsEnd(s string) int {
	quoted, escaped := false, false
	for i, c := range []byte(s) {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			return i
		}
	}
	return len(s)
}

// isNext reports whether the parameters of a link say rel=next. A link without
// any relation is taken for one: some registries send it so.
func isNext(params string) bool {
	rel, said := "", false
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(param, "=")
		if strings.EqualFold(strings.TrimSpace(name), "rel") {
			rel, said = strings.Trim(strings.TrimSpace(value), `"`), true
		}
	}
	return !said || slices.Contains(strings.Fields(strings.ToLower(rel)), "next")
}
