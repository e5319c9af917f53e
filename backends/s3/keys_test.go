// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/s3/s3test"
)

var putOptions = minio.PutObjectOptions{}

func TestStoredLogins(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ user, text, want string }{
		{"", "AK:SK", "AK SK "},
		{"", " AK:SK:ST\n", "AK SK ST"},
		{"me", "S:K", "me S:K "},
		{"", `{"AccessKeyId":"AK","SecretAccessKey":"SK","SessionToken":"ST","Expiration":"2026-01-01T00:00:00Z","Version":1}`, "AK SK ST"},
		{"", "word", ""}, {"", "", ""}, {"", ":x", ""}, {"", "x:", ""}, {"", "{", ""}, {"", "{}", ""}, {"", "a:b\x01", ""},
	} {
		v, err := (&keys{user: test.user}).parse(test.text)
		got := v.AccessKeyID + " " + v.SecretAccessKey + " " + v.SessionToken
		switch {
		case test.want == "":
			if !errors.Is(err, backends.ErrUnauthorized) || test.text != "" && len(test.text) > 2 && strings.Contains(err.Error(), test.text) {
				t.Errorf("parse(%q): %v", test.text, err)
			}
		case err != nil || got != test.want:
			t.Errorf("parse(%q) = %q, %v, want %q", test.text, got, err, test.want)
		}
	}
}

// A login that has expired is looked for anew, and the running remote goes on.
func TestRenewedLogin(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, false)
	srv.Put(t, bucket, "vsoch/hello:1.sif", []byte("hello"), nil)
	var asked atomic.Int64
	secret := func(_ context.Context, fresh bool) (string, error) {
		if fresh {
			asked.Add(1)
		}
		if asked.Load() > 0 {
			return login(nil, false) //nolint:staticcheck // it looks at nothing
		}
		return s3test.AccessKey + ":of-yesterday", nil
	}
	b, err := Open(t.Context(), backends.Env{Remote: "lab", HTTP: &http.Client{}, Config: map[string]any{"url": srv.URL, "bucket": bucket}, Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := b.Stat(t.Context(), parse(t, "vsoch/hello:1")); err != nil {
			t.Error(err)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("a fresh login was asked for %d times", asked.Load())
	}
}

// The login is found where other programs have theirs.
func TestChain(t *testing.T) { // no t.Parallel: minio-go reads the environment of the process
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, false)
	home := t.TempDir()
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
	} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", home)
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	container := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"AccessKeyId":%q,"SecretAccessKey":%q,"Token":"","Expiration":"2099-01-01T00:00:00Z"}`, s3test.AccessKey, s3test.SecretKey)
	}))
	defer container.Close()
	check := func(what string, config map[string]any, want error) {
		t.Helper()
		settings := map[string]any{"url": srv.URL, "bucket": bucket}
		for key, value := range config {
			settings[key] = value
		}
		b, err := Open(t.Context(), backends.Env{Remote: "lab", HTTP: &http.Client{}, Config: settings, Getenv: os.Getenv})
		if err == nil {
			err = b.(*client).CheckLogin(t.Context())
		}
		if want == nil && err != nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	check("nothing", nil, backends.ErrUnauthorized)
	text := fmt.Sprintf("[default]\naws_access_key_id = x\naws_secret_access_key = y\n[lab]\naws_access_key_id = %s\naws_secret_access_key = %s\n", s3test.AccessKey, s3test.SecretKey)
	if err := os.WriteFile(filepath.Join(home, ".aws", "credentials"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	check("the default profile, which is wrong", nil, backends.ErrUnauthorized)
	check("a profile of the settings", map[string]any{"profile": "lab"}, nil)
	check("a profile that is not there", map[string]any{"profile": "other"}, backends.ErrUnauthorized)
	t.Setenv("AWS_PROFILE", "lab")
	check("a profile of the environment", nil, nil)
	check("anonymous", map[string]any{"anonymous": true}, backends.ErrUnauthorized)
	t.Setenv("AWS_PROFILE", "")
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.URL)
	check("a container", nil, nil)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
	t.Setenv("AWS_ACCESS_KEY_ID", s3test.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s3test.SecretKey)
	check("the environment", nil, nil)
}
