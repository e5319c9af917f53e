// SPDX-License-Identifier: Apache-2.0

package swift

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/swift/swifttest"
)

// A counter is a transport that counts what is asked.
type counter struct {
	next http.RoundTripper

	mu    sync.Mutex // guards the field below
	asked []string
}

// RoundTrip implements http.RoundTripper.
func (c *counter) RoundTrip(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.asked = append(c.asked, req.Method+" "+req.URL.Path)
	c.mu.Unlock()
	return c.next.RoundTrip(req)
}

func (c *counter) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.asked
	c.asked = nil
	return asked
}

func counted(t *testing.T, config map[string]any) (*swifttest.Account, *client, *counter) {
	t.Helper()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	n := &counter{next: hc.Transport}
	a := swifttest.Shared(t).Account()
	return a, open(t, a, &http.Client{Transport: n}, config), n
}

func ref(t *testing.T, spec string) backends.Ref {
	t.Helper()
	r, err := backends.ParseRef(spec)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func source(text []byte) backends.Source {
	return backends.Source{Content: bytes.NewReader(text), Size: int64(len(text)), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(text)), Format: backends.FormatSIF}
}

func bytesOf(n int, seed byte) []byte {
	text := make([]byte, n)
	for i := range text {
		text[i] = byte(i*7) ^ byte(i>>8) ^ seed
	}
	return text
}

func push(t *testing.T, c *client, spec string, text []byte, replaces string) backends.Image {
	t.Helper()
	src := source(text)
	src.Replaces = replaces
	img, err := c.Push(t.Context(), ref(t, spec), src)
	if err != nil {
		t.Fatalf("Push(%s): %v", spec, err)
	}
	return img
}

func read(t *testing.T, c *client, img backends.Image, off, n int64) []byte {
	t.Helper()
	body, err := c.Open(t.Context(), img, off, n)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What docs/backends/swift.md says of requests.
func TestRequests(t *testing.T) {
	t.Parallel()
	a, c, n := counted(t, nil)
	var names []string
	for i := range 10_000 {
		names = append(names, fmt.Sprintf("tool%04d:%d.sif", i/10, i%10))
	}
	a.Fill(t, "many", names)
	list := func(collection string) int {
		t.Helper()
		all, err := backends.Collect(c.List(t.Context(), collection))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	check := func(what string, want int) {
		t.Helper()
		if asked := n.take(); len(asked) != want {
			t.Errorf("%s takes %d requests, want %d:\n%s", what, len(asked), want, strings.Join(asked, "\n"))
		}
	}
	if got := list(""); got != 1 {
		t.Errorf("the root has %d entries", got)
	}
	check("the login, what the service can, and the root", 3)
	if got := list("many"); got != 10_000 {
		t.Errorf("many has %d images", got)
	}
	check("a container of 10,000 images", 2)
	push(t, c, "few/hello:1", bytesOf(100, 0), "")
	check("a push of a new name into a new container", 7)
	img := push(t, c, "few/hello:2", bytesOf(100, 1), "")
	check("a push of a new name", 5)
	if got := list("few"); got != 2 {
		t.Errorf("few has %d images", got)
	}
	check("a container of two images", 1)
	if _, err := c.Stat(t.Context(), ref(t, "few/hello:2")); err != nil {
		t.Error(err)
	}
	check("an image by its name", 1)
	read(t, c, img, 10, 20)
	check("a range", 1)
	if _, err := c.Tag(t.Context(), img, "3", ""); err != nil {
		t.Error(err)
	}
	check("a tag", 7)
	c.store.part = 10
	push(t, c, "few/large:1", bytesOf(100, 1), "")
	check("a push of a new name in ten segments, the first", 2+1+3+10+10+1+1)
	if err := c.Delete(t.Context(), img); err != nil {
		t.Error(err)
	}
	check("a removal", 4)
}

// segmentsIn returns the segments that there are for a container's objects.
func segmentsIn(t *testing.T, a *swifttest.Account, container string) int {
	t.Helper()
	return len(a.Names(t, container+"_segments"))
}

// What is made of segments is one image, and its segments go when it does.
func TestLarge(t *testing.T) {
	t.Parallel()
	a, c := serve(t, nil)
	c.store.part = 1000
	text := bytesOf(10_500, 0)
	img := push(t, c, "lab/tool:1", text, "")
	if n := segmentsIn(t, a, "lab"); n != 11 {
		t.Errorf("%d segments, want 11", n)
	}
	for _, name := range a.Names(t, "lab_segments") {
		if at := a.Do(t, http.MethodHead, "/lab_segments/"+name, nil, nil).Get("X-Delete-At"); at != "" {
			t.Errorf("the segment %s goes at %s", name, at)
		}
	}
	h := a.Do(t, http.MethodHead, "/lab/tool:1.sif", nil, nil)
	if h.Get("X-Static-Large-Object") != "True" || h.Get("Content-Length") != "10500" || img.Digest != source(text).Digest {
		t.Errorf("stored as %v, %v", h, img)
	}
	if got := read(t, c, img, 0, -1); !bytes.Equal(got, text) {
		t.Error("read as other bytes")
	}
	if got := read(t, c, img, 1990, 2020); !bytes.Equal(got, text[1990:1990+2020]) {
		t.Error("a range over three segments has other bytes")
	}
	entries, err := backends.Collect(c.List(t.Context(), "lab"))
	if err != nil || len(entries) != 1 || entries[0].Image.Version != img.Version || entries[0].Image.Size != 10_500 {
		t.Errorf("List = %v, %v; want %v", entries, err, img)
	}
	if root, err := backends.Collect(c.List(t.Context(), "")); err != nil || len(root) != 1 {
		t.Errorf("the root is %v, %v; want lab alone", root, err)
	}
	second := push(t, c, "lab/tool:1", bytesOf(2500, 1), img.Version)
	if n := segmentsIn(t, a, "lab"); n != 3 {
		t.Errorf("%d segments after it was replaced, want 3", n)
	}
	if _, err := c.Open(t.Context(), img, 0, 10); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("Open of what was replaced: %v, want ErrChanged", err)
	}
	// The copy has bytes of its own.
	tagged, err := c.Tag(t.Context(), second, "2", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if n := segmentsIn(t, a, "lab"); n != 3 {
		t.Errorf("%d segments after it was removed, want 3: those of the copy", n)
	}
	if got := read(t, c, tagged, 0, -1); !bytes.Equal(got, bytesOf(2500, 1)) {
		t.Error("the tag has other bytes")
	}
	moved, err := c.Move(t.Context(), tagged, ref(t, "other/tool:2"), "")
	if err != nil || !bytes.Equal(read(t, c, moved, 0, -1), bytesOf(2500, 1)) || moved.Digest != tagged.Digest {
		t.Errorf("Move: %v, %v", moved, err)
	}
	if n, m := segmentsIn(t, a, "lab"), segmentsIn(t, a, "other"); n != 0 || m != 3 {
		t.Errorf("%d and %d segments after a move, want 0 and 3", n, m)
	}
	push(t, c, "lab/tool:3", bytesOf(1500, 1), "")
	push(t, c, "lab/tool:3", bytesOf(500, 2), backends.ReplaceAny)
	if n := segmentsIn(t, a, "lab"); n != 0 {
		t.Errorf("%d segments after a small image has replaced it", n)
	}
}

// A failing transport lets some requests through, and no more.
type failing struct {
	next http.RoundTripper

	mu   sync.Mutex // guards the fields below
	left int        // segments that are let through
}

// RoundTrip implements http.RoundTripper.
func (f *failing) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "_segments/") {
		f.mu.Lock()
		f.left--
		left := f.left
		f.mu.Unlock()
		if left < 0 {
			if req.Body != nil {
				req.Body.Close()
			}
			return nil, errors.New("the line is cut")
		}
	}
	return f.next.RoundTrip(req)
}

// A push that was killed shows nothing, goes on where it was, and what it has stored would
// have gone by itself.
func TestLarge_resumed(t *testing.T) {
	t.Parallel()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	a := swifttest.Shared(t).Account()
	text, saved := bytesOf(10_000, 0), &backendtest.Session{}
	src := source(text)
	src.Session = saved
	first := open(t, a, &http.Client{Transport: &failing{next: hc.Transport, left: 6}}, nil)
	first.store.part = 1000
	if img, err := first.Push(t.Context(), ref(t, "lab/tool:1"), src); !errors.Is(err, backends.ErrUnavailable) {
		t.Fatalf("Push over a line that is cut = %v, %v", img, err)
	}
	if names := a.Names(t, "lab"); len(names) != 0 {
		t.Errorf("visible: %q", names)
	}
	stored := a.Names(t, "lab_segments")
	if len(stored) != 6 {
		t.Errorf("%d segments are stored, want 6", len(stored))
	}
	for _, name := range stored {
		if a.Do(t, http.MethodHead, "/lab_segments/"+name, nil, nil).Get("X-Delete-At") == "" {
			t.Errorf("the segment %s would stay for ever", name)
		}
	}
	n := &counter{next: hc.Transport}
	second := open(t, a, &http.Client{Transport: n}, nil)
	second.store.part = 777 // as another version of the program has it
	img, err := second.Push(t.Context(), ref(t, "lab/tool:1"), src)
	if err != nil {
		t.Fatal(err)
	}
	sent := slices.DeleteFunc(n.take(), func(s string) bool { return !strings.HasPrefix(s, "PUT ") || !strings.Contains(s, "_segments/") })
	if len(sent) != 4 {
		t.Errorf("the second try has sent %d segments, want 4", len(sent))
	}
	if got := read(t, second, img, 0, -1); !bytes.Equal(got, text) || saved.Load() != nil {
		t.Errorf("other bytes, or the session is kept: %q", saved.Load())
	}
	// A segment is gone meanwhile: all is sent anew.
	other := source(bytesOf(10_000, 5))
	other.Session = saved
	third := open(t, a, &http.Client{Transport: &failing{next: hc.Transport, left: 6}}, nil)
	third.store.part = 1000
	if _, err := third.Push(t.Context(), ref(t, "lab/tool:2"), other); err == nil {
		t.Fatal("Push over a line that is cut")
	}
	for _, name := range a.Names(t, "lab_segments") {
		if strings.HasPrefix(name, "tool:2") {
			a.Do(t, http.MethodDelete, "/lab_segments/"+name, nil, nil)
			break
		}
	}
	if _, err := second.Push(t.Context(), ref(t, "lab/tool:2"), other); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("Push without a segment: %v, want ErrUnavailable", err)
	}
	if img, err = second.Push(t.Context(), ref(t, "lab/tool:2"), other); err != nil || !bytes.Equal(read(t, second, img, 0, -1), bytesOf(10_000, 5)) {
		t.Errorf("the try after it: %v, %v", img, err)
	}
	if n := segmentsIn(t, a, "lab"); n != 10+13 {
		t.Errorf("%d segments, want 23", n)
	}
}

// A push that is refused at its end leaves no segments.
func TestLarge_refused(t *testing.T) {
	t.Parallel()
	a, c := serve(t, nil)
	c.store.part = 1000
	src := source(bytesOf(3000, 0))
	src.Commit = func() error {
		a.Put(t, "lab/tool:1.sif", []byte("somebody else's"), nil)
		return nil
	}
	if _, err := c.Push(t.Context(), ref(t, "lab/tool:1"), src); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Push to a name that was taken meanwhile: %v, want ErrExist", err)
	}
	wrong := source(bytesOf(3000, 1))
	wrong.Digest = source(nil).Digest
	if _, err := c.Push(t.Context(), ref(t, "lab/tool:2"), wrong); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("Push of other bytes: %v, want ErrCorrupt", err)
	}
	stopped := source(bytesOf(3000, 2))
	stop := errors.New("no more")
	stopped.Commit = func() error { return stop }
	if _, err := c.Push(t.Context(), ref(t, "lab/tool:3"), stopped); !errors.Is(err, stop) {
		t.Errorf("Push that is stopped: %v", err)
	}
	if n := segmentsIn(t, a, "lab"); n != 0 {
		t.Errorf("%d segments are left", n)
	}
	if names := a.Names(t, "lab"); len(names) != 1 {
		t.Errorf("lab has %q", names)
	}
}

// A link is good without a login, for its object alone.
func TestShare(t *testing.T) {
	t.Parallel()
	a, c := serve(t, map[string]any{"temp_url_key": ""})
	c.store.part = 1000
	text := bytesOf(3000, 0)
	img := push(t, c, "my lab/tool:1", text, "")
	if link, err := c.Share(t.Context(), img, ""); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "Temp-URL-Key") {
		t.Errorf("Share without a key = %q, %v", link, err)
	}
	get := func(link string) (int, []byte) {
		t.Helper()
		resp, err := a.Get(t, link)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, got
	}
	small := push(t, c, "my lab/small:1", text[:500], "")
	for _, at := range []string{"/my%20lab", ""} {
		kind := map[string]string{"": "Account"}[at]
		if kind == "" {
			kind = "Container"
		}
		a.Do(t, http.MethodPost, at, http.Header{"X-" + kind + "-Meta-Temp-Url-Key": {"secret" + kind}}, nil)
		link, err := c.Share(t.Context(), small, "")
		if err != nil {
			t.Fatal(err)
		}
		if status, got := get(link); status != http.StatusOK || !bytes.Equal(got, text[:500]) {
			t.Errorf("GET %s: %d, %d bytes", link, status, len(got))
		}
		if link, err := c.Share(t.Context(), img, ""); at == "" {
			if status, got := get(link); err != nil || status != http.StatusOK || !bytes.Equal(got, text) {
				t.Errorf("GET %s: %d, %d bytes, %v", link, status, len(got), err)
			}
		} else if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a large object with the key of a container: %q, %v", link, err)
		}
		if status, _ := get(strings.Replace(link, "small:1", "tool:1", 1)); status != http.StatusUnauthorized {
			t.Errorf("a link to something else: %d", status)
		}
		a.Do(t, http.MethodPost, at, http.Header{"X-Remove-" + kind + "-Meta-Temp-Url-Key": {"x"}}, nil)
	}
	if _, err := c.Share(t.Context(), img, "you@lab.org"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Share with a person: %v", err)
	}
	push(t, c, "my lab/tool:1", bytesOf(3000, 1), img.Version)
	if _, err := c.Share(t.Context(), img, ""); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("Share of what was replaced: %v, want ErrChanged", err)
	}
}

// Every way to log in comes to the same account; one that is refused says so, and is not
// tried again and again.
func TestLogins(t *testing.T) {
	t.Parallel()
	srv := swifttest.Shared(t)
	a := srv.Account()
	a.Put(t, "lab/tool:1.sif", []byte("bytes"), nil)
	k := startKeystone(t, srv, a)
	token := srv.Token(t, a.User)
	for name, test := range map[string]struct {
		config map[string]any
		env    map[string]string
		user   string
		secret string
	}{
		"tempauth":   {config: map[string]any{"url": a.Auth}, user: a.User, secret: swifttest.Key},
		"v1":         {config: map[string]any{"url": srv.URL, "auth": "v1"}, user: a.User, secret: swifttest.Key},
		"v2":         {config: map[string]any{"url": k.URL + "/v2.0", "project": "lab"}, user: "me", secret: swifttest.Key},
		"keystonev2": {config: map[string]any{"url": k.URL, "auth": "keystonev2", "project": "lab", "region": "one"}, user: "me", secret: swifttest.Key},
		"v3":         {config: map[string]any{"url": k.URL, "project": "lab", "region": "one"}, user: "me", secret: swifttest.Key},
		"keystonev3": {config: map[string]any{"url": k.URL + "/v3", "auth": "keystonev3", "project": "lab", "region": "one"}, user: "me", secret: swifttest.Key},
		"credential": {config: map[string]any{"url": k.URL + "/v3", "application_credential": "cred", "region": "one"}, secret: swifttest.Key},
		"preauth":    {config: map[string]any{"storage_url": a.Storage}, secret: token},
		"openrc": {env: map[string]string{
			"OS_AUTH_URL": k.URL + "/v3", "OS_USERNAME": "me", "OS_PASSWORD": swifttest.Key, "OS_PROJECT_NAME": "lab", "OS_USER_DOMAIN_NAME": "Default",
			"OS_REGION_NAME": "one", "OS_IDENTITY_API_VERSION": "3", "OS_PROJECT_DOMAIN_NAME": "Default",
		}},
		"openrc, credential": {env: map[string]string{
			"OS_AUTH_URL": k.URL, "OS_APPLICATION_CREDENTIAL_ID": "cred", "OS_APPLICATION_CREDENTIAL_SECRET": swifttest.Key, "OS_REGION_NAME": "one",
		}},
		"OS_AUTH_TOKEN": {env: map[string]string{"OS_STORAGE_URL": a.Storage, "OS_AUTH_TOKEN": token}},
		"ST_AUTH":       {env: map[string]string{"ST_AUTH": a.Auth, "ST_USER": a.User, "ST_KEY": swifttest.Key}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hc := backends.NewHTTPClient(backends.HTTPOptions{})
			t.Cleanup(hc.CloseIdleConnections)
			n := &counter{next: hc.Transport}
			login := func(wrong bool) *client {
				env := maps.Clone(test.env)
				secret := test.secret
				if wrong {
					for _, name := range []string{"OS_PASSWORD", "OS_AUTH_TOKEN", "OS_APPLICATION_CREDENTIAL_SECRET", "ST_KEY"} {
						if env[name] != "" {
							env[name] = "wrong"
						}
					}
					secret = "wrong"
				}
				e := backends.Env{Remote: "r", HTTP: &http.Client{Transport: n}, Config: test.config, User: test.user, Getenv: func(name string) string { return env[name] }}
				if test.secret != "" {
					e.Secret = func(context.Context, bool) (string, error) { return secret, nil }
				}
				b, err := Open(t.Context(), e)
				if err != nil {
					t.Fatal(err)
				}
				return b.(*client)
			}
			img, err := login(false).Stat(t.Context(), ref(t, "lab/tool:1"))
			if err != nil || img.Size != 5 {
				t.Errorf("Stat = %v, %v", img, err)
			}
			if err := login(false).CheckLogin(t.Context()); err != nil {
				t.Errorf("CheckLogin: %v", err)
			}
			n.take()
			bad := login(true)
			for range 5 {
				if err := bad.CheckLogin(t.Context()); !errors.Is(err, backends.ErrUnauthorized) {
					t.Errorf("CheckLogin with a wrong login: %v, want ErrUnauthorized", err)
				}
			}
			logins := slices.DeleteFunc(n.take(), func(s string) bool { return strings.Contains(s, "/AUTH_") })
			if len(logins) > 2 {
				t.Errorf("%d logins with a wrong password: %q", len(logins), logins)
			}
		})
	}
}

// A token that has expired is replaced, once for all that wait.
func TestLogin_expired(t *testing.T) {
	t.Parallel()
	srv := swifttest.Start(t) // whose tokens nobody else needs
	a := srv.Account()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	n := &counter{next: hc.Transport}
	c := open(t, a, &http.Client{Transport: n}, nil)
	img := push(t, c, "lab/tool:1", []byte("bytes"), "")
	srv.Forget(t)
	n.take()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := c.Stat(t.Context(), img.Ref); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	logins := slices.DeleteFunc(n.take(), func(s string) bool { return !strings.Contains(s, "/auth/") })
	if len(logins) != 1 {
		t.Errorf("%d logins, want 1", len(logins))
	}
	b := backendtest.Open(t, backendtest.LoggedIn(Open, "", func(context.Context, bool) (string, error) { return "old", nil }), hc, map[string]any{"storage_url": a.Storage})
	if _, err := b.Stat(t.Context(), img.Ref); !errors.Is(err, backends.ErrUnauthorized) {
		t.Errorf("Stat with an old token: %v", err)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for text, config := range map[string]map[string]any{
		"url is required":   {},
		"container \"a/b\"": {"url": "swift.lab.org", "container": "a/b"},
		"auth \"kerberos\"": {"url": "swift.lab.org", "auth": "kerberos"},
		"setting \"x\"":     {"url": "swift.lab.org", "x": 1},
	} {
		b, err := Open(t.Context(), backends.Env{Remote: "r", HTTP: &http.Client{}, Config: config})
		if !errors.Is(err, fs.ErrInvalid) || !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("Open(%v) = %v, %v, want %s", config, b, err, text)
		}
	}
	env := backends.Env{Remote: "r", HTTP: &http.Client{}, Config: map[string]any{"url": "https://swift.lab.org/v3"}, Getenv: func(string) string { return "https://evil.example" }}
	b, err := Open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	if c := b.(*client); c.store.login.secret != nil || c.Address() != "https://swift.lab.org/v3" {
		t.Errorf("the environment is used beside a url: %v", c.Address())
	}
	for collection, text := range map[string]string{"": "in a collection", "lab_segments": "segments", strings.Repeat("c", 250): "250 bytes"} {
		name := backends.Ref{Collection: collection, Name: "tool", Tag: "1"}
		if err := b.(*client).CheckName(name); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("CheckName(%.20s): %v, want %s", name, err, text)
		}
	}
}

// run runs another client of Swift.
func run(t *testing.T, a *swifttest.Account, env []string, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("SREGFS_NOSKIP") == "1" {
			t.Fatalf("%s is not installed and SREGFS_NOSKIP=1 allows no skip", name)
		}
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append([]string{"HOME=" + t.TempDir(), "PATH=/usr/bin:/bin", "ST_AUTH=" + a.Auth, "ST_USER=" + a.User, "ST_KEY=" + swifttest.Key,
		"RCLONE_CONFIG_S_TYPE=swift", "RCLONE_CONFIG_S_AUTH=" + a.Auth, "RCLONE_CONFIG_S_USER=" + a.User, "RCLONE_CONFIG_S_KEY=" + swifttest.Key, "RCLONE_CONFIG_S_AUTH_VERSION=1"}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// What other clients store is listed, opened and removed here, large objects too, and they read
// and remove what is stored here.
func TestOtherClients(t *testing.T) {
	t.Parallel()
	a, c := serve(t, nil)
	c.store.part = 1000
	dir := t.TempDir()
	text := bytesOf(5500, 0)
	if err := os.WriteFile(dir+"/tool:1.sif", text, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, a, nil, "swift", "upload", "--object-name", "swift:1.sif", "lab", dir+"/tool:1.sif")
	run(t, a, nil, "swift", "upload", "--use-slo", "--segment-size", "2000", "--object-name", "slo:1.sif", "lab", dir+"/tool:1.sif")
	run(t, a, nil, "swift", "upload", "--segment-size", "2000", "--object-name", "dlo:1.sif", "lab", dir+"/tool:1.sif")
	run(t, a, nil, "rclone", "copyto", dir+"/tool:1.sif", "s:lab/rclone:1.sif")
	entries, err := backends.Collect(c.List(t.Context(), "lab"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Image.Ref.Name)
		img, err := c.Stat(t.Context(), e.Image.Ref)
		if err != nil || img.Size != int64(len(text)) || e.Image.Version != "" && e.Image.Version != img.Version {
			t.Errorf("%s is %v, %v; listed as %v", e.Image.Ref, img, err, e.Image)
			continue
		}
		if !bytes.Equal(read(t, c, img, 0, -1), text) || !bytes.Equal(read(t, c, img, 1999, 2002), text[1999:1999+2002]) {
			t.Errorf("%s has other bytes", e.Image.Ref)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"dlo", "rclone", "slo", "swift"}, got); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	for _, name := range []string{"slo", "dlo", "rclone", "swift"} {
		img, err := c.Stat(t.Context(), ref(t, "lab/"+name+":1"))
		if err == nil {
			err = c.Delete(t.Context(), img)
		}
		if err != nil {
			t.Errorf("Delete(%s): %v", name, err)
		}
	}
	if left := append(a.Names(t, "lab"), a.Names(t, "lab_segments")...); len(left) != 0 {
		t.Errorf("left: %q", left)
	}

	img := push(t, c, "lab/tool:1", text, "")
	push(t, c, "lab/small:1", text[:500], "")
	run(t, a, nil, "rclone", "check", "--download", "--include", "tool*", dir, "s:lab")
	run(t, a, nil, "swift", "download", "-o", dir+"/back", "lab", "tool:1.sif")
	if back, err := os.ReadFile(dir + "/back"); err != nil || !bytes.Equal(back, text) {
		t.Errorf("swift download: %d bytes, %v", len(back), err)
	}
	if out := run(t, a, nil, "swift", "stat", "lab", "tool:1.sif"); !strings.Contains(out, strings.TrimPrefix(img.Digest, "sha256:")) {
		t.Errorf("swift stat does not show the digest:\n%s", out)
	}
	run(t, a, nil, "swift", "delete", "lab", "tool:1.sif")
	run(t, a, nil, "rclone", "deletefile", "s:lab/small:1.sif")
	if left := append(a.Names(t, "lab"), a.Names(t, "lab_segments")...); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// The stand-in for Keystone takes what OpenStack's own client sends, and answers as that wants it.
func TestKeystone(t *testing.T) {
	t.Parallel()
	srv := swifttest.Shared(t)
	a := srv.Account()
	a.Put(t, "lab/tool:1.sif", []byte("bytes"), nil)
	k := startKeystone(t, srv, a)
	for version, env := range map[string][]string{
		"3":   {"OS_AUTH_URL=" + k.URL + "/v3", "OS_USER_DOMAIN_NAME=Default", "OS_PROJECT_DOMAIN_NAME=Default", "OS_PROJECT_NAME=lab"},
		"2.0": {"OS_AUTH_URL=" + k.URL + "/v2.0", "OS_TENANT_NAME=lab"},
	} {
		env = append(env, "ST_AUTH=", "ST_USER=", "ST_KEY=", "OS_USERNAME=me", "OS_PASSWORD="+swifttest.Key, "OS_REGION_NAME=one")
		if out := run(t, a, env, "swift", "--auth-version", version, "list", "lab"); out != "tool:1.sif\n" {
			t.Errorf("swift list, version %s: %s", version, out)
		}
	}
}

// A muddled transport lets the manifest through, and answers what comes after it with nonsense.
type muddled struct {
	next http.RoundTripper

	mu      sync.Mutex // guards the fields below
	written bool
	off     bool
}

// RoundTrip implements http.RoundTripper.
func (m *muddled) RoundTrip(req *http.Request) (*http.Response, error) {
	m.mu.Lock()
	written := m.written && !m.off
	m.mu.Unlock()
	if written {
		return &http.Response{StatusCode: http.StatusTeapot, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
	}
	resp, err := m.next.RoundTrip(req)
	if req.URL.Query().Get("multipart-manifest") == "put" {
		m.mu.Lock()
		m.written = true
		m.mu.Unlock()
	}
	return resp, err
}

// Segments stay where the manifest was written, whatever the service says then.
func TestLarge_unsure(t *testing.T) {
	t.Parallel()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	m := &muddled{next: hc.Transport}
	a := swifttest.Shared(t).Account()
	c := open(t, a, &http.Client{Transport: m}, nil)
	c.store.part = 1000
	text := bytesOf(3500, 0)
	if _, err := c.Push(t.Context(), ref(t, "lab/tool:1"), source(text)); !errors.Is(err, backends.ErrBadAnswer) {
		t.Fatalf("Push: %v, want ErrBadAnswer", err)
	}
	m.mu.Lock()
	m.off = true
	m.mu.Unlock()
	img, err := c.Push(t.Context(), ref(t, "lab/tool:1"), source(text))
	if err != nil || !bytes.Equal(read(t, c, img, 0, -1), text) {
		t.Errorf("the next try: %v, %v", img, err)
	}
	if n := segmentsIn(t, a, "lab"); n != 4 {
		t.Errorf("%d segments, want 4", n)
	}
	// A container that was removed is made anew by the try after the one that notices it.
	if err := c.Delete(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	a.Do(t, http.MethodDelete, "/lab", nil, nil)
	if _, err := c.Push(t.Context(), ref(t, "lab/tool:2"), source(text[:500])); err == nil {
		t.Error("Push into a container that is gone")
	}
	push(t, c, "lab/tool:2", text[:500], "")
}
