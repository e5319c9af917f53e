// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/oci/presettest"
)

func limits(b backends.Backend) string { return b.(interface{ Limits() string }).Limits() }

func TestHub_pullLimits(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	for i := range 3 {
		reg.PushSIF("team/a", fmt.Sprint(i), []byte{byte(i)}, nil)
	}
	hub := &presettest.HubLimits{Of: 100, Source: "203.0.113.7"}
	reg.Use(hub.Before)
	var log bytes.Buffer
	b := preset(t, "docker", config{"url": reg.URL}, func(env *backends.Env) { env.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	if got := limits(b); got != "" {
		t.Errorf("limits before any request: %q", got)
	}
	hub.Use(23)
	for range 5 { // the first costs a pull; from then on the digest is known
		mustStat(t, b, "team/a:0")
	}
	if hub.Used() != 24 {
		t.Errorf("five stats of a tag cost %d pulls, want 1", hub.Used()-23)
	}
	if got, want := limits(b), "76 of 100 pulls left in 6 h"; got != want {
		t.Errorf("limits: %q, want %q", got, want)
	}
	if log.Len() > 0 {
		t.Errorf("logged with 76 left: %s", log.String())
	}
	hub.Use(95)
	mustStat(t, b, "team/a:0")
	mustStat(t, b, "team/a:1")
	if n := strings.Count(log.String(), "4 of 100 pulls left in 6 h") + strings.Count(log.String(), "5 of 100 pulls left in 6 h"); n != 1 {
		t.Errorf("logged %d times: %s", n, log.String())
	}
	hub.Use(100)
	_, err := b.Stat(t.Context(), ref(t, "team/a:2"))
	wantErr(t, "a pull too many", err, backends.ErrRateLimited)
	if err == nil || !strings.Contains(err.Error(), "the limit is 100 pulls in 6 h for the address 203.0.113.7; logging in allows more") {
		t.Errorf("the error says %v", err)
	}
	if after := backends.RetryAfter(err); after != 216*time.Second {
		t.Errorf("retry after %v, want the 216 s in which a pull comes free", after)
	}
	mustStat(t, b, "team/a:0") // a HEAD is free
}

func TestHub_pullLimitOfUser(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	hub := &presettest.HubLimits{Of: 200, Source: "0d5e8b0e-77c1"}
	reg.Use(hub.Before)
	b := preset(t, "docker", config{"url": reg.URL}, as("me", "secret"))
	_, err := b.Stat(t.Context(), ref(t, "team/a:1"))
	wantErr(t, "Stat", err, fs.ErrNotExist)
	if got, want := limits(b), "199 of 200 pulls left in 6 h"; got != want {
		t.Errorf("limits: %q, want %q", got, want)
	}
	hub.Use(200)
	_, err = b.Stat(t.Context(), ref(t, "team/a:2"))
	wantErr(t, "a pull too many", err, backends.ErrRateLimited)
	if err == nil || !strings.Contains(err.Error(), `the limit is 200 pulls in 6 h for the user "me"`) || strings.Contains(err.Error(), "logging in") {
		t.Errorf("the error says %v", err)
	}
	// A login of Docker's own: its name is not ours to know, and the Hub says a number.
	_, err = preset(t, "docker", config{"url": reg.URL}).Stat(t.Context(), ref(t, "team/a:2"))
	if err == nil || !strings.Contains(err.Error(), "for the account that is logged in)") {
		t.Errorf("the error says %v", err)
	}
}

// Each API says in its own way that there were too many requests, and until when.
func TestPreset_apiLimits(t *testing.T) {
	t.Parallel()
	for _, typ := range []string{"docker", "ghcr", "quay", "gitlab", "harbor"} {
		t.Run(typ, func(t *testing.T) {
			t.Parallel()
			api := presettest.Start(t, typ, presettest.Options{Repositories: holds("team/a"), User: "me", Password: "secret"})
			b := preset(t, typ, config{"url": "http://127.0.0.1:9", "api": api.URL}, as("$oauthtoken", "secret"))
			if typ == "docker" {
				b = preset(t, typ, config{"url": "http://127.0.0.1:9", "api": api.URL})
			}
			if typ == "harbor" {
				b = preset(t, typ, config{"url": "http://127.0.0.1:9", "api": api.URL}, as("me", "secret"))
			}
			if _, err := oci.Catalogue(t.Context(), b, "team"); err != nil {
				t.Fatal(err)
			}
			if got := limits(b); (typ != "quay" && typ != "harbor") != strings.Contains(got, "of 180 requests to list left until ") {
				t.Errorf("limits: %q", got)
			}
			api.Limit(0, time.Now().Add(90*time.Second))
			_, err := oci.Catalogue(t.Context(), b, "other")
			wantErr(t, "a request too many", err, backends.ErrRateLimited)
			if after := backends.RetryAfter(err); after < 60*time.Second || after > 91*time.Second {
				t.Errorf("retry after %v, want about 90 s", after)
			}
		})
	}
}

func TestNGC_tokens(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushSIF("nvidia/pytorch", "1", []byte("x"), nil)
	ngc := presettest.StartNGC(t, "key")
	reg.Use(ngc.Before)
	b := preset(t, "nvidia", config{"url": reg.URL}, as("", "key")) // a key has no user name
	mustStat(t, b, "nvidia/pytorch:1")
	for range 3 { // as often as it takes: each token is for a few minutes
		ngc.Expire()
		mustStat(t, b, "nvidia/pytorch:1")
	}
	ask := ngc.Asked()
	if !slices.Contains(ask, "authn/token") || ask[0] != "proxy_auth" || ask[len(ask)-1] != "proxy_auth" {
		t.Errorf("tokens were asked for at %q", ask)
	}
	t.Run("many at once", func(t *testing.T) {
		ngc.Expire()
		atOnce(t, 8, func() error { _, err := b.Stat(t.Context(), ref(t, "nvidia/pytorch:1")); return err })
	})
	ngc.Revoke()
	_, err := b.Stat(t.Context(), ref(t, "nvidia/pytorch:1"))
	wantErr(t, "with a key that was revoked", err, backends.ErrUnauthorized)
}

// atOnce does the same n times at once, and none may fail.
func atOnce(t *testing.T, n int, do func() error) {
	t.Helper()
	errs := make(chan error)
	for range n {
		go func() { errs <- do() }()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Errorf("one of %d: %v", n, err)
		}
	}
}

// The fake of NGC's login is good enough for another client.
func TestNGC_skopeo(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "skopeo")
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushSIF("nvidia/pytorch", "1", []byte("x"), nil)
	reg.Use(presettest.StartNGC(t, "key").Before)
	for key, want := range map[string]bool{"key": true, "wrong": false} {
		out, err := skopeo(t, "inspect", "--raw", "--tls-verify=false", "--creds=$oauthtoken:"+key, "docker://"+reg.Host+"/nvidia/pytorch:1")
		if got := err == nil && strings.Contains(out, ocitest.SIFLayer); got != want {
			t.Errorf("skopeo with %q: %v, %s", key, err, out)
		}
	}
}

// So is that of ECR's.
func TestECR_skopeo(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "skopeo")
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushSIF("team/tool", "1", []byte("x"), nil)
	ecr := new(presettest.ECR)
	reg.Use(ecr.Before)
	old, token := ecr.Issue(), ecr.Issue()
	for _, tt := range []struct{ token, want string }{{token, `"1"`}, {old, "403 (Forbidden)"}, {"wrong", "unauthorized"}} {
		out, _ := skopeo(t, "list-tags", "--tls-verify=false", "--creds=AWS:"+tt.token, "docker://"+reg.Host+"/team/tool")
		if !strings.Contains(out, tt.want) {
			t.Errorf("skopeo with %q says %s, want %s", tt.token, out, tt.want)
		}
	}
}

func skopeo(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "skopeo", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "XDG_RUNTIME_DIR=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Not parallel: a helper is found by $PATH.
func TestECR_helper(t *testing.T) {
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushSIF("team/tool", "1", []byte("x"), nil)
	ecr := new(presettest.ECR)
	reg.Use(ecr.Before)
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	issue := func() { writeFile(t, file, ecr.Issue(), 0o600) }
	writeFile(t, filepath.Join(dir, "docker-credential-ecr-login"), "#!/bin/sh\n"+
		"test \"$1\" = get || exit 2\nread -r server\ntest \"$server\" = "+reg.Host+" || exit 3\necho called >>"+dir+"/calls\n"+
		"printf '{\"ServerURL\":\"%s\",\"Username\":\"AWS\",\"Secret\":\"%s\"}' \"$server\" \"$(cat "+file+")\"\n", 0o700)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	issue()
	cfg := config{"url": reg.URL, "region": "eu-central-1"}
	b := preset(t, "aws", cfg)
	mustStat(t, b, "team/tool:1")
	mustStat(t, b, "team/tool:1")
	issue() // twelve hours later
	mustStat(t, b, "team/tool:1")
	if calls, err := os.ReadFile(filepath.Join(dir, "calls")); err != nil || strings.Count(string(calls), "called") != 2 {
		t.Errorf("the helper was called so: %q, %v; want once for each token", calls, err)
	}
	many := preset(t, "aws", cfg)
	mustStat(t, many, "team/tool:1")
	issue()
	atOnce(t, 8, func() error { _, err := many.Stat(t.Context(), ref(t, "team/tool:1")); return err })
	if got := names(t, many.(backends.Lister), "team"); !slices.Equal(got, []string{"team/tool:1"}) {
		t.Errorf("the catalogue tells %q", got)
	}

	_, err := many.(backends.Pusher).Push(t.Context(), ref(t, "team/new:1"), source([]byte("x")))
	wantErr(t, "Push to no repository", err, fs.ErrNotExist)
	if err == nil || !strings.Contains(err.Error(), "aws ecr create-repository --repository-name team/new --region eu-central-1") {
		t.Errorf("the error does not say what to do: %v", err)
	}
	ecr.Create("team/new")
	if _, err := many.(backends.Pusher).Push(t.Context(), ref(t, "team/new:1"), source([]byte("x"))); err != nil {
		t.Errorf("Push: %v", err)
	}

	// A token that cannot be renewed: what ECR says, and no storm.
	old := ecr.Issue()
	fixed := preset(t, "aws", cfg, as("", old))
	mustStat(t, fixed, "team/tool:1")
	ecr.Issue()
	reg.Forget()
	for range 3 {
		_, err = fixed.Stat(t.Context(), ref(t, "team/tool:1"))
		wantErr(t, "with an old token", err, fs.ErrPermission)
	}
	if n := len(reg.Requests()); n > 6 {
		t.Errorf("%d requests for three refusals", n)
	}

	// A helper that fails says why.
	writeFile(t, filepath.Join(dir, "docker-credential-ecr-login"), "#!/bin/sh\necho no AWS credentials here\nexit 1\n", 0o700)
	_, err = preset(t, "aws", cfg).Stat(t.Context(), ref(t, "team/tool:1"))
	wantErr(t, "with a helper that fails", err, backends.ErrUnauthorized)
	if err == nil || !strings.Contains(err.Error(), "no AWS credentials here") {
		t.Errorf("the error lacks the helper's words: %v", err)
	}
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// Amazon's own helper gets the token, from a fake of the one call that it makes
// (docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html).
// Not parallel: it is found by $PATH.
func TestECR_amazonsHelper(t *testing.T) {
	ocitest.Need(t, "docker-credential-ecr-login")
	real, err := exec.LookPath("docker-credential-ecr-login")
	if err != nil {
		t.Fatal(err)
	}
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushSIF("team/tool", "1", []byte("x"), nil)
	ecr := new(presettest.ECR)
	reg.Use(ecr.Before)
	token := ecr.Issue()
	const host = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	aws := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if got := req.Header.Get("X-Amz-Target"); got != "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken" ||
			!strings.Contains(req.Header.Get("Authorization"), "Credential=AKIDEXAMPLE/") {
			t.Errorf("call %q, signed %q", got, req.Header.Get("Authorization"))
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_ = json.NewEncoder(w).Encode(map[string]any{"authorizationData": []any{map[string]any{
			"authorizationToken": base64.StdEncoding.EncodeToString([]byte("AWS:" + token)),
			"expiresAt":          time.Now().Add(12 * time.Hour).Unix(), "proxyEndpoint": "https://" + host,
		}}})
	}))
	dir := t.TempDir()
	cert := certificate(t, "api.ecr.us-east-1.amazonaws.com")
	writeFile(t, filepath.Join(dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})), 0o600)
	aws.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	aws.StartTLS()
	t.Cleanup(aws.Close)
	writeFile(t, filepath.Join(dir, "docker-credential-ecr-login"), "#!/bin/sh\n"+
		"export AWS_ACCESS_KEY_ID=AKIDEXAMPLE AWS_SECRET_ACCESS_KEY=secret AWS_ECR_DISABLE_CACHE=1 AWS_EC2_METADATA_DISABLED=true\n"+
		"export HOME="+dir+" AWS_CA_BUNDLE="+dir+"/ca.pem HTTPS_PROXY="+tunnel(t, aws.Listener.Addr().String())+"\n"+
		"exec "+real+" \"$@\"\n", 0o700)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	b := preset(t, "aws", config{"url": "http://" + host}, func(env *backends.Env) {
		env.HTTP = &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, reg.Host)
			},
		}}
	})
	if _, err := b.Stat(t.Context(), ref(t, "team/tool:1")); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, ".ecr", "log", "ecr-login.log"))
		t.Errorf("Stat: %v; the helper says %s", err, log)
	}
}

// certificate returns one of its own for a host.
func certificate(t *testing.T, host string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tunnel is an HTTP proxy that leads everything to one address.
func tunnel(t *testing.T, to string) string {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		there, err := new(net.Dialer).DialContext(req.Context(), "tcp", to)
		if err != nil || req.Method != http.MethodConnect {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		fmt.Fprint(here, "HTTP/1.1 200 Connection established\r\n\r\n")
		done := make(chan struct{})
		go func() {
			_, _ = io.Copy(there, buffered)
			there.(*net.TCPConn).CloseWrite()
			close(done)
		}()
		_, _ = io.Copy(here, there)
		here.Close()
		<-done
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// A registry that has nothing but the rest of the world: what is asked for by a
// name is told, a listing says what to do.
func TestGHCR_anonymous(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushSIF("team/tool", "1", []byte("x"), nil)
	api := presettest.Start(t, "ghcr", presettest.Options{Repositories: reg.Repositories})
	b := preset(t, "ghcr", config{"url": reg.URL, "api": api.URL, "namespaces": []string{"team"}})
	mustStat(t, b, "team/tool:1")
	_, err := backends.Collect(b.(backends.Lister).List(t.Context(), "team"))
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "without a login") {
		t.Errorf("List: %v", err)
	}
	if asked := api.Requests(); len(asked) > 0 {
		t.Errorf("GitHub was asked %q without a login", asked)
	}
}
