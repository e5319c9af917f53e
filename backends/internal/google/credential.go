// SPDX-License-Identifier: Apache-2.0

package google

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

const (
	tokenHost = "https://oauth2.googleapis.com"
	loginHost = "https://accounts.google.com"
)

// A credential is one login.
type credential struct {
	token func(ctx context.Context) (*oauth2.Token, error) // nil: there is no login
	fixed bool                                             // token gives the same for ever
	email string                                           // of a service account, with sign
	sign  func(text []byte) ([]byte, error)                // nil if it has no key
}

// A file is a login in JSON, as Google's tools write it. A person's comes from "gcloud auth
// application-default login", from StartLoopbackLogin, or from oauth2client, by which the
// sregistry client logged in and which knows no type.
type file struct {
	Type string `json:"type"`

	ClientEmail  string `json:"client_email,omitempty"`
	PrivateKey   string `json:"private_key,omitempty"`
	PrivateKeyID string `json:"private_key_id,omitempty"`
	TokenURI     string `json:"token_uri,omitempty"`

	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`
	RefreshToken string `json:"refresh_token,omitempty"`

	Installed json.RawMessage `json:"installed,omitempty"` // the file of an app
}

func unfit(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{backends.ErrUnauthorized}, args...)...)
}

// parse reads a login: a file's text, or an access token alone. No error tells any of it.
func (l *Login) parse(text string) (*credential, error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "{") {
		if !printable(text) {
			return nil, unfit("the login is neither JSON nor an access token")
		}
		return &credential{fixed: true, token: func(context.Context) (*oauth2.Token, error) { return &oauth2.Token{AccessToken: text}, nil }}, nil
	}
	var f file
	if json.Unmarshal([]byte(text), &f) != nil {
		return nil, unfit("the login begins like JSON but is none")
	}
	switch {
	case f.Type == "service_account":
		return l.account(f)
	case (f.Type == "authorized_user" || f.Type == "") && f.RefreshToken != "" && f.ClientID != "":
		return l.person(f), nil
	case f.Installed != nil:
		return nil, unfit("this is the file of an app, not a login: say client_file for it, then run \"sreg login %s\"", l.remote)
	}
	return nil, unfit("a login of type %.40q is none that is known here (service_account, authorized_user)", f.Type)
}

// account is the login of a service account (RFC 7523).
func (l *Login) account(f file) (*credential, error) {
	key, err := parseKey(f.PrivateKey)
	if err != nil || f.ClientEmail == "" {
		return nil, unfit("the service account's private_key or client_email is none")
	}
	config := jwt.Config{
		Email: f.ClientEmail, PrivateKey: []byte(f.PrivateKey), PrivateKeyID: f.PrivateKeyID,
		Scopes: l.opts.Scopes, TokenURL: f.TokenURI,
	}
	if config.TokenURL == "" {
		config.TokenURL = l.host(tokenHost) + "/token"
	}
	return &credential{
		email: f.ClientEmail,
		token: func(ctx context.Context) (*oauth2.Token, error) {
			return l.ask(ctx, func(ctx context.Context) (*oauth2.Token, error) { return config.TokenSource(ctx).Token() })
		},
		sign: func(text []byte) ([]byte, error) {
			sum := sha256.Sum256(text)
			return rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		},
	}, nil
}

func parseKey(text string) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("no PEM")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("no RSA key")
	}
	return rsaKey, nil
}

// person is the login of a person. What its file says of where to get tokens is not
// believed: the refresh token would go there.
func (l *Login) person(f file) *credential {
	config := l.config(f.ClientID, f.ClientSecret)
	return &credential{token: func(ctx context.Context) (*oauth2.Token, error) {
		return l.ask(ctx, func(ctx context.Context) (*oauth2.Token, error) {
			return config.TokenSource(ctx, &oauth2.Token{RefreshToken: f.RefreshToken}).Token()
		})
	}}
}

func (l *Login) config(id, secret string) oauth2.Config {
	return oauth2.Config{
		ClientID: id, ClientSecret: secret, Scopes: l.opts.Scopes,
		Endpoint: oauth2.Endpoint{
			AuthURL: l.host(loginHost) + "/o/oauth2/v2/auth", TokenURL: l.host(tokenHost) + "/token", AuthStyle: oauth2.AuthStyleInParams,
		},
	}
}

// host returns one of Google's hosts, or what stands in for all.
func (l *Login) host(googles string) string {
	if l.opts.Base != nil {
		return l.opts.Base.Scheme + "://" + l.opts.Base.Host
	}
	return googles
}

// ask gets one token from the token service.
//
// Errors: *oauth2.RetrieveError for a refusal; those of backends.TransportError;
// backends.ErrBadAnswer.
func (l *Login) ask(ctx context.Context, get func(context.Context) (*oauth2.Token, error)) (*oauth2.Token, error) {
	hc, b := *l.http, &bound{ctx: ctx, next: l.http.Transport}
	hc.Transport = b
	token, err := get(context.WithValue(ctx, oauth2.HTTPClient, &hc))
	if err == nil {
		return token, nil
	}
	if b.err != nil {
		return nil, backends.TransportError(b.err)
	}
	if _, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return nil, err
	}
	return nil, fmt.Errorf("%w: Google's login: %s", backends.ErrBadAnswer, backends.Redact(err.Error()))
}

// bound sends every request with ctx, which the library forgets for some, and remembers the
// error, of which the library makes text.
type bound struct {
	ctx  context.Context //nolint:containedctx // of the one call that it is made for
	next http.RoundTripper
	err  error
}

// RoundTrip implements http.RoundTripper.
func (b *bound) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	next := b.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, b.err = next.RoundTrip(req.WithContext(b.ctx))
	return resp, b.err
}

// metadata is the login of a machine in Google's cloud.
// https://cloud.google.com/compute/docs/metadata/overview
func (l *Login) metadata(host string) *credential {
	return &credential{token: func(ctx context.Context) (*oauth2.Token, error) {
		address := "http://" + host + "/computeMetadata/v1/instance/service-accounts/default/token?scopes=" + url.QueryEscape(strings.Join(l.opts.Scopes, ","))
		req, err := httpx.NewRequest(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Metadata-Flavor", "Google")
		resp, err := httpx.Do(l.http, req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		text, err := httpx.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		if resp.Header.Get("Metadata-Flavor") != "Google" || !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
			return nil, fmt.Errorf("%w: what is at %s is no metadata server", backends.ErrBadAnswer, host)
		}
		var v struct {
			AccessToken string `json:"access_token"`
			ExpiresIn   int64  `json:"expires_in"`
		}
		if err := httpx.Decode(text, &v); err != nil {
			return nil, err
		}
		return &oauth2.Token{AccessToken: v.AccessToken, Expiry: time.Now().Add(time.Duration(v.ExpiresIn) * time.Second)}, nil
	}}
}
