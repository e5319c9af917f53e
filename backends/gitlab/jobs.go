// SPDX-License-Identifier: Apache-2.0

package gitlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

var (
	_ backends.Backend      = (*jobs)(nil)
	_ backends.Lister       = (*jobs)(nil)
	_ backends.NameChecker  = (*jobs)(nil)
	_ backends.Addressed    = (*jobs)(nil)
	_ backends.Knocker      = (*jobs)(nil)
	_ backends.LoginChecker = (*jobs)(nil)
)

// JobsConfig is the [remotes.NAME] table of the configuration file for type = "gitlab-jobs".
type JobsConfig struct {
	URL      string   `toml:"url"`      // of GitLab; default https://gitlab.com
	Projects []string `toml:"projects"` // that the root shows
	Folder   string   `toml:"folder"`   // of the images in what jobs leave; default "build"
}

// A jobs is the files that CI jobs have left, as the sregistry client reads them, to read:
//
//	<project>/<number of the job>:latest   <folder>/Singularity.simg
//	<project>/<number of the job>:<tag>    <folder>/Singularity.<tag>.simg
//
// That client's own name for it, "<number>,<project>[,<name of the job>]", means the same. GitLab takes
// a file out of the job's archive while it sends it: the size is known then, and there are no parts.
type jobs struct {
	*api
	projects []string
	folder   string
}

// JobsType is the backend in the table of backends/all.
var JobsType = backends.Type{Name: "gitlab-jobs", Open: OpenJobs}

// OpenJobs is the opener.
//
// Errors: fs.ErrInvalid for settings that cannot be.
func OpenJobs(_ context.Context, env backends.Env) (backends.Backend, error) {
	cfg := JobsConfig{URL: "https://" + gitlabCom, Folder: "build"}
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	a, err := newAPI(cfg.URL, env)
	if err != nil {
		return nil, err
	}
	for i, project := range cfg.Projects {
		if cfg.Projects[i] = strings.Trim(project, "/"); !strings.Contains(cfg.Projects[i], "/") {
			return nil, fmt.Errorf("%w: remote %s: projects: %q (want \"group/project\")", fs.ErrInvalid, env.Remote, project)
		}
	}
	return &jobs{api: a, projects: cfg.Projects, folder: strings.Trim(cfg.Folder, "/")}, nil
}

// CheckLogin implements backends.LoginChecker.
func (j *jobs) CheckLogin(ctx context.Context) error {
	if j.secret == nil {
		return nil // what is public is shown to everybody
	}
	resp, err := j.do(ctx, http.MethodGet, "user", nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// job returns ref with the project as its collection, and the number of a job as its name.
//
// Errors: fs.ErrInvalid for what is neither that nor sregistry's name for it.
func job(ref backends.Ref) (backends.Ref, error) {
	whole := ref.Collection + "/" + ref.Name
	if id, rest, old := strings.Cut(whole, ","); old {
		ref.Name = id
		ref.Collection, _, _ = strings.Cut(rest, ",")
	}
	isNumber := ref.Name != "" && !strings.ContainsFunc(ref.Name, func(r rune) bool { return r < '0' || r > '9' })
	if !isNumber || !strings.Contains(strings.Trim(ref.Collection, "/"), "/") {
		return ref, fmt.Errorf("%w: a file of a job is GROUP/PROJECT/JOB, with the number of the job", fs.ErrInvalid)
	}
	return ref, nil
}

// CheckName implements backends.NameChecker.
func (j *jobs) CheckName(ref backends.Ref) error {
	_, err := job(ref)
	return err
}

// versionOf is the version of what a job has left, which does not change.
func versionOf(ref backends.Ref) string { return "job:" + ref.Name }

// path is where the file of a job is in the API.
func (j *jobs) path(ref backends.Ref) string {
	name := "Singularity." + ref.Tag + ".simg"
	if ref.Tag == backends.DefaultTag {
		name = "Singularity.simg"
	}
	path := "projects/" + url.PathEscape(ref.Collection) + "/jobs/" + ref.Name + "/artifacts"
	for part := range strings.SplitSeq(j.folder+"/"+name, "/") {
		if part != "" {
			path += "/" + url.PathEscape(part)
		}
	}
	return path
}

// A jobInfo is a job of the Jobs API.
type jobInfo struct {
	ID       int64     `json:"id"`
	Finished time.Time `json:"finished_at"`
	Archive  *struct {
		Size int64 `json:"size"`
	} `json:"artifacts_file"`
}

func (i jobInfo) image(ref backends.Ref) backends.Image {
	ref.Version = ""
	return backends.Image{Ref: ref, Size: -1, Modified: i.Finished.Truncate(time.Second), Format: backends.FormatSIMG}
}

// Stat implements backends.Backend: it asks for the job, and for the file, of which it
// reads nothing.
func (j *jobs) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	ref, err := job(ref)
	if err != nil {
		return backends.Image{}, err
	}
	if ref.Version != "" && ref.Version != versionOf(ref) {
		return backends.Image{}, backends.NotFound("no such version")
	}
	resp, err := j.do(ctx, http.MethodGet, "projects/"+url.PathEscape(ref.Collection)+"/jobs/"+ref.Name, nil, nil)
	if err != nil {
		return backends.Image{}, err
	}
	defer resp.Body.Close()
	var info jobInfo
	if err := httpx.JSON(resp.Body, &info); err != nil {
		return backends.Image{}, err
	}
	if fmt.Sprint(info.ID) != ref.Name {
		return backends.Image{}, fmt.Errorf("%w: job %d for job %s", backends.ErrBadAnswer, info.ID, ref.Name)
	}
	body, err := j.get(ctx, ref)
	if err != nil {
		return backends.Image{}, err
	}
	body.Close()
	img := info.image(ref)
	img.Version = versionOf(ref)
	return img, nil
}

func (j *jobs) get(ctx context.Context, ref backends.Ref) (io.ReadCloser, error) {
	resp, err := j.do(ctx, http.MethodGet, j.path(ref), nil, func(req *http.Request) error {
		req.Header.Set("Accept-Encoding", "identity")
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := ranged.Unfit(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp.Body, nil
}

// Open implements backends.Backend, from the beginning only.
func (j *jobs) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	ref, err := job(img.Ref)
	switch {
	case err != nil:
		return nil, err
	case off < 0:
		return nil, fmt.Errorf("%w: negative offset", fs.ErrInvalid)
	case n == 0:
		return http.NoBody, nil
	case off > 0:
		return nil, fmt.Errorf("%w: GitLab sends files of jobs as a whole", errors.ErrUnsupported)
	case img.Version != versionOf(ref):
		return nil, backends.ErrChanged
	}
	body, err := j.get(ctx, ref)
	if err != nil || n < 0 {
		return body, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(body, n), body}, nil
}

// List implements backends.Lister: the configured projects, and of each project the jobs that have
// succeeded and left files. Whether an image is among them, only Stat looks at.
//
// Errors: those of backends.Lister.
func (j *jobs) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		below, prefix := []string{}, ""
		if collection != "" {
			prefix = collection + "/"
		}
		for _, project := range j.projects {
			if rest, ok := strings.CutPrefix(project, prefix); ok {
				child, _, _ := strings.Cut(rest, "/")
				below = append(below, prefix+child)
			}
		}
		slices.Sort(below)
		below = slices.Compact(below)
		for _, child := range below {
			if !yield(backends.Entry{Collection: child}, nil) {
				return
			}
		}
		switch {
		case strings.Contains(collection, "/") && (len(below) == 0 || slices.Contains(j.projects, collection)):
			j.listProject(ctx, collection, yield)
		case len(below) == 0:
			yield(backends.Entry{}, fmt.Errorf("%w: the projects here are not listed (set projects)", errors.ErrUnsupported))
		}
	}
}

func (j *jobs) listProject(ctx context.Context, project string, yield func(backends.Entry, error) bool) {
	for info, err := range pages[jobInfo](ctx, j.api, "projects/"+url.PathEscape(project)+"/jobs", url.Values{"scope[]": {"success"}}) {
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		if info.Archive == nil || info.ID <= 0 {
			continue
		}
		ref := backends.Ref{Collection: project, Name: fmt.Sprint(info.ID), Tag: backends.DefaultTag}
		if !yield(backends.Entry{Image: info.image(ref)}, nil) {
			return
		}
	}
}
