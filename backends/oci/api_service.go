// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// apiPage is how many repositories one page of an API has at most: each of
// the services takes a hundred, none takes more.
const apiPage = "100"

// A lister knows the repositories of a namespace by the service's own API.
type lister interface {
	// start returns where the list of a namespace begins. Where it may be one
	// of several places, the first that is there counts.
	start(namespace string) []string
	// page reads one page, and returns where the next one is; "" if nowhere.
	page(ctx context.Context, namespace, target string) (repos []string, next string, err error)
}

// An api is a service's own HTTP interface, beside that of the registry.
type api struct {
	base   *url.URL
	http   *http.Client
	login  *login
	limits *limits
	// sign adds the login to a request; nil asks without one.
	sign func(ctx context.Context, req *http.Request) error
	// expired forgets what sign has kept of a login, and reports whether there
	// was anything; nil if it keeps nothing.
	expired func() bool

	mu    sync.Mutex // guards the fields below
	cred  auth.Credential
	until time.Time // when to look for the login again
}

// credLife is how long a login is good for the pages of a listing: it is asked for
// by running a command, maybe, and a listing can have a thousand.
const credLife = time.Minute

// apiClient returns hc as one that stays at base: no API has to send its clients
// elsewhere, and a redirect would carry on what is not a header, too.
func apiClient(hc *http.Client, base *url.URL) *http.Client {
	stay := *hc
	next := hc.CheckRedirect
	stay.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if !sameOrigin(req.URL, base) || len(via) > maxHops {
			return fmt.Errorf("%w: %s sends its clients to %s", backends.ErrBadAnswer, base.Host, req.URL.Host)
		}
		if next != nil {
			return next(req, via)
		}
		return nil
	}
	return &stay
}

const maxHops = 10

// get reads the answer at target, a path with an optional query, into v.
func (a *api) get(ctx context.Context, target string, v any) (http.Header, error) {
	for again := true; ; again = false {
		header, err := a.ask(ctx, http.MethodGet, target, nil, v)
		if err == nil || !again || !errors.Is(err, backends.ErrUnauthorized) {
			return header, err
		}
		a.mu.Lock()
		a.until = time.Time{}
		a.mu.Unlock()
		forgotten := a.expired != nil && a.expired()
		if renewed := a.login.renew(true); !forgotten && !renewed {
			return header, err
		}
	}
}

// ask makes one request. One with a body is that for a login, and not signed.
func (a *api) ask(ctx context.Context, method, target string, body []byte, v any) (http.Header, error) {
	if body != nil {
		ctx = backends.WithLogin(ctx)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base.Scheme+"://"+a.base.Host+target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	} else if a.sign != nil {
		if err := a.sign(ctx, req); err != nil {
			return nil, err
		}
	}
	resp, err := httpx.Do(a.http, req, http.StatusForbidden, http.StatusTooManyRequests)
	if errors.Is(err, backends.ErrUnauthorized) {
		return nil, fmt.Errorf("%w (%s)", err, a.login.triedAt(a.base.Host))
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a.limits.seeAPI(resp.Header)
	if resp.StatusCode/100 != 2 {
		return nil, limited(resp)
	}
	return resp.Header, httpx.JSON(resp.Body, v)
}

// credential returns the registry's login, for its API.
func (a *api) credential(ctx context.Context) (auth.Credential, error) {
	a.mu.Lock()
	cred, fresh := a.cred, time.Now().Before(a.until)
	a.mu.Unlock()
	if fresh {
		return cred, nil
	}
	cred, err := a.login.credential(ctx, a.login.host)
	if err != nil {
		return auth.EmptyCredential, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cred, a.until = cred, time.Now().Add(credLife)
	return cred, nil
}

// path returns the target of a path below the API's address. The parts are
// escaped; a slash within one stays one part.
func (a *api) path(parts ...string) string {
	target := a.base.EscapedPath()
	for _, part := range parts {
		target += "/" + url.PathEscape(part)
	}
	return target
}

// onward returns the target of a link on a page at target. Errors:
// backends.ErrBadAnswer if it leads to another host.
func (a *api) onward(target, link string) (string, error) {
	if link == "" {
		return "", nil
	}
	from, err := a.base.Parse(target)
	if err != nil {
		return "", fmt.Errorf("%w: %v", backends.ErrBadAnswer, err)
	}
	return follow(from, link)
}

// follow returns the target of a link in an answer from a URL. It has to be on
// the same host. Errors: backends.ErrBadAnswer.
func follow(from *url.URL, link string) (string, error) {
	u, err := from.Parse(link)
	// What is opaque ("x:.evil.example/") has no host, and would be the end
	// of ours.
	if err != nil || u.Opaque != "" || !strings.EqualFold(u.Host, from.Host) && !sameOrigin(u, from) {
		return "", fmt.Errorf("%w: the listing goes on at %q, which is not on %s", backends.ErrBadAnswer, link, from.Host)
	}
	return u.RequestURI(), nil
}

// withQuery returns target with one parameter of its query set.
func withQuery(target, name, value string) string {
	path, query, _ := strings.Cut(target, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		values = url.Values{}
	}
	values.Set(name, value)
	return path + "?" + values.Encode()
}
