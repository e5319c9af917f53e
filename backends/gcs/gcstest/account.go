// SPDX-License-Identifier: Apache-2.0

package gcstest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// key is that of all service accounts: making one takes long.
var key = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// Account makes a service account and returns its file, as Google's console gives it.
func (s *Server) Account() []byte {
	private, err := key()
	if err != nil {
		s.tb.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counter++
	email := fmt.Sprintf("pusher-%d@images.iam.gserviceaccount.com", s.counter)
	s.accounts[email] = &private.PublicKey
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": email, "private_key_id": "1", "token_uri": s.URL + "/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	return text
}

// serveToken gives a token to a service account (RFC 7523).
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := s.assert(r.FormValue("grant_type"), r.FormValue("assertion")); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant", "error_description": err.Error()})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counter++
	token := fmt.Sprintf("ya29.account-%d", s.counter)
	s.tokens[token] = true
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 3600})
}

func (s *Server) assert(grant, assertion string) error {
	parts := strings.Split(assertion, ".")
	if grant != "urn:ietf:params:oauth:grant-type:jwt-bearer" || len(parts) != 3 {
		return errors.New("no assertion")
	}
	var claims struct{ Iss, Scope, Aud string }
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(text, &claims)
	}
	if err != nil {
		return err
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return err
	}
	if claims.Aud != s.URL+"/token" || !strings.Contains(claims.Scope, "https://www.googleapis.com/auth/devstorage.") {
		return fmt.Errorf("audience %q, scope %q", claims.Aud, claims.Scope)
	}
	return s.verify(claims.Iss, parts[0]+"."+parts[1], signature)
}

// verify compares a signature with the key of an account.
func (s *Server) verify(email, text string, signature []byte) error {
	s.mu.Lock()
	public := s.accounts[email]
	s.mu.Unlock()
	if public == nil {
		return errors.New("Invalid grant: account not found") //nolint:staticcheck // Google's words
	}
	sum := sha256.Sum256([]byte(text))
	return rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], signature)
}

// serveLink gives an object to who has a signed link, or to everybody.
// https://cloud.google.com/storage/docs/authentication/canonical-requests
func (s *Server) serveLink(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	name, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/"+Bucket+"/"))
	public := s.opts.Public || slices.Contains(s.Readers(name), "allUsers")
	if signature := q.Get("X-Goog-Signature"); signature != "" && err == nil {
		public, err = true, s.checkLink(r, q, signature)
	}
	if err != nil || !public || r.Header.Get("Authorization") != "" {
		http.Error(w, fmt.Sprintf("<Error><Code>AccessDenied</Code><Details>%v</Details></Error>", err), http.StatusForbidden)
		return
	}
	s.mu.Lock()
	o := s.version(name, q.Get("generation"))
	s.mu.Unlock()
	if o == nil {
		http.Error(w, "<Error><Code>NoSuchKey</Code></Error>", http.StatusNotFound)
		return
	}
	o.serve(w, r)
}

func (s *Server) checkLink(r *http.Request, q url.Values, text string) error {
	signature, err := hex.DecodeString(text)
	if err != nil {
		return err
	}
	life, err := time.ParseDuration(q.Get("X-Goog-Expires") + "s")
	if err != nil {
		return err
	}
	at, err := time.Parse("20060102T150405Z", q.Get("X-Goog-Date"))
	if err != nil || life > 7*24*time.Hour || time.Since(at) > life {
		return fmt.Errorf("expired: %v, %v", at, life)
	}
	email, scope, _ := strings.Cut(q.Get("X-Goog-Credential"), "/")
	var query []string
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if !strings.HasPrefix(part, "X-Goog-Signature=") {
			query = append(query, part)
		}
	}
	slices.Sort(query)
	request := strings.Join([]string{r.Method, r.URL.EscapedPath(), strings.Join(query, "&"), "host:" + r.Host, "", "host", "UNSIGNED-PAYLOAD"}, "\n")
	sum := sha256.Sum256([]byte(request))
	return s.verify(email, strings.Join([]string{"GOOG4-RSA-SHA256", q.Get("X-Goog-Date"), scope, hex.EncodeToString(sum[:])}, "\n"), signature)
}
