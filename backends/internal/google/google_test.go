// SPDX-License-Identifier: Apache-2.0

package google

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fake is the token service, the metadata server and an API, at all of Google's hosts.
type fake struct {
	*httptest.Server
	key *rsa.PrivateKey

	mu       sync.Mutex // guards the fields below
	tokens   int
	good     string // the access token that the API takes
	refuse   string // an answer of the token service
	status   int
	verified map[string]string // challenge by code
	asked    []string          // host and path of all requests
}

func start(t *testing.T) *fake {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{key: key, verified: map[string]string{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// RoundTrip sends what is for Google to the fake.
func (f *fake) RoundTrip(req *http.Request) (*http.Response, error) {
	f.mu.Lock()
	f.asked = append(f.asked, req.URL.Host+req.URL.Path)
	f.mu.Unlock()
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host = "http", strings.TrimPrefix(f.URL, "http://")
	return f.Client().Transport.RoundTrip(out)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.URL.Path == "/token":
		f.token(w, r)
	case strings.HasPrefix(r.URL.Path, "/computeMetadata/v1/instance/service-accounts/default/token"):
		if r.Header.Get("Metadata-Flavor") != "Google" {
			http.Error(w, "no Metadata-Flavor", http.StatusForbidden)
			return
		}
		w.Header().Set("Metadata-Flavor", "Google")
		f.give(w, "")
	case r.Header.Get("Authorization") == "Bearer "+f.good && f.good != "":
		fmt.Fprint(w, "{}")
	default:
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error": {"code": 401, "message": "Invalid Credentials", "errors": [{"reason": "authError"}]}}`)
	}
}

func (f *fake) give(w http.ResponseWriter, refresh string) {
	f.tokens++
	f.good = fmt.Sprintf("ya29.%d", f.tokens)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"access_token": f.good, "expires_in": 3599, "token_type": "Bearer", "refresh_token": refresh})
}

func (f *fake) token(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	err := f.check(r)
	switch {
	case f.refuse != "":
		w.WriteHeader(f.status)
		fmt.Fprint(w, f.refuse)
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error": "invalid_grant", "error_description": %q}`, err)
	case r.PostFormValue("grant_type") == "authorization_code":
		f.give(w, "1//refresh")
	default:
		f.give(w, "")
	}
}

func (f *fake) check(r *http.Request) error {
	switch grant := r.PostFormValue("grant_type"); grant {
	case "urn:ietf:params:oauth:grant-type:jwt-bearer":
		parts := strings.Split(r.PostFormValue("assertion"), ".")
		if len(parts) != 3 {
			return errors.New("no JWT")
		}
		sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		sig, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil {
			return err
		}
		claims, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil || !strings.Contains(string(claims), `"scope":"scope"`) || !strings.Contains(string(claims), "robot@x.iam") {
			return fmt.Errorf("claims %s %v", claims, err)
		}
		return rsa.VerifyPKCS1v15(&f.key.PublicKey, crypto.SHA256, sum[:], sig)
	case "refresh_token":
		if r.PostFormValue("refresh_token") != "1//refresh" || r.PostFormValue("client_id") != "app" {
			return errors.New("token has been expired or revoked")
		}
	case "authorization_code":
		sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		code := r.PostFormValue("code")
		challenge, ok := f.verified[code]
		delete(f.verified, code)
		if !ok || base64.RawURLEncoding.EncodeToString(sum[:]) != challenge {
			return errors.New("Bad Request")
		}
	default:
		return fmt.Errorf("grant_type %q", grant)
	}
	return nil
}

// account is the key file of a service account.
func (f *fake) account(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(f.key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "robot@x.iam", "private_key_id": "1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": "https://oauth2.googleapis.com/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const person = `{"type": "authorized_user", "client_id": "app", "client_secret": "s", "refresh_token": "1//refresh"}`

func fixed(text string) backends.SecretFunc {
	return func(context.Context, bool) (string, error) { return text, nil }
}

func (f *fake) login(t *testing.T, env backends.Env, opts Options) *Login {
	t.Helper()
	env.Remote, env.HTTP = "g", &http.Client{Transport: f}
	opts.Scopes = []string{"scope"}
	l, err := New(env, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// try sends a request of the API.
func try(t *testing.T, l *Login) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://storage.googleapis.com/api", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := l.Do(req)
	if err == nil {
		resp.Body.Close()
	}
	return err
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLogin(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	f := start(t)
	write(t, filepath.Join(home, ".config/gcloud/application_default_credentials.json"), person)
	account := write(t, filepath.Join(home, "robot.json"), f.account(t))
	vars := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	for name, test := range map[string]struct {
		env  backends.Env
		opts Options
	}{
		"service account as secret":      {env: backends.Env{Secret: fixed(f.account(t))}},
		"person as secret":               {env: backends.Env{Secret: fixed(person)}},
		"of oauth2client":                {env: backends.Env{Secret: fixed(`{"access_token": "old", "client_id": "app", "client_secret": "s", "refresh_token": "1//refresh", "_class": "OAuth2Credentials"}`)}},
		"credentials":                    {opts: Options{Credentials: account}},
		"credentials below ~":            {env: backends.Env{Home: home}, opts: Options{Credentials: "~/robot.json"}},
		"GOOGLE_APPLICATION_CREDENTIALS": {env: backends.Env{Getenv: vars("GOOGLE_APPLICATION_CREDENTIALS", account)}},
		"gcloud":                         {env: backends.Env{Home: home}},
		"CLOUDSDK_CONFIG":                {env: backends.Env{Getenv: vars("CLOUDSDK_CONFIG", filepath.Join(home, ".config/gcloud"))}},
		"metadata server":                {env: backends.Env{Getenv: vars("GCE_METADATA_HOST", "metadata")}},
	} {
		t.Run(name, func(t *testing.T) {
			l := f.login(t, test.env, test.opts)
			before := f.tokens
			for range 2 {
				if err := try(t, l); err != nil {
					t.Fatal(err)
				}
			}
			if f.tokens != before+1 {
				t.Errorf("%d tokens for two requests", f.tokens-before)
			}
			f.good = "another" // as after an hour, or a revocation
			if err := try(t, l); err != nil {
				t.Errorf("after the token has expired: %v", err)
			}
			if known, err := l.Known(t.Context()); !known || err != nil {
				t.Errorf("Known = %v, %v", known, err)
			}
		})
	}
}

// A token alone is asked for anew when it is refused, once.
func TestLogin_token(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.good = "second"
	var asked []bool
	now := "first"
	l := f.login(t, backends.Env{Secret: func(_ context.Context, fresh bool) (string, error) {
		asked = append(asked, fresh)
		if fresh && now == "first" {
			now = "second"
		}
		return now, nil
	}}, Options{})
	if err := try(t, l); err != nil {
		t.Error(err)
	}
	if err := try(t, l); err != nil || len(asked) != 3 {
		t.Errorf("%v, asked %v", err, asked)
	}
	f.good = "third"
	for range 3 {
		if err := try(t, l); !errors.Is(err, backends.ErrUnauthorized) {
			t.Errorf("with an old token: %v", err)
		}
	}
	fresh := 0
	for _, f := range asked {
		if f {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("a fresh one was asked for %d times in a minute", fresh)
	}
}

func TestLogin_none(t *testing.T) {
	t.Parallel()
	f := start(t)
	dir := t.TempDir()
	adc := write(t, filepath.Join(dir, "adc.json"), person)
	base, _ := url.Parse(f.URL)
	getenv := func(name string) string {
		if name == "GOOGLE_APPLICATION_CREDENTIALS" {
			return adc
		}
		return ""
	}
	for name, test := range map[string]struct {
		env  backends.Env
		opts Options
	}{
		"nothing":                     {},
		"anonymous":                   {env: backends.Env{Getenv: getenv}, opts: Options{Anonymous: true}},
		"default, and another server": {env: backends.Env{Getenv: getenv}, opts: Options{Base: base}},
	} {
		t.Run(name, func(t *testing.T) {
			l := f.login(t, test.env, test.opts)
			if err := try(t, l); !errors.Is(err, backends.ErrUnauthorized) || !strings.Contains(err.Error(), "Invalid Credentials") || !strings.Contains(err.Error(), "sreg login g") {
				t.Errorf("err = %v", err)
			}
		})
	}
	if f.tokens != 0 {
		t.Errorf("%d tokens were given", f.tokens)
	}
}

func TestLogin_refused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		secret, answer string
		status         int
		want           error
		text           string
	}{
		{secret: `{"type": "authorized_user", "client_id": "app", "refresh_token": "1//old"}`, want: backends.ErrUnauthorized, text: "expired or was revoked"},
		{secret: person, answer: `oops`, status: 503, want: backends.ErrUnavailable},
		{secret: person, answer: `{}`, status: 429, want: backends.ErrRateLimited},
		{secret: person, answer: `{}`, status: 200, want: backends.ErrBadAnswer},
		{secret: person, answer: `<html>`, status: 200, want: backends.ErrBadAnswer},
		{secret: `{"type": "external_account"}`, want: backends.ErrUnauthorized, text: "external_account"},
		{secret: `{"installed": {"client_id": "app"}}`, want: backends.ErrUnauthorized, text: "client_file"},
		{secret: `{"type": "service_account", "client_email": "x", "private_key": "secret"}`, want: backends.ErrUnauthorized, text: "private_key"},
		{secret: `{secret`, want: backends.ErrUnauthorized},
		{secret: "secret\nsecret", want: backends.ErrUnauthorized},
	} {
		f := start(t)
		f.refuse, f.status = test.answer, test.status
		err := try(t, f.login(t, backends.Env{Secret: fixed(test.secret)}, Options{}))
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s, answer %q: %v", test.secret, test.answer, err)
		}
	}
	l := start(t).login(t, backends.Env{}, Options{Credentials: "/no/such/file"})
	if err := try(t, l); !errors.Is(err, backends.ErrNoFile) {
		t.Errorf("no file: %v", err)
	}
	if _, err := New(backends.Env{Secret: fixed("")}, Options{Anonymous: true}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("anonymous, with a login: %v", err)
	}
}

// A login that takes for ever ends with who waits for it.
func TestLogin_cancel(t *testing.T) {
	t.Parallel()
	f := start(t)
	l, err := New(backends.Env{Secret: fixed(f.account(t)), HTTP: &http.Client{Transport: hanging{}}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.token(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

type hanging struct{}

func (hanging) RoundTrip(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// Somebody logs in by a browser.
func TestStartLoopbackLogin(t *testing.T) {
	t.Parallel()
	f := start(t)
	appFile := write(t, filepath.Join(t.TempDir(), "client.json"), `{"installed": {"client_id": "app", "client_secret": "s"}}`)
	for _, opts := range []Options{{ClientID: "app", ClientSecret: "s"}, {ClientFile: appFile}} {
		l := f.login(t, backends.Env{}, opts)
		page, exchange, err := l.StartLoopbackLogin("http://127.0.0.1:1234")
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(page)
		if err != nil || u.Host != "accounts.google.com" {
			t.Fatal(page, err)
		}
		q := u.Query()
		if q.Get("redirect_uri") != "http://127.0.0.1:1234" || q.Get("code_challenge_method") != "S256" || q.Get("access_type") != "offline" ||
			q.Get("scope") != "scope" || q.Get("response_type") != "code" || q.Get("client_id") != "app" {
			t.Errorf("page %s", page)
		}
		f.verified["4/code"] = q.Get("code_challenge")
		good := "http://127.0.0.1:1234/?" + url.Values{"state": {q.Get("state")}, "code": {"4/code"}}.Encode()
		for _, sent := range []string{"", "http://127.0.0.1:1234/?code=4/code", "http://127.0.0.1:1234/?code=4/code&state=other", "http://127.0.0.1:1234/?error=access_denied"} {
			if _, err := exchange(t.Context(), sent); !errors.Is(err, backends.ErrUnauthorized) {
				t.Errorf("sent to %q: %v", sent, err)
			}
		}
		secret, err := exchange(t.Context(), good+"\n")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := exchange(t.Context(), good); !errors.Is(err, backends.ErrUnauthorized) {
			t.Errorf("a code used twice: %v", err)
		}
		if err := try(t, f.login(t, backends.Env{Secret: fixed(secret)}, Options{})); err != nil {
			t.Errorf("with the secret: %v", err)
		}
	}
	if _, _, err := f.login(t, backends.Env{}, Options{}).StartLoopbackLogin("http://127.0.0.1:1"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("without an app: %v", err)
	}
}

func TestSigner(t *testing.T) {
	t.Parallel()
	f := start(t)
	s, err := f.login(t, backends.Env{Secret: fixed(f.account(t))}, Options{}).Signer(t.Context())
	if err != nil || s.Email != "robot@x.iam" {
		t.Fatal(s, err)
	}
	sig, err := s.Sign([]byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("text"))
	if err := rsa.VerifyPKCS1v15(&f.key.PublicKey, crypto.SHA256, sum[:], sig); err != nil {
		t.Error(err)
	}
	if _, err := f.login(t, backends.Env{Secret: fixed(person)}, Options{}).Signer(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a person: %v", err)
	}
}

func TestRefusal(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status int
		body   string
		want   error
		reason string
	}{
		{403, `{"error": {"code": 403, "message": "slow down", "errors": [{"reason": "rateLimitExceeded"}]}}`, backends.ErrRateLimited, "rateLimitExceeded"},
		{403, `{"error": {"code": 403, "message": "robot does not have\nstorage.objects.get", "errors": [{"reason": "forbidden"}]}}`, fs.ErrPermission, "forbidden"},
		{404, "Not Found", fs.ErrNotExist, ""},
		{503, "<html>", backends.ErrUnavailable, ""},
	} {
		w := httptest.NewRecorder()
		w.WriteHeader(test.status)
		w.WriteString(test.body)
		err := Refusal(w.Result())
		if !errors.Is(err, test.want) || Reason(err) != test.reason || Status(err) != test.status {
			t.Errorf("%d %s: %v (%q, %d)", test.status, test.body, err, Reason(err), Status(err))
		}
	}
}
