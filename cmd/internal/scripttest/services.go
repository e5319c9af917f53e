// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sregfs/sregfs/backends/drive/drivetest"
	"github.com/sregfs/sregfs/backends/dropbox/dropboxtest"
	"github.com/sregfs/sregfs/backends/gcs/gcstest"
	"github.com/sregfs/sregfs/backends/gitlab/gitlabtest"
	"github.com/sregfs/sregfs/backends/globus/globustest"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/s3/s3test"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
	"github.com/sregfs/sregfs/backends/swift/swifttest"
)

func (s *script) startRegistry(ts *testscript.TestScript, _ bool, args []string) {
	opts := ocitest.Options{Delete: slices.Contains(args, "delete")}
	if slices.Contains(args, "login") {
		opts.User, opts.Password = "me", "hunter2"
	}
	s.registry = ocitest.Start(s.t, opts)
	ts.Setenv("REGISTRY", s.registry.URL)
}

func (s *script) startInternet(ts *testscript.TestScript, _ bool, hosts []string) {
	s.internet = ocitest.StartInternet(s.t)
	for _, host := range hosts {
		s.internet.ServeRegistry(host, s.registry)
	}
	for _, text := range s.internet.Env() {
		name, value, _ := strings.Cut(text, "=")
		ts.Setenv(name, value)
	}
}

func (s *script) pushContainer(ts *testscript.TestScript, _ bool, args []string) {
	switch img := ocitest.NewImage(s.t, true); {
	case len(args) == 2:
		s.registry.PushImage(args[0], args[1], img)
	case len(args) == 3 && args[2] == "long":
		s.registry.PushImage(args[0], args[1], img.WithLayer(s.t, ocitest.LongLayer(s.t)))
	case len(args) == 3:
		s.registry.PushIndex(args[0], args[1], args[2], img)
	default:
		ts.Fatalf("usage: registry-image REPO TAG [ARCH|long]")
	}
}

func (s *script) startDropbox(ts *testscript.TestScript, _ bool, _ []string) {
	s.dropbox = dropboxtest.Start(s.t, dropboxtest.Options{})
	ts.Setenv("DROPBOX", s.dropbox.URL)
	ts.Setenv("DROPBOX_TOKEN", dropboxtest.Token)
}

func (s *script) startGCS(ts *testscript.TestScript, _ bool, _ []string) {
	s.gcs = gcstest.Start(s.t, gcstest.Options{Versioned: true})
	file := filepath.Join(s.t.TempDir(), "account.json")
	ts.Check(os.WriteFile(file, s.gcs.Account(), 0o600))
	ts.Setenv("GCS", s.gcs.URL)
	ts.Setenv("GCS_ACCOUNT", file)
	ts.Setenv("GCS_TOKEN", gcstest.Token)
}

func (s *script) startS3(ts *testscript.TestScript, _ bool, _ []string) {
	s.s3 = s3test.Start(s.t)
	ts.Setenv("S3", s.s3.URL)
	ts.Setenv("S3_BUCKET", s.s3.Bucket(s.t, true))
	ts.Setenv("S3_ACCESS", s3test.AccessKey)
	ts.Setenv("S3_SECRET", s3test.SecretKey)
}

func (s *script) startGlobus(ts *testscript.TestScript, _ bool, _ []string) {
	s.globus = globustest.Start(s.t, globustest.Options{})
	ts.Setenv("GLOBUS", s.globus.URL)
	ts.Setenv("GLOBUS_ID", s.globus.Add(globustest.Collection{Name: "lab"}))
	s.globus.Add(globustest.Collection{Name: "lab of others", Others: true})
	s.globus.Add(globustest.Collection{Name: "laptop", NoHTTPS: true})
	ts.Setenv("GLOBUS_APP", globustest.App)
	ts.Setenv("GLOBUS_SECRET", globustest.Secret)
}

func (s *script) putGlobus(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: globus-put FILE PATH")
	}
	s.globus.Put(ts.Getenv("GLOBUS_ID"), args[1], []byte(ts.ReadFile(args[0])), time.Now())
}

func (s *script) startDrive(ts *testscript.TestScript, _ bool, _ []string) {
	s.drive = drivetest.Start(s.t, drivetest.Options{})
	ts.Setenv("DRIVE", s.drive.URL)
	ts.Setenv("DRIVE_TOKEN", drivetest.Token)
}

func (s *script) startSregistry(ts *testscript.TestScript, _ bool, _ []string) {
	server := sregistrytest.Start(s.t, sregistrytest.Options{})
	server.AddCollection("vsoch", sregistrytest.User, false) // public: only such are listed
	ts.Setenv("SREGISTRY", server.URL)
	ts.Setenv("SREGISTRY_USER", sregistrytest.User)
	ts.Setenv("SREGISTRY_TOKEN", sregistrytest.Token)
}

func (s *script) startSwift(ts *testscript.TestScript, _ bool, _ []string) {
	s.swift = swifttest.Start(s.t)
	a := s.swift.Account()
	ts.Setenv("SWIFT", a.Auth)
	ts.Setenv("SWIFT_USER", a.User)
	ts.Setenv("SWIFT_STORAGE", a.Storage)
	ts.Setenv("SWIFT_TOKEN", s.swift.Token(s.t, a.User))
	a.Do(s.t, http.MethodPost, "", http.Header{"X-Account-Meta-Temp-Url-Key": {"secret"}}, nil)
}

func (s *script) expireSwift(ts *testscript.TestScript, _ bool, _ []string) {
	s.swift.Forget(s.t)
	ts.Setenv("SWIFT_TOKEN", s.swift.Token(s.t, ts.Getenv("SWIFT_USER")))
}

func (s *script) startGitLab(ts *testscript.TestScript, _ bool, _ []string) {
	s.gitlab = gitlabtest.Start(s.t, gitlabtest.Options{Redirect: true})
	ts.Setenv("GITLAB", s.gitlab.URL)
	ts.Setenv("GITLAB_PROJECT", gitlabtest.Project)
	ts.Setenv("GITLAB_TOKEN", gitlabtest.Token)
	image, err := os.ReadFile(s.image)
	ts.Check(err)
	ts.Setenv("GITLAB_JOB", fmt.Sprint(s.gitlab.Job(map[string][]byte{"build/Singularity.simg": image}, time.Unix(1_700_000_000, 0))))
}
