// SPDX-License-Identifier: Apache-2.0

package gitlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/gitlab/gitlabtest"
)

// serveJobs starts a server and opens the backend on it. The conformance suite cannot be run: the
// names are numbers that GitLab gives.
func serveJobs(t *testing.T, config map[string]any, secret backends.SecretFunc) (*gitlabtest.Server, *backends.Client) {
	t.Helper()
	srv := gitlabtest.Start(t, gitlabtest.Options{})
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	all := map[string]any{"url": srv.URL}
	for name, value := range config {
		all[name] = value
	}
	b := backendtest.Open(t, backendtest.LoggedIn(OpenJobs, "", secret), hc, all)
	return srv, backends.NewClient("r", b, backends.ClientOptions{})
}

// What the sregistry client reads by its names is read here.
func TestJobs_read(t *testing.T) {
	t.Parallel()
	srv, c := serveJobs(t, nil, token)
	at := time.Unix(1_700_000_000, 0).UTC()
	id := srv.Job(map[string][]byte{"build/Singularity.simg": []byte("latest"), "build/Singularity.dev.simg": []byte("dev")}, at)
	other := srv.Job(map[string][]byte{"report.xml": []byte("<x>")}, at)
	number := fmt.Sprint(id)
	for spec, want := range map[backends.Ref]string{
		{Collection: gitlabtest.Project, Name: number, Tag: "latest"}:                                "latest",
		{Collection: gitlabtest.Project, Name: number, Tag: "dev"}:                                   "dev",
		{Collection: number + ",lab", Name: "images", Tag: "latest"}:                                 "latest",
		{Collection: number + ",lab", Name: "images,build", Tag: "latest", Version: "job:" + number}: "latest",
	} {
		img, err := c.Stat(t.Context(), spec)
		if err != nil || img.Size != -1 || img.Format != "simg" || !img.Modified.Equal(at) || img.Ref.Collection != gitlabtest.Project || img.Ref.Name != number {
			t.Errorf("Stat(%s) = %+v, %v", spec, img, err)
			continue
		}
		body, err := c.Open(t.Context(), img, 0, -1)
		if err != nil {
			t.Errorf("Open(%s): %v", spec, err)
			continue
		}
		text, err := io.ReadAll(body)
		body.Close()
		if string(text) != want || err != nil {
			t.Errorf("Open(%s) gives %q, %v, want %q", spec, text, err, want)
		}
		if body, err := c.Open(t.Context(), img, 1, 2); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Open of a part: %v, %v", body, err)
		}
	}
	for name, want := range map[string]error{
		"lab/images/" + number + ":other": fs.ErrNotExist, fmt.Sprintf("lab/images/%d", other): fs.ErrNotExist, "lab/images/999": fs.ErrNotExist,
		"lab/secret/1": fs.ErrNotExist, "lab/images/x": fs.ErrInvalid, "images/5": fs.ErrInvalid,
	} {
		if img, err := c.Stat(t.Context(), ref(t, name)); !errors.Is(err, want) {
			t.Errorf("Stat(%s) = %v, %v, want %v", name, img, err, want)
		}
	}
}

func TestJobs_list(t *testing.T) {
	t.Parallel()
	srv, c := serveJobs(t, map[string]any{"projects": []string{gitlabtest.Project, "lab/sub/other"}}, token)
	at := time.Unix(1_700_000_000, 0)
	srv.Job(nil, at)
	id := srv.Job(map[string][]byte{"build/Singularity.simg": []byte("latest")}, at)
	for collection, want := range map[string][]string{
		"": {"lab/"}, "lab": {"lab/images/", "lab/sub/"}, "lab/sub": {"lab/sub/other/"}, gitlabtest.Project: {fmt.Sprintf("lab/images/%d:latest", id)},
	} {
		var got []string
		for e, err := range c.List(t.Context(), collection) {
			switch {
			case err != nil:
				t.Fatalf("List(%q): %v", collection, err)
			case e.Collection != "":
				got = append(got, e.Collection+"/")
			default:
				got = append(got, e.Image.Ref.String())
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("List(%q) (-want +got):\n%s", collection, diff)
		}
	}
	if _, err := backends.Collect(c.List(t.Context(), "lab/secret")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("List of a project that is not there: %v", err)
	}
}

func TestJobs_login(t *testing.T) {
	t.Parallel()
	_, c := serveJobs(t, nil, func(context.Context, bool) (string, error) { return "glpat-wrong", nil })
	if _, err := c.Stat(t.Context(), ref(t, "lab/images/1")); !errors.Is(err, backends.ErrUnauthorized) {
		t.Errorf("Stat with a wrong token: %v", err)
	}
	if _, err := backends.Collect(c.List(t.Context(), "")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("List without projects: %v", err)
	}
	env := backends.Env{Remote: "r", HTTP: &http.Client{}, Config: map[string]any{"projects": []string{"lab"}}}
	if b, err := OpenJobs(t.Context(), env); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("OpenJobs of a project without a group = %v, %v", b, err)
	}
}

const jobScript = `
import gitlab, sys
project = gitlab.Gitlab(sys.argv[1], private_token=sys.argv[2]).projects.get(sys.argv[3])
for job in project.jobs.list(get_all=True, scope="success"):
    print(job.id, job.artifacts_file["filename"], project.jobs.get(job.id).artifact("build/Singularity.simg").decode())
`

// GitLab's own client for Python reads the same jobs from the stand-in.
func TestJobs_pythonGitLab(t *testing.T) {
	t.Parallel()
	needPythonGitLab(t)
	srv, _ := serveJobs(t, nil, token)
	id := srv.Job(map[string][]byte{"build/Singularity.simg": []byte("image")}, time.Unix(1_700_000_000, 0))
	out, err := exec.CommandContext(t.Context(), python, "-c", jobScript, srv.URL, gitlabtest.Token, gitlabtest.Project).CombinedOutput()
	if want := fmt.Sprintf("%d artifacts.zip image\n", id); err != nil || string(out) != want {
		t.Errorf("python-gitlab: %v, %s, want %s", err, out, want)
	}
}
