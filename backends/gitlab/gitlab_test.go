// SPDX-License-Identifier: Apache-2.0

package gitlab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/gitlab/gitlabtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func token(context.Context, bool) (string, error) { return gitlabtest.Token, nil }

func open(t *testing.T, srv *gitlabtest.Server, hc *http.Client, secret backends.SecretFunc) *client {
	t.Helper()
	b := backendtest.Open(t, backendtest.LoggedIn(Open, "", secret), hc, map[string]any{"url": srv.URL, "project": gitlabtest.Project})
	c, ok := b.(*client)
	if !ok {
		t.Fatal("Open gave another type")
	}
	return c
}

func serve(t *testing.T, opts gitlabtest.Options) (*gitlabtest.Server, *client) {
	t.Helper()
	srv := gitlabtest.Start(t, opts)
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	return srv, open(t, srv, hc, token)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]gitlabtest.Options{"by itself": {}, "object storage": {Redirect: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			openAs := func(t *testing.T, seed backendtest.Seed, hc *http.Client, secret backends.SecretFunc) backends.Backend {
				srv := gitlabtest.Start(t, opts)
				srv.Accept(gitlabtest.Token, "glpat-second")
				t.Cleanup(func() {
					if leaked := srv.Leaked(); len(leaked) != 0 {
						t.Errorf("the object storage was sent %q", leaked)
					}
				})
				c := open(t, srv, hc, secret)
				for _, img := range seed.Images {
					if c.CheckName(img.Ref) == nil {
						srv.Put(packageName(img.Ref), encode(img.Ref.Tag), encode(img.Ref.Name)+backends.Ext(img.Format), img.Content, img.Modified)
					}
				}
				return c
			}
			backendtest.Run(t, backendtest.Harness{
				Caps: backends.CanList | backends.CanPush | backends.CanDelete, KeepsFormat: true,
				Logins: [2]string{gitlabtest.Token, "glpat-second"}, OpenAs: openAs,
				Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
					return openAs(t, seed, hc, token)
				},
			})
		})
	}
}

func ref(t *testing.T, spec string) backends.Ref {
	t.Helper()
	r, err := backends.ParseRef(spec)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func source(text string) backends.Source {
	return backends.Source{Content: strings.NewReader(text), Size: int64(len(text)), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))), Format: backends.FormatSIF}
}

// What docs/backends/gitlab-packages.md says of requests.
func TestRequests(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gitlabtest.Options{})
	for i := range 10_000 {
		srv.Put(fmt.Sprintf("team+.tool%04d", i/10), fmt.Sprint(i%10), "tool.sif", nil, time.Unix(1, 0))
	}
	srv.Asked()
	check := func(what string, want int) {
		t.Helper()
		if n := srv.Asked(); n != want {
			t.Errorf("%s takes %d requests, want %d", what, n, want)
		}
	}
	all, err := backends.Collect(c.List(t.Context(), "team"))
	if err != nil || len(all) != 10_000 {
		t.Fatalf("%d images, %v", len(all), err)
	}
	check("a collection of 10,000 images", 100)
	if _, err := c.Stat(t.Context(), ref(t, "team/tool0001:3")); err != nil {
		t.Error(err)
	}
	check("an image by its name", 2)
	img, err := c.Push(t.Context(), ref(t, "team/new:1"), source("bytes"))
	if err != nil {
		t.Fatal(err)
	}
	check("a push of a new name", 5)
	body, err := c.Open(t.Context(), img, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	check("a range", 2)
	if err := c.Delete(t.Context(), img); err != nil {
		t.Error(err)
	}
	check("a removal", 3)
}

// Packages of others are found under their own names, with the newest of their images.
func TestOthers(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gitlabtest.Options{})
	at := time.Unix(1_000_000, 0)
	srv.Put("c++", "1.0.0", "first.sif", []byte("first"), at)
	srv.Put("c++", "1.0.0", "second.sif", []byte("second"), at)
	srv.Put("c++", "1.0.0", "readme.txt", []byte("hello"), at)
	srv.Put("binaries", "2", "tool.tar.xz", []byte("no image"), at)
	srv.Put("a+2Fb", "1+build.5", "x.simg", []byte("abc"), at)
	var names []string
	for e, err := range c.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, e.Image.Ref.String())
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"/a%2Fb:1+build.5", "/binaries:2", "/c++:1.0.0"}, names); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	img, err := c.Stat(t.Context(), backends.Ref{Name: "c++", Tag: "1.0.0"})
	if err != nil || img.Size != 6 {
		t.Fatalf("Stat = %v, %v", img, err)
	}
	if img, err := c.Stat(t.Context(), backends.Ref{Name: "a/b", Tag: "1+build.5"}); err != nil || img.Format != "simg" {
		t.Errorf("Stat = %v, %v", img, err)
	}
	if _, err := c.Stat(t.Context(), backends.Ref{Name: "binaries", Tag: "2"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of a package without an image: %v", err)
	}
	src := source("third")
	src.Replaces = img.Version
	if img, err = c.Push(t.Context(), img.Ref, src); err != nil {
		t.Fatal(err)
	}
	// What is no image stays, also when the image goes.
	if err := c.Delete(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	want := []string{"c++/1.0.0/readme.txt", "binaries/2/tool.tar.xz", "a+2Fb/1+build.5/x.simg"}
	if diff := cmp.Diff(want, srv.Files()); diff != "" {
		t.Errorf("the files (-want +got):\n%s", diff)
	}
}

// Of two that push a new name at the same moment one has it, and the other is told.
func TestPush_race(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gitlabtest.Options{})
	src := source("mine")
	src.Commit = func() error {
		srv.Put("lab+.tool", "1", "tool.sif", []byte("theirs"), time.Now())
		return nil
	}
	if img, err := c.Push(t.Context(), ref(t, "lab/tool:1"), src); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Push = %v, %v, want ErrExist", img, err)
	}
	img, err := c.Stat(t.Context(), ref(t, "lab/tool:1"))
	if err != nil || img.Size != int64(len("theirs")) || len(srv.Files()) != 1 {
		t.Errorf("the name means %v, %v; files: %q", img, err, srv.Files())
	}
	src = source("mine again")
	src.Replaces = img.Version
	src.Commit = func() error {
		srv.Put("lab+.tool", "1", "tool.sif", []byte("theirs again"), time.Now())
		return nil
	}
	if img, err := c.Push(t.Context(), ref(t, "lab/tool:1"), src); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("Push = %v, %v, want ErrChanged", img, err)
	}
	if now, err := c.Stat(t.Context(), ref(t, "lab/tool:1")); err != nil || now.Size != int64(len("theirs again")) {
		t.Errorf("the name means %v, %v", now, err)
	}
}

// A project that takes no second file of a name says so, and its image stays.
func TestPush_noDuplicates(t *testing.T) {
	t.Parallel()
	_, c := serve(t, gitlabtest.Options{NoDuplicates: true})
	img, err := c.Push(t.Context(), ref(t, "lab/tool:1"), source("first"))
	if err != nil {
		t.Fatal(err)
	}
	src := source("second")
	src.Replaces = img.Version
	if _, err := c.Push(t.Context(), img.Ref, src); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "duplicates") {
		t.Errorf("Push: %v, want ErrPermission with the setting", err)
	}
	if now, err := c.Stat(t.Context(), img.Ref); err != nil || now.Version != img.Version {
		t.Errorf("the name means %v, %v", now, err)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gitlabtest.Options{})
	if err := c.CheckLogin(t.Context()); err != nil {
		t.Error(err)
	}
	srv.Accept("glpat-other")
	if err := c.CheckLogin(t.Context()); !errors.Is(err, backends.ErrUnauthorized) {
		t.Errorf("CheckLogin with an old token: %v", err)
	}
	for text, config := range map[string]map[string]any{"project is required": {}, "setting \"x\"": {"project": "a/b", "x": 1}, "url": {"project": "a/b", "url": "ftp://x"}} {
		if b, err := Open(t.Context(), backends.Env{Remote: "r", Config: config}); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("Open(%v) = %v, %v", config, b, err)
		}
	}
}

// Whatever the parts of a name are: its package tells the name again, and is one that GitLab takes.
func FuzzName(f *testing.F) {
	for _, parts := range [][3]string{{"vsoch", "hello", "2.0"}, {"a/b", "c:d", "e@f"}, {"100%", "+41", "."}, {"", "a..b", "a/b"}, {"+.", "+", "..."}} {
		f.Add(parts[0], parts[1], parts[2])
	}
	f.Fuzz(func(t *testing.T, collection, name, tag string) {
		want := backends.Ref{Collection: collection, Name: name, Tag: tag}
		if want.Check() != nil || tag == "" || name == "" {
			return
		}
		p := pack{Name: packageName(want), Version: encode(tag)}
		got, ok := p.ref()
		if !ok || got != want {
			t.Errorf("%+v became %+v, which tells %+v, %v", want, p, got, ok)
		}
		if !published.MatchString(p.Name) || !published.MatchString(p.Version) || strings.HasSuffix(p.Version, ".") || strings.Contains(p.Version, "..") {
			t.Errorf("%+v became %+v, which GitLab does not take", want, p)
		}
	})
}

const script = `
import gitlab, hashlib, sys
gl = gitlab.Gitlab(sys.argv[1], private_token=sys.argv[2])
project = gl.projects.get(sys.argv[3])
if sys.argv[4] == "upload":
    project.generic_packages.upload("lab+.theirs", "1", "theirs.sif", sys.argv[5])
    sys.exit()
for p in project.packages.list(get_all=True, package_type="generic"):
    for f in p.package_files.list(get_all=True):
        data = project.generic_packages.download(p.name, p.version, f.file_name)
        print(p.name, p.version, f.file_name, f.size == len(data), f.file_sha256 == hashlib.sha256(data).hexdigest())
        if sys.argv[4] == "delete":
            f.delete()
    if sys.argv[4] == "delete":
        p.delete()
`

const python = "/usr/bin/python3" // Debian's, which has Debian's modules

func needPythonGitLab(t *testing.T) {
	t.Helper()
	if exec.CommandContext(t.Context(), python, "-c", "import gitlab").Run() == nil {
		return
	}
	if os.Getenv("SREGFS_NOSKIP") == "1" {
		t.Fatal("python3-gitlab is not installed and SREGFS_NOSKIP=1 allows no skip")
	}
	t.Skip("python3-gitlab is not installed")
}

// GitLab's own client for Python reads from the stand-in what is pushed here, and the other way round.
func TestPythonGitLab(t *testing.T) {
	t.Parallel()
	needPythonGitLab(t)
	srv, c := serve(t, gitlabtest.Options{Redirect: true})
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), python, append([]string{"-c", script, srv.URL, gitlabtest.Token, gitlabtest.Project}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("python-gitlab %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if _, err := c.Push(t.Context(), ref(t, "lab/ours:1"), source("ours")); err != nil {
		t.Fatal(err)
	}
	theirs := t.TempDir() + "/theirs.sif"
	if err := os.WriteFile(theirs, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("upload", theirs)
	img, err := c.Stat(t.Context(), ref(t, "lab/theirs:1"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := c.Open(t.Context(), img, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if text, err := io.ReadAll(body); err != nil || !bytes.Equal(text, []byte("theirs")) {
		t.Errorf("read %q, %v", text, err)
	}
	want := "lab+.ours 1 ours.sif True True\nlab+.theirs 1 theirs.sif True True\n"
	if out := run("list"); out != want {
		t.Errorf("python-gitlab lists:\n%s\nwant\n%s", out, want)
	}
	run("delete")
	if files := srv.Files(); len(files) != 0 {
		t.Errorf("left: %q", files)
	}
}
