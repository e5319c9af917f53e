// SPDX-License-Identifier: Apache-2.0

package ocitest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const (
	tokenServiceName = "ocitest"
	tokenIssuer      = "ocitest issuer"
)

// A tokenService hands out bearer tokens as
// https://distribution.github.io/distribution/spec/auth/token/ says: for Basic
// credentials by GET, for an identity token by POST.
type tokenService struct {
	url  string
	cert []byte // PEM, what the registry trusts
	key  *ecdsa.PrivateKey
	der  []byte
	opts Options
	life time.Duration
}

type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

func startTokenService(t testing.TB, opts Options) *tokenService {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: tokenIssuer}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s := &tokenService{
		key: key, der: der, opts: opts, life: time.Minute,
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL + "/token"
	return s
}

// ServeHTTP answers one request for a token.
func (s *tokenService) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if err := req.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	user, password, basic := req.BasicAuth()
	known := basic && user == s.opts.User && password == s.opts.Password ||
		s.opts.IdentityToken != "" && req.PostForm.Get("refresh_token") == s.opts.IdentityToken
	if !known && (basic || req.Method == http.MethodPost || !s.opts.AnonymousPull) {
		w.WriteHeader(http.StatusUnauthorized)
		w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}`))
		return
	}
	var granted []access
	for _, scope := range strings.Fields(strings.Join(req.Form["scope"], " ")) {
		parts := strings.SplitN(scope, ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[0] == "registry" && s.opts.CatalogStatus != 0 {
			w.WriteHeader(s.opts.CatalogStatus)
			w.Write([]byte(`{"details":"incorrect scope"}`))
			return
		}
		a := access{Type: parts[0], Name: parts[1]}
		for _, action := range strings.Split(parts[2], ",") {
			if known || action == "pull" {
				a.Actions = append(a.Actions, action)
			}
		}
		granted = append(granted, a)
	}
	token := s.issue(user, granted)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 60})
}

// Token returns a token that allows actions ("pull,push") on repo, as the token
// service would hand it out for the right credentials.
func (r *Registry) Token(t testing.TB, repo, actions string) string {
	t.Helper()
	if r.tokens == nil {
		t.Fatal("ocitest: Token without Options.TokenAuth")
	}
	return r.tokens.issue(r.opts.User, []access{{Type: "repository", Name: repo, Actions: strings.Split(actions, ",")}})
}

// issue returns a JWT that the registry believes.
func (s *tokenService) issue(subject string, granted []access) string {
	now := time.Now()
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // these are our own literals
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	head := part(map[string]any{
		"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(s.der)},
	})
	id := make([]byte, 8)
	rand.Read(id)
	claims := part(map[string]any{
		"iss": tokenIssuer, "sub": subject, "aud": tokenServiceName, "jti": base64.RawURLEncoding.EncodeToString(id),
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(s.life).Unix(), "access": granted,
	})
	sum := sha256.Sum256([]byte(head + "." + claims))
	r, v, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		panic(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	v.FillBytes(signature[32:])
	return head + "." + claims + "." + base64.RawURLEncoding.EncodeToString(signature)
}
