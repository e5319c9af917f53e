// SPDX-License-Identifier: Apache-2.0

package gitlab

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// Who the token is for goes by the user name that is configured with it, as GitLab has it.
const (
	jobUser    = "gitlab-ci-token"
	deployUser = "gitlab+deploy-token" // and a number
)

// An api is GitLab's REST API, for a login.
type api struct {
	home    *url.URL
	user    string
	secret  backends.SecretFunc
	http    *http.Client
	renewal httpx.Renewal
}

func newAPI(address string, env backends.Env) (*api, error) {
	home, err := httpx.Address(address, "/api/v4")
	if err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	return &api{home: home, user: env.User, secret: env.Secret, http: env.HTTP}, nil
}

// Address implements backends.Addressed.
func (c *api) Address() string { return c.home.String() }

// Knock implements backends.Knocker: GitLab answers that with 401 where it wants a login.
func (c *api) Knock() (method, address string) {
	return http.MethodGet, c.home.JoinPath("api/v4/version").String()
}

const (
	perPage  = "100" // the most there is
	maxPages = 10_000
)

// do sends a request with the login, once more with a newer one if that is refused. prepare may be
// nil; it is called for each try.
//
// Errors: those of httpx.Do.
func (c *api) do(ctx context.Context, method, path string, query url.Values, prepare func(*http.Request) error, ok ...int) (*http.Response, error) {
	address := c.home.String() + "/api/v4/" + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	send := func(token string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, method, address, nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
		}
		header := "Private-Token"
		switch {
		case c.user == jobUser:
			header = "Job-Token"
		case strings.HasPrefix(c.user, deployUser):
			header = "Deploy-Token"
		}
		if token != "" {
			req.Header.Set(header, token)
		}
		if prepare != nil {
			if err := prepare(req); err != nil {
				return nil, err
			}
		}
		return httpx.Do(c.http, req, ok...)
	}
	if c.secret == nil {
		return send("")
	}
	token, err := c.secret(ctx, false)
	if err != nil {
		return nil, err
	}
	resp, err := send(token)
	if next, ok := c.renewal.Again(ctx, c.secret, token, err); ok {
		return send(next)
	}
	return resp, err
}

// pages yields a listing that comes in pages ("REST API", "Offset-based pagination").
func pages[T any](ctx context.Context, c *api, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		query.Set("per_page", perPage)
		page := "1"
		for range maxPages {
			query.Set("page", page)
			all, next, err := onePage[T](ctx, c, path, query)
			if err != nil {
				if page != "1" {
					err = backends.BrokenOff(err)
				}
				yield(none, err)
				return
			}
			for _, v := range all {
				if !yield(v, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			if before, _ := strconv.Atoi(page); next != strconv.Itoa(before+1) {
				yield(none, fmt.Errorf("%w: page %.20q after page %s", backends.ErrBadAnswer, next, page))
				return
			}
			page = next
		}
		yield(none, fmt.Errorf("%w: a listing of more than %d pages", backends.ErrBadAnswer, maxPages))
	}
}

func onePage[T any](ctx context.Context, c *api, path string, query url.Values) (all []T, next string, err error) {
	resp, err := c.do(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	return all, resp.Header.Get("X-Next-Page"), httpx.JSON(resp.Body, &all)
}
