// SPDX-License-Identifier: Apache-2.0

package google

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"golang.org/x/oauth2"

	"github.com/sregfs/sregfs/backends"
)

// StartLoopbackLogin is backends.LoopbackLogin's: OAuth 2 for installed apps with PKCE
// (RFC 8252, RFC 7636). The secret that exchange returns is a file of the type
// "authorized_user", which other tools of Google read too.
//
// Errors: fs.ErrInvalid if no app is configured; of exchange: ErrUnauthorized, ErrUnavailable.
func (l *Login) StartLoopbackLogin(redirect string) (page string, exchange func(ctx context.Context, sent string) (secret string, err error), err error) {
	id, secret, err := l.app()
	if err != nil {
		return "", nil, err
	}
	config := l.config(id, secret)
	config.RedirectURL = redirect
	verifier, state := oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	// Without the consent there is no refresh token for an app that was allowed before.
	page = config.AuthCodeURL(state, oauth2.AccessTypeOffline, oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("prompt", "consent"))
	return page, func(ctx context.Context, sent string) (string, error) {
		code, err := codeOf(sent, state)
		if err != nil {
			return "", err
		}
		token, err := l.ask(ctx, func(ctx context.Context) (*oauth2.Token, error) {
			return config.Exchange(ctx, code, oauth2.VerifierOption(verifier))
		})
		if err != nil {
			return "", l.refused(ctx, err)
		}
		if token.RefreshToken == "" {
			return "", fmt.Errorf("%w: the answer to the code has no refresh token", backends.ErrBadAnswer)
		}
		text, err := json.Marshal(file{Type: "authorized_user", ClientID: id, ClientSecret: secret, RefreshToken: token.RefreshToken})
		return string(text), err
	}, nil
}

// codeOf takes the code out of the address that the browser was sent to.
func codeOf(sent, state string) (string, error) {
	sent = strings.TrimSpace(sent)
	u, err := url.Parse(sent)
	if err != nil {
		return "", unfit("this is not the address that the browser was sent to")
	}
	q := u.Query()
	switch {
	case q.Get("error") != "":
		return "", unfit("Google's page said %.80q", q.Get("error"))
	case q.Get("code") == "":
		return "", unfit("this is not the address that the browser was sent to: it has no code")
	case subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1:
		return "", unfit("the address is that of another login")
	}
	return q.Get("code"), nil
}

// app returns the OAuth app by which a person logs in.
func (l *Login) app() (id, secret string, err error) {
	if l.opts.ClientFile == "" {
		if l.opts.ClientID == "" {
			return "", "", fmt.Errorf("%w: remote %s: a login by browser needs client_file, or client_id and client_secret: "+
				"those of an app of the kind \"desktop\", made on https://console.cloud.google.com/apis/credentials", fs.ErrInvalid, l.remote)
		}
		return l.opts.ClientID, l.opts.ClientSecret, nil
	}
	text, err := l.readFile(l.opts.ClientFile)
	if err != nil {
		return "", "", err
	}
	var v struct{ Installed file }
	if json.Unmarshal([]byte(text), &v) != nil || v.Installed.ClientID == "" {
		return "", "", fmt.Errorf("%w: %s is not the file of an app of the kind \"desktop\"", fs.ErrInvalid, l.opts.ClientFile)
	}
	return v.Installed.ClientID, v.Installed.ClientSecret, nil
}
