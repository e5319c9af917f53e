// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// dockerConfig writes a config.json below dir and returns its path.
func dockerConfig(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func auths(host, user, password string) string {
	return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
}

func TestLogin_files(t *testing.T) {
	t.Parallel()
	basic := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret"})
	token := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret", TokenAuth: true, IdentityToken: "identity"})
	for name, reg := range map[string]*ocitest.Registry{"basic": basic, "token": token} {
		reg.PushSIF("a/b", "1", []byte("private"), nil)
		home, run := t.TempDir(), t.TempDir()
		good := auths(reg.Host, "me", "secret")
		for place, env := range map[string]func(*backends.Env){
			".docker/config.json":             nil,
			".singularity/docker-config.json": nil,
			".apptainer/docker-config.json":   nil,
			"podman/containers/auth.json": func(env *backends.Env) {
				env.Getenv = func(name string) string {
					return map[string]string{"XDG_RUNTIME_DIR": filepath.Join(env.Home, "podman")}[name]
				}
			},
			"mine/config.json": func(env *backends.Env) {
				env.Getenv = func(name string) string {
					return map[string]string{"DOCKER_CONFIG": filepath.Join(env.Home, "mine")}[name]
				}
			},
			"auth/file": func(env *backends.Env) {
				env.Getenv = func(name string) string {
					return map[string]string{"REGISTRY_AUTH_FILE": filepath.Join(env.Home, "auth", "file")}[name]
				}
			},
			"set/x.json": func(env *backends.Env) { env.Config["credentials"] = []string{"~/none", "~/set/x.json"} },
		} {
			t.Run(name+"/"+place, func(t *testing.T) {
				home := filepath.Join(home, strings.ReplaceAll(place, "/", "-"))
				dockerConfig(t, filepath.Join(home, place), good)
				change := []func(*backends.Env){func(env *backends.Env) { env.Home = home }}
				if env != nil {
					change = append(change, env)
				}
				b := open(t, config{"url": reg.URL}, change...)
				if got := string(read(t, b, mustStat(t, b, "a/b:1"), 0, -1)); got != "private" {
					t.Errorf("read %q", got)
				}
			})
		}
		t.Run(name+"/none", func(t *testing.T) {
			b := open(t, config{"url": reg.URL}, func(env *backends.Env) { env.Home = run })
			_, err := b.Stat(t.Context(), ref(t, "a/b:1"))
			wantErr(t, "Stat", err, backends.ErrUnauthorized)
			if err == nil || !strings.Contains(err.Error(), reg.Host) || !strings.Contains(err.Error(), ".docker/config.json") {
				t.Errorf("error %v names neither host nor files", err)
			}
		})
		t.Run(name+"/wrong", func(t *testing.T) {
			file := dockerConfig(t, filepath.Join(run, "wrong.json"), auths(reg.Host, "me", "hunter2"))
			b := open(t, config{"url": reg.URL, "credentials": []string{file}})
			_, err := b.Stat(t.Context(), ref(t, "a/b:1"))
			wantErr(t, "Stat", err, backends.ErrUnauthorized)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %v tells the password", err)
			}
		})
		t.Run(name+"/later", func(t *testing.T) {
			file := filepath.Join(run, "later.json")
			b := open(t, config{"url": reg.URL, "credentials": []string{file}})
			_, err := b.Stat(t.Context(), ref(t, "a/b:1"))
			wantErr(t, "Stat before the login", err, backends.ErrUnauthorized)
			dockerConfig(t, file, good)
			mustStat(t, b, "a/b:1")
		})
	}
	t.Run("identity token", func(t *testing.T) {
		file := dockerConfig(t, filepath.Join(t.TempDir(), "x"), fmt.Sprintf(`{"auths":{%q:{"identitytoken":"identity"}}}`, token.Host))
		b := open(t, config{"url": token.URL, "credentials": []string{file}})
		mustPush(t, b, "a/c:1", source([]byte("pushed with an identity token")))
	})
	t.Run("default port", func(t *testing.T) {
		file := dockerConfig(t, filepath.Join(t.TempDir(), "x"), auths("registry.test", "me", "secret"))
		b := open(t, config{"url": "http://registry.test:80", "credentials": []string{file}}, func(env *backends.Env) {
			target := strings.TrimPrefix(basic.URL, "http://")
			env.HTTP = &http.Client{Transport: &http.Transport{
				DisableKeepAlives: true,
				DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, network, target)
				},
			}}
		})
		mustStat(t, b, "a/b:1")
	})
	t.Run("damaged file is no obstacle", func(t *testing.T) {
		bad := dockerConfig(t, filepath.Join(t.TempDir(), "bad"), `{"auths":`)
		pipe := filepath.Join(t.TempDir(), "pipe") // which nobody writes to
		if out, err := exec.CommandContext(t.Context(), "mkfifo", pipe).CombinedOutput(); err != nil {
			t.Fatalf("mkfifo: %v\n%s", err, out)
		}
		file := dockerConfig(t, filepath.Join(t.TempDir(), "x"), auths(basic.Host, "me", "secret"))
		mustStat(t, open(t, config{"url": basic.URL, "credentials": []string{bad, pipe, file}}), "a/b:1")
	})
}

// Not parallel: a helper is found by $PATH.
func TestLogin_helper(t *testing.T) {
	reg := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret"})
	reg.PushSIF("a/b", "1", []byte("private"), nil)
	dir := t.TempDir()
	script := "#!/bin/sh\ncat >/dev/null\nenv >" + dir + "/env\necho '{\"Username\":\"me\",\"Secret\":\"secret\"}'\n"
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	secrets := map[string]string{
		"SREGISTRY_DROPBOX_TOKEN": "", "DOCKER_AUTH_CONFIG": "",
		"AWS_SECRET_ACCESS_KEY": "ecr-login", "AZURE_CLIENT_SECRET": "acr-env", "GOOGLE_APPLICATION_CREDENTIALS": "gcloud gcr",
	}
	for name := range secrets {
		t.Setenv(name, "canary")
	}
	for _, helper := range []string{"ocitest", "ecr-login", "acr-env", "gcloud", "gcr"} {
		writeFile(t, filepath.Join(dir, "docker-credential-"+helper), script, 0o700)
		for _, text := range []string{
			fmt.Sprintf(`{"credHelpers":{%q:%q}}`, reg.Host, helper), fmt.Sprintf(`{"credsStore":%q}`, helper),
		} {
			file := dockerConfig(t, filepath.Join(t.TempDir(), "config.json"), text)
			mustStat(t, open(t, config{"url": reg.URL, "credentials": []string{file}}, func(env *backends.Env) {
				env.Getenv, env.Helpers = os.Getenv, []string{"PATH=" + os.Getenv("PATH")}
			}), "a/b:1")
			got, err := os.ReadFile(filepath.Join(dir, "env"))
			if err != nil || !strings.Contains(string(got), "PATH="+dir) {
				t.Errorf("the environment of %s is %q, %v", helper, got, err)
			}
			for name, helpers := range secrets {
				want := slices.Contains(strings.Fields(helpers), helper)
				if strings.Contains(string(got), name+"=canary") != want {
					t.Errorf("%s gets %s: %v, want %v", helper, name, !want, want)
				}
			}
		}
	}
	missing := dockerConfig(t, filepath.Join(t.TempDir(), "config.json"), `{"credsStore":"none-of-that-name"}`)
	var log bytes.Buffer
	_, err := open(t, config{"url": reg.URL, "credentials": []string{missing}}, func(env *backends.Env) {
		env.Log = slog.New(slog.NewTextHandler(&log, nil))
	}).Stat(t.Context(), ref(t, "a/b:1"))
	wantErr(t, "with a helper that is not there", err, backends.ErrUnauthorized)
	if !strings.Contains(log.String(), "docker-credential-none-of-that-name is not installed") {
		t.Errorf("the log says nothing of it: %s", &log)
	}
}

// A configuration of Docker's often names a helper that this machine lacks. What is
// public can be read all the same; what is not says which program is missing, and
// which file wants it.
func TestLogin_helperMissing(t *testing.T) {
	t.Parallel()
	missing := dockerConfig(t, filepath.Join(t.TempDir(), "config.json"), `{"credsStore":"none-of-that-name"}`)
	var log bytes.Buffer
	start := func(reg *ocitest.Registry) remote {
		log.Reset()
		return open(t, config{"url": reg.URL, "credentials": []string{missing}}, func(env *backends.Env) {
			env.Log = slog.New(slog.NewTextHandler(&log, nil))
		})
	}
	public := ocitest.Start(t, ocitest.Options{})
	public.PushSIF("a/b", "1", []byte("public"), nil)
	public.Use(func(next http.Handler) http.Handler { // as Docker Hub: a token for everybody
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			switch login := req.Header.Get("Authorization"); {
			case req.URL.Path == "/token" && login == "":
				io.WriteString(w, `{"token":"anybody"}`)
			case login == "Bearer anybody":
				next.ServeHTTP(w, req)
			default:
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+public.URL+`/token",service="x"`)
				w.WriteHeader(http.StatusUnauthorized)
			}
		})
	})
	b := start(public)
	mustStat(t, b, "a/b:1")
	for range 3 {
		_, err := b.Stat(t.Context(), ref(t, "a/b:none"))
		wantErr(t, "a tag that is not there", err, fs.ErrNotExist)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "docker-credential-none-of-that-name") || !strings.Contains(log.String(), missing) {
		t.Errorf("%d warnings:\n%s", n, &log)
	}
	private := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret"})
	_, err := start(private).Stat(t.Context(), ref(t, "a/b:1"))
	wantErr(t, "Stat", err, backends.ErrUnauthorized)
	if err != nil && (!strings.Contains(err.Error(), "docker-credential-none-of-that-name") || !strings.Contains(err.Error(), missing)) {
		t.Errorf("%v does not name the helper and its file", err)
	}
}

// A token for each repository is no reason to run the helper for each.
func TestLogin_helperIsNotRunForEach(t *testing.T) {
	reg := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret", TokenAuth: true})
	for i := range 20 {
		reg.PushSIF(fmt.Sprintf("a/b%d", i), "1", []byte("private"), nil)
	}
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	helper := func(password string) {
		writeFile(t, filepath.Join(dir, "docker-credential-ocitest"),
			"#!/bin/sh\ncat >/dev/null\necho called >>"+calls+"\necho '{\"Username\":\"me\",\"Secret\":\""+password+"\"}'\n", 0o700)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	file := dockerConfig(t, filepath.Join(dir, "config.json"), `{"credsStore":"ocitest"}`)
	b := open(t, config{"url": reg.URL, "credentials": []string{file}})
	helper("wrong")
	_, err := b.Stat(t.Context(), ref(t, "a/b0:1"))
	wantErr(t, "Stat with a wrong password", err, backends.ErrUnauthorized)
	helper("secret") // is asked for at once
	for i := range 20 {
		mustStat(t, b, fmt.Sprintf("a/b%d:1", i))
	}
	// One more for each five seconds that this took.
	if said, err := os.ReadFile(calls); err != nil || strings.Count(string(said), "called") > 5 {
		t.Errorf("the helper was called so: %q, %v", said, err)
	}
}

func TestLogin_secret(t *testing.T) {
	t.Parallel()
	for _, tokens := range []bool{false, true} {
		reg := ocitest.Start(t, ocitest.Options{User: "me", Password: "new", TokenAuth: tokens})
		reg.PushSIF("a/b", "1", []byte("private"), nil)
		var asked []bool
		b := open(t, config{"url": reg.URL}, func(env *backends.Env) {
			env.User = "me"
			env.Secret = func(_ context.Context, fresh bool) (string, error) {
				asked = append(asked, fresh)
				return map[bool]string{false: "old", true: "new"}[fresh], nil
			}
		})
		mustStat(t, b, "a/b:1")
		if fmt.Sprint(asked) != "[false true]" {
			t.Errorf("the secret was asked for with fresh = %v, want false, then true", asked)
		}
	}
	t.Run("refused for good", func(t *testing.T) {
		t.Parallel()
		reg := ocitest.Start(t, ocitest.Options{User: "me", Password: "right"})
		asked := 0
		b := open(t, config{"url": reg.URL}, func(env *backends.Env) {
			env.User = "me"
			env.Secret = func(context.Context, bool) (string, error) { asked++; return "wrong", nil }
		})
		for range 3 {
			_, err := b.Stat(t.Context(), ref(t, "a/b:1"))
			wantErr(t, "Stat", err, backends.ErrUnauthorized)
		}
		if asked != 4 {
			t.Errorf("the secret was asked for %d times, want one for each call and one fresh", asked)
		}
	})
}

func TestLogin_anonymous(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret", TokenAuth: true, AnonymousPull: true})
	reg.PushSIF("a/b", "1", []byte("public"), nil)
	b := open(t, config{"url": reg.URL})
	if got := string(read(t, b, mustStat(t, b, "a/b:1"), 0, -1)); got != "public" {
		t.Errorf("read %q", got)
	}
	_, err := b.Push(t.Context(), ref(t, "a/c:1"), source([]byte("x")))
	wantErr(t, "anonymous push", err, backends.ErrUnauthorized)
	_, err = backends.Collect(b.List(t.Context(), ""))
	wantErr(t, "anonymous List", err, errors.ErrUnsupported)
}

func TestCheckLogin(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]ocitest.Options{
		"basic":          {User: "me", Password: "secret"},
		"token":          {User: "me", Password: "secret", TokenAuth: true},
		"anonymous pull": {User: "me", Password: "secret", TokenAuth: true, AnonymousPull: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := ocitest.Start(t, opts)
			for password, want := range map[string]error{"secret": nil, "hunter2": backends.ErrUnauthorized} {
				b := open(t, config{"url": reg.URL}, func(env *backends.Env) {
					env.User = "me"
					env.Secret = func(context.Context, bool) (string, error) { return password, nil }
				})
				checker, ok := b.Backend.(interface{ CheckLogin(context.Context) error })
				if !ok {
					t.Fatal("there is no CheckLogin")
				}
				if err := checker.CheckLogin(t.Context()); !errors.Is(err, want) || err != nil && strings.Contains(err.Error(), password) {
					t.Errorf("with the password %q: %v, want %v", password, err, want)
				}
			}
		})
	}
}

// What servers, and the proxies before them, put before the challenge that can be
// answered.
func TestLogin_challenges(t *testing.T) {
	t.Parallel()
	for name, challenges := range map[string][]string{
		"several headers":  {"Negotiate", `Bearer realm="URL/token",service="x, y"`},
		"one header":       {`Negotiate, Basic realm="a, b"`},
		"quoted":           {`Digest realm="a", nonce="b,Basic c"`, `basic realm=x`},
		"escaped":          {`Bearer service="a \", b",realm="URL/token"`},
		"token68":          {`Negotiate YII=, Basic realm="a"`},
		"bearer last":      {`Basic realm="x", Bearer realm="URL/token",service="s"`},
		"upper case":       {`BEARER Realm="URL/token" , Service="s"`},
		"bearer of no use": {`Bearer, Basic realm="x"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.text("/token", `{"token":"tok"}`)
			f.manifest("a/b", "1", []byte("x"))
			manifest := f.paths["/v2/a/b/manifests/1"]
			f.on("/v2/a/b/manifests/1", func(w http.ResponseWriter, req *http.Request) {
				switch req.Header.Get("Authorization") {
				case "Bearer tok", "Basic " + base64.StdEncoding.EncodeToString([]byte("me:secret")):
					manifest(w, req)
					return
				}
				for _, c := range challenges {
					w.Header().Add("Www-Authenticate", strings.ReplaceAll(c, "URL", f.URL))
				}
				w.WriteHeader(http.StatusUnauthorized)
			})
			mustStat(t, open(t, config{"url": f.URL}, login), "a/b:1")
		})
	}
}

// A token for each repository, and many of those.
func TestLogin_tokensKept(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.text("/token", `{"token":"`+strings.Repeat("x", 16<<10)+`"}`)
	f.other = func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") == "" {
			w.Header().Set("Www-Authenticate", `Bearer realm="`+f.URL+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		f.mu.Lock()
		f.seen = nil
		f.mu.Unlock()
		w.WriteHeader(http.StatusNotFound)
	}
	b := open(t, config{"url": f.URL})
	for i := range 2500 {
		_, err := b.Stat(t.Context(), ref(t, fmt.Sprintf("a/b%d:1", i)))
		wantErr(t, "Stat", err, fs.ErrNotExist)
	}
	if n := oci.Tokens(b.Backend); n > 1024 {
		t.Errorf("%d tokens are kept", n)
	}
}

// A file can have logins for parts of a registry: the longest that fits counts, and
// none for another part (containers-auth.json(5)).
func TestLogin_scopes(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	logins := map[string]string{"team": "t", "team/deep": "d", "other": "o", "": "all"}
	for _, repo := range []string{"team/x", "team/deep/x", "team/deeper/x", "other/x", "third/x"} {
		reg.PushSIF(repo, "1", []byte(repo), nil)
	}
	needs := func(path string) string {
		for _, part := range []string{"team/deep", "team", "other"} {
			if strings.HasPrefix(path, "/v2/"+part+"/") {
				return logins[part]
			}
		}
		return logins[""]
	}
	reg.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if user, _, _ := req.BasicAuth(); user != needs(req.URL.Path) {
				w.Header().Set("Www-Authenticate", `Basic realm="r"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, req)
		})
	})
	auth := func(user string) string { return base64.StdEncoding.EncodeToString([]byte(user + ":p:w")) }
	for _, tc := range []struct {
		all  bool   // the file has a login for the whole registry, too
		name string // as its names are written
	}{{true, "%s/%s"}, {false, "%s/%s"}, {true, "http://%s/%s"}, {false, "https://%s/%s/"}} {
		all := tc.all
		var entries []string
		for scope, user := range logins {
			if scope != "" || all {
				name := strings.TrimSuffix(fmt.Sprintf(tc.name, reg.Host, scope), "/")
				entries = append(entries, fmt.Sprintf(`%q:{"auth":%q}`, name+strings.Repeat("/", strings.Count(tc.name, "/%s/")), auth(user)))
			}
		}
		for range 10 { // a map has another order each time
			home := t.TempDir()
			dockerConfig(t, filepath.Join(home, ".docker", "config.json"), `{"auths":{`+strings.Join(entries, ",")+`}}`)
			b := open(t, config{"url": reg.URL}, func(env *backends.Env) { env.Home = home })
			for _, repo := range []string{"team/x", "team/deep/x", "team/deeper/x", "other/x"} {
				if got := read(t, b, mustStat(t, b, repo+":1"), 0, -1); string(got) != repo {
					t.Errorf("%s: %q", repo, got)
				}
			}
			_, err := b.Stat(t.Context(), ref(t, "third/x:1"))
			if want := map[bool]error{false: backends.ErrUnauthorized}[all]; !errors.Is(err, want) {
				t.Errorf("Stat where the login for the whole registry is there: %v: %v", all, err)
			}
		}
	}
}

// A login that is too old is answered with 403 or 404 by some. What it was good for before
// is asked for once more, with the login that the files have now.
func TestLogin_aged(t *testing.T) {
	t.Parallel()
	basic := func(password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+password))
	}
	for _, status := range []int{401, 403, 404} {
		for _, tokens := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d, tokens %v", status, tokens), func(t *testing.T) {
				t.Parallel()
				reg := ocitest.Start(t, ocitest.Options{User: "me", Password: "0", TokenAuth: tokens})
				reg.PushSIF("a/b", "1", []byte("0123456789"), nil)
				home := t.TempDir()
				var mu sync.Mutex
				aged := map[string]bool{}
				last, password := "", ""
				setPassword := func(text string) {
					mu.Lock()
					defer mu.Unlock()
					aged[last], password = last != "", text
					dockerConfig(t, filepath.Join(home, ".docker", "config.json"), auths(reg.Host, "me", text))
				}
				setPassword("0")
				reg.Use(func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
						mu.Lock()
						login := req.Header.Get("Authorization")
						last = cmp.Or(login, last)
						old := aged[login]
						if login == basic(password) {
							req.Header.Set("Authorization", basic("0")) // what the registry was started with
						}
						mu.Unlock()
						if old {
							w.WriteHeader(status)
							return
						}
						next.ServeHTTP(w, req)
					})
				})
				b := open(t, config{"url": reg.URL}, func(env *backends.Env) { env.Home = home })
				img := mustStat(t, b, "a/b:1")
				for i := range int64(3) {
					if got := read(t, b, img, i, 1); string(got) != fmt.Sprint(i) {
						t.Errorf("range %d: %q", i, got)
					}
					if next := fmt.Sprint(i + 1); tokens {
						setPassword("0") // which is as it was: the token alone is too old
					} else {
						setPassword(next)
					}
				}
				reg.Forget()
				for range 5 {
					_, err := b.Stat(t.Context(), ref(t, "a/b:2"))
					wantErr(t, "a tag that is not there", err, fs.ErrNotExist)
				}
				if n := reg.Count(http.MethodGet, "/manifests/2"); n > 8 {
					t.Errorf("%d requests for five tags that are not there", n)
				}
			})
		}
	}
}

// A token service that is not there says nothing of images.
func TestLogin_noTokenService(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{
		404: backends.ErrUnauthorized, 410: backends.ErrUnauthorized, 405: backends.ErrUnauthorized, 400: backends.ErrUnauthorized,
		401: backends.ErrUnauthorized, 403: backends.ErrUnauthorized, 429: backends.ErrRateLimited, 503: backends.ErrUnavailable,
	} {
		f := newFake(t)
		f.on("/token", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		f.other = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Www-Authenticate", `Bearer realm="`+f.URL+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, err := open(t, config{"url": f.URL}).Stat(t.Context(), ref(t, "a/b:1"))
		wantErr(t, fmt.Sprintf("Stat with HTTP %d for a token", status), err, want)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("HTTP %d for a token is %v of the image", status, err)
		}
	}
}

// A refusal says whose login was refused, and what it can mean besides.
func TestLogin_refused(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret"})
	for _, typ := range []string{"oci", "docker"} {
		home := t.TempDir()
		at := func(env *backends.Env) { env.Home = home }
		_, err := preset(t, typ, config{"url": reg.URL}, at).Stat(t.Context(), ref(t, "a/b:1"))
		wantErr(t, "Stat without a login", err, backends.ErrUnauthorized)
		if err == nil || !strings.Contains(err.Error(), "none of these files has") ||
			(typ == "docker") != strings.Contains(err.Error(), "or there is no such repository") {
			t.Errorf("%s: the error says %v", typ, err)
		}
		file := dockerConfig(t, filepath.Join(home, ".docker", "config.json"), auths(reg.Host, "me", "wrong"))
		_, err = preset(t, typ, config{"url": reg.URL}, at).Stat(t.Context(), ref(t, "a/b:1"))
		wantErr(t, "Stat with a wrong login", err, backends.ErrUnauthorized)
		if err == nil || strings.Contains(err.Error(), "none of these") || !strings.Contains(err.Error(), "refused the login that is from "+file) {
			t.Errorf("%s: the error says %v", typ, err)
		}
	}
}

// No login goes over plain http to another machine: not in the form for a token
// service, and neither in a header of its own nor in a body for a service's API.
func TestLogin_plain(t *testing.T) {
	t.Parallel()
	refused := func(t *testing.T, err error) {
		t.Helper()
		wantErr(t, "a login over plain http", err, backends.ErrNotAllowed)
		if err != nil && (!strings.Contains(err.Error(), "plain_login") || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("the error says %v", err)
		}
	}
	f := newFake(t)
	f.other = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Www-Authenticate", `Bearer realm="http://auth.invalid/token",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
	for name, login := range map[string]string{
		"an identity token":            `"identitytoken":"hunter2"`,
		"a user name and its password": `"auth":"` + base64.StdEncoding.EncodeToString([]byte("me:hunter2")) + `"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := strings.TrimPrefix(f.URL, "http://")
			file := dockerConfig(t, filepath.Join(t.TempDir(), "config.json"), fmt.Sprintf(`{"auths":{%q:{%s}}}`, host, login))
			b := open(t, config{"url": f.URL, "auth_host": "auth.invalid", "credentials": []string{file}})
			_, err := b.Stat(t.Context(), ref(t, "a/b:1"))
			refused(t, err)
		})
	}
	for typ, user := range map[string]string{"docker": "me", "gitlab": "me", "harbor": "me", "quay": "$oauthtoken", "ghcr": "me"} {
		t.Run("the API of "+typ, func(t *testing.T) {
			t.Parallel()
			b := preset(t, typ, config{"url": f.URL, "api": "http://api.invalid"}, as(user, "hunter2"))
			_, err := backends.Collect(b.(backends.Lister).List(t.Context(), "lab/"))
			refused(t, err)
		})
	}
}
