// SPDX-License-Identifier: Apache-2.0

package hub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/hub"
	"github.com/sregfs/sregfs/backends/hub/hubtest"
)

// A remote is all that this backend can do.
type remote interface { //nolint:interfacebloat // only a sum of others
	backends.Backend
	backends.Lister
	backends.Searcher
	backends.NameChecker
	backends.Addressed
	io.Closer
}

// open opens the backend; cache is where it keeps the index.
func open(t *testing.T, config map[string]any, cache string, log *slog.Logger) remote {
	t.Helper()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	return openVia(t, hc, config, cache, log)
}

func openVia(t *testing.T, hc *http.Client, config map[string]any, cache string, log *slog.Logger) remote {
	t.Helper()
	b, err := hub.Open(t.Context(), backends.Env{Remote: "hub", Type: "hub", HTTP: hc, Config: config, Cache: cache, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.(remote).Close() })
	return b.(remote)
}

// newRemote opens the backend on an archive, without a place to keep the index.
func newRemote(t *testing.T, srv *hubtest.Server) remote {
	t.Helper()
	return open(t, srv.Config(), "", nil)
}

func ref(t *testing.T, s string) backends.Ref {
	t.Helper()
	r, err := backends.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func statted(t *testing.T, b backends.Backend, name string) backends.Image {
	t.Helper()
	img, err := b.Stat(t.Context(), ref(t, name))
	if err != nil {
		t.Fatalf("Stat(%s): %v", name, err)
	}
	return img
}

// everything walks the whole tree.
func everything(ctx context.Context, b remote) ([]string, error) {
	var all []string
	for org, err := range b.List(ctx, "") {
		if err != nil {
			return all, err
		}
		for e, err := range b.List(ctx, org.Collection) {
			if err != nil {
				return all, err
			}
			all = append(all, e.Image.Ref.String())
		}
	}
	slices.Sort(all)
	return all, nil
}

// recorded is an archive with records of the real one, without their files.
func recorded(t *testing.T, opts hubtest.Options) *hubtest.Server {
	t.Helper()
	text, err := os.ReadFile("testdata/images.json")
	if err != nil {
		t.Fatal(err)
	}
	srv := hubtest.Start(t, opts)
	srv.SetIndex(text)
	return srv
}

// What the records of the real archive become.
func TestStat_real(t *testing.T) {
	t.Parallel()
	srv := recorded(t, hubtest.Options{})
	b := newRemote(t, srv)
	type facts struct {
		Ref, Version, Digest, Format, Modified string
		Size                                   int64
		Labels                                 map[string]string
	}
	const sha = "fa2732802bc387604be7d093ee41f23fe4684f0887132c02908dffbed3f9172c"
	labels := func(branch, commit, license string) map[string]string {
		l := map[string]string{"branch": branch, "commit": commit}
		if license != "" {
			l["license"] = license
		}
		return l
	}
	for name, want := range map[string]facts{
		"vsoch/hello-world": {
			"vsoch/hello-world:latest", "104932c9ca80c0eb90ebf6a80b7d7400", "md5:104932c9ca80c0eb90ebf6a80b7d7400", "sif", "2021-04-19T23:13:56.202Z", 62652447,
			labels("master", "3bac21df631874e3cbb3f0cf6fc9af1898f4cc3d", "MIT"),
		},
		"powerPlant/sortmerna-srf:latest": {
			"powerPlant/sortmerna-srf:latest", sha, "sha256:" + sha, "sif", "2021-04-16T03:05:38.662Z", 58257408,
			labels("master", "ecd4c3dbbf67116694f5036cb35f891cc80038e2", ""),
		},
		// A compressed image: its version is the MD5 of what is in it. There is no
		// "latest", so the newest build is meant.
		"vsoch/singularity-hello-world": {
			"vsoch/singularity-hello-world:master", "7e5f47bb07de3da9105896c1b1a61ea7", "md5:49df81b55ddb2756e02960481e6982d4", "img.gz", "2021-04-04T00:03:12.943Z",
			51599774, labels("master", "54c13f6fad7d3365b43758d55f607fffc6dfc512", "MIT"),
		},
		"michael-tn/mpi-hello-world:1.2%2Fsingularity.ompi212": {
			"michael-tn/mpi-hello-world:1.2%2Fsingularity.ompi212", "885f99169e148dd83668546775f44e7b", "md5:885f99169e148dd83668546775f44e7b", "simg",
			"2017-10-20T18:53:21.553Z", 197201951, labels("master", "7f9c97a5f8c8597df3065cc9ad3c87770aaef9ea", ""),
		},
		// The hub had lost its version: null in the record.
		"BarquistLab/proQ_conventionalMouse_dataAnalysis:def": {
			"BarquistLab/proQ_conventionalMouse_dataAnalysis:def", "01943e6c02fa586b8a9cbdc0cbde77b2", "md5:01943e6c02fa586b8a9cbdc0cbde77b2", "sif",
			"2019-09-27T13:25:14.161Z", 0, nil,
		},
		// Three builds of one tag: the newest one, and an older one by its version.
		"satra/om-images:tensorflow-gpu": {
			"satra/om-images:tensorflow-gpu", "72ed4d748b1fa74c7bd37b3610fd5561", "md5:83c5ab6e0fc71af57c4f5c4873c7deae", "img.gz", "2021-04-15T00:55:59.621Z", 1548119608, nil,
		},
		"satra/om-images:tensorflow-gpu@md5:3060b98117aac23c2c267c2ab5abe396": {
			"satra/om-images:tensorflow-gpu", "3060b98117aac23c2c267c2ab5abe396", "md5:b8450e7e63dce0c046123c1c5c53b838", "img.gz", "2017-10-19T17:45:42.732Z", 1555052616, nil,
		},
		"satra/om-images:3060b98117aac23c2c267c2ab5abe396": {
			"satra/om-images:3060b98117aac23c2c267c2ab5abe396", "3060b98117aac23c2c267c2ab5abe396", "md5:b8450e7e63dce0c046123c1c5c53b838", "img.gz",
			"2017-10-19T17:45:42.732Z", 1555052616, nil,
		},
	} {
		img := statted(t, b, name)
		got := facts{img.Ref.String(), img.Version, img.Digest, img.Format, img.Modified.Format("2006-01-02T15:04:05.000Z"), img.Size, img.Labels}
		if want.Labels == nil {
			got.Labels = nil
		}
		if want.Size == 0 {
			got.Size = 0
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Stat(%s) (-want +got):\n%s", name, diff)
		}
	}
	// Two that differ by case alone are two.
	if a, b := statted(t, b, "JiaweiZhuang/Singularity_GCHP"), statted(t, b, "JiaweiZhuang/singularity_gchp"); a.Version == b.Version {
		t.Error("names that differ by case are one image")
	}
	for _, name := range []string{"vsoch/hello-world:nothing", "Vsoch/hello-world", "vsoch/hello-world@" + strings.Repeat("0", 32), "cokelaer/ngstools:fastqc"} {
		if img, err := b.Stat(t.Context(), ref(t, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat(%s) = %v, %v, want fs.ErrNotExist", name, img, err)
		}
	}
	if got := srv.Requests(); len(got) != 1 {
		t.Errorf("requests: %q, want the index alone", got)
	}
	all, err := everything(t.Context(), b)
	if err != nil || len(all) != 37 {
		t.Errorf("%d images listed, %v; want 37: %q", len(all), err, all)
	}
}

// The index must mean what the archive's own service means, whatever is asked
// for; and so must we by way of that service.
func TestStat_asTheService(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/answers.json")
	if err != nil {
		t.Fatal(err)
	}
	var answers []struct {
		Path   string
		Status int
		Body   struct{ Tag, Version, Image, Commit string }
	}
	if err := json.Unmarshal(text, &answers); err != nil {
		t.Fatal(err)
	}
	byIndex, byService := newRemote(t, recorded(t, hubtest.Options{})), newRemote(t, recorded(t, hubtest.Options{NoIndex: true}))
	compared := 0
	for _, a := range answers {
		path, ok := strings.CutPrefix(a.Path, "/container/")
		org, rest, slash := strings.Cut(path, "/")
		repo, tag, colon := strings.Cut(rest, ":")
		if !ok || !slash || colon && tag == "" || strings.Contains(repo, "/") || strings.Contains(path, "%") {
			continue // not what a client of ours asks for
		}
		r := backends.Ref{Collection: org, Name: repo, Tag: tag}
		if r.Tag == "" {
			r.Tag = "latest"
		}
		for way, b := range map[string]remote{"index": byIndex, "service": byService} {
			img, err := b.Stat(t.Context(), r)
			switch {
			case a.Status == http.StatusNotFound && strings.Contains(path, ":01943e6c"), strings.Contains(path, ":sha256:"):
				// Of the version that the hub had lost, and with the algorithm before it, we know more than the service.
			case a.Status == http.StatusNotFound && errors.Is(err, fs.ErrNotExist):
			case a.Status != http.StatusOK || err != nil:
				t.Errorf("%s, by the %s: %v, the service says %d", path, way, err, a.Status)
			case img.Labels["commit"] != a.Body.Commit || a.Body.Version != "" && img.Version != a.Body.Version || !strings.Contains(a.Body.Image, img.Version):
				t.Errorf("%s, by the %s: %s of %s, the service says %s of %s", path, way, img.Version, img.Labels["commit"], a.Body.Version, a.Body.Commit)
			}
			compared++
		}
	}
	if compared < 60 {
		t.Errorf("%d answers compared", compared)
	}
}

func TestOpen_settings(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]map[string]any{
		"no address":  {"url": "singularity-hub.org"},
		"other":       {"data": "ftp://example.org"},
		"password":    {"url": "https://me:secret@example.org"},
		"query":       {"index": "https://example.org/images.json?token=secret"},
		"unknown key": {"idnex": "https://example.org"},
	} {
		_, err := hub.Open(t.Context(), backends.Env{Remote: "hub", Type: "hub", HTTP: &http.Client{}, Config: config})
		if !errors.Is(err, fs.ErrInvalid) || strings.Contains(fmt.Sprint(err), "secret") {
			t.Errorf("%s: %v, want fs.ErrInvalid", name, err)
		}
	}
	if _, err := hub.Open(t.Context(), backends.Env{Remote: "hub", Type: "hub", HTTP: &http.Client{}}); err != nil {
		t.Errorf("no settings: %v", err)
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	b := open(t, nil, "", nil)
	for r, want := range map[backends.Ref]error{
		{Collection: "org", Name: "repo", Tag: "a/b:c"}:       nil,
		{Collection: "org", Name: "repo", Version: "md5:00"}:  nil,
		{Collection: "org/team", Name: "repo", Tag: "1"}:      fs.ErrInvalid,
		{Name: "repo", Tag: "1"}:                              fs.ErrInvalid,
		{Collection: "org", Name: "re:po", Tag: "1"}:          fs.ErrInvalid,
		{Collection: "org", Name: "repo", Tag: "../x"}:        fs.ErrInvalid,
		{Collection: "org", Name: "repo", Tag: "x//y"}:        fs.ErrInvalid,
		{Collection: "org", Name: "repo", Tag: "latest\x00x"}: fs.ErrInvalid,
	} {
		if err := b.CheckName(r); !errors.Is(err, want) {
			t.Errorf("CheckName(%+v) = %v, want %v", r, err, want)
		}
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	srv := recorded(t, hubtest.Options{})
	b := newRemote(t, srv)
	for query, want := range map[string][]string{
		"HELLO world vsoch": {"vsoch/hello-world:latest", "vsoch/singularity-hello-world:master"},
		"qualimap":          {"IARCbioinfo/Qualimap-nf:latest", "IARCbioinfo/qualimap-nf:latest"},
		"tensorflow":        {"satra/om-images:tensorflow-gpu"},
		"nothing":           nil,
	} {
		var got []string
		for img, err := range b.Search(t.Context(), query) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, img.Ref.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Search(%q) (-want +got):\n%s", query, diff)
		}
	}
	for _, err := range b.Search(t.Context(), " ") {
		if !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Search of nothing: %v", err)
		}
	}
	if got := srv.Requests(); len(got) != 1 {
		t.Errorf("requests: %q, want the index alone", got)
	}
}
