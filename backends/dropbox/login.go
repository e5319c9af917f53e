// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/oauth"

	"github.com/sregfs/sregfs/backends"
)

// scopes are the permissions that a login asks for.
var scopes = []string{
	"account_info.read", "files.metadata.read", "files.metadata.write", "files.content.read", "files.content.write",
	"sharing.read", "sharing.write",
}

// StartLogin begins a login by a person (OAuth 2 with PKCE, RFC 7636: no secret
// of the app is needed). The page at authorize shows a code; exchange turns it,
// once, into what is to be stored and given back by Env.Secret from then on.
//
// Errors: fs.ErrInvalid if no app_key is configured; of exchange:
// ErrUnauthorized for a wrong code, ErrUnavailable.
func (c *client) StartLogin() (authorize string, exchange func(ctx context.Context, code string) (secret string, err error), err error) {
	if c.appKey == "" {
		return "", nil, fmt.Errorf("%w: remote %s: logging in needs app_key, the key of an app made on https://www.dropbox.com/developers/apps",
			fs.ErrInvalid, c.remote)
	}
	flow, err := oauth.NewPKCEFlow(c.appKey, oauth.WithScopes(scopes...), oauth.WithTokenAccessType(oauth.TokenAccessTypeOffline),
		oauth.WithHTTPClient(c.http))
	if err != nil {
		return "", nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	page, err := url.Parse(flow.AuthCodeURL())
	if err != nil {
		return "", nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	if home := c.gateway.home; home != nil {
		page.Scheme, page.Host = home.Scheme, home.Host
	}
	return page.String(), func(ctx context.Context, code string) (string, error) {
		token, err := flow.Exchange(ctx, strings.TrimSpace(code))
		if err != nil {
			return "", loginError(ctx, err)
		}
		if token.RefreshToken == "" {
			return "", fmt.Errorf("%w: the answer to the code has no refresh token", backends.ErrBadAnswer)
		}
		text, err := json.Marshal(secret{RefreshToken: token.RefreshToken, AppKey: c.appKey})
		return string(text), err
	}, nil
}

// Knock returns a request that Dropbox refuses without a login.
func (c *client) Knock() (method, address string) {
	return http.MethodPost, c.Address() + "/2/users/get_current_account"
}

// Address implements backends.Addressed.
func (c *client) Address() string {
	if c.gateway.home != nil {
		return c.gateway.home.String()
	}
	return "https://api.dropboxapi.com"
}
