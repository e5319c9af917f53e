// SPDX-License-Identifier: Apache-2.0

// Package scripttest runs the scripts in testdata/script of the two commands:
// what a user would type, with what must come out. The scripts are documentation
// too. See testscript for their language; this package adds
//
//	exits CODE PROGRAM ARGS…   run it; its exit code must be CODE
//	runs URI                   "sreg run" it; what is run must have the bytes of $IMAGE
//	registry [delete] [login]  start a registry; $REGISTRY is its URL. With login
//	                           it wants the user "me" and the password "hunter2"; with log
//	                           $WEB_LOG has its requests, with json its index is JSON
//	registry-image REPO TAG [ARCH|long]
//	                           push a container image there, as docker does; with ARCH
//	                           in an index, as the one for that architecture; with
//	                           long its first layer has more than it says
//	internet HOST[:PORT]…      let the registry be found at these hosts, through a proxy,
//	                           by the programs that follow
//	internet-web HOST...       let the web server be found at these hosts there
//	registry-refuse            let it answer 403 to everything but reading
//	registry-deny              let it answer 401 to everything
//	registry-heal              let it answer again
//	registry-stop              let it answer 502 to everything
//	registry-hold              let it stop in the middle of every download
//	registry-held              wait until one has stopped
//	registry-go                let them go on
//	dropbox                    start a Dropbox; $DROPBOX is its URL, $DROPBOX_TOKEN a
//	                           token for it
//	dropbox-expire             let it take no token that it gave out
//	dropbox-accept TOKEN       let it take this one
//	gcs                        start a Google Storage with the bucket "images", which keeps
//	                           versions; $GCS is its URL, $GCS_ACCOUNT the file of a
//	                           service account, $GCS_TOKEN an access token
//	gcs-expire                 let it take no login that it took
//	gcs-accept TOKEN           let it take this one
//	s3                         start an S3 server with a bucket; $S3 is its URL, $S3_BUCKET
//	                           the bucket, $S3_ACCESS and $S3_SECRET the login
//	s3-begin BUCKET KEY        begin an upload to it that nobody ends
//	s3-expire                  let it say that the login has expired
//	s3-accept                  let it take the login again
//	globus                     start a Globus with three collections: $GLOBUS is its URL,
//	                           $GLOBUS_ID one with HTTPS, $GLOBUS_APP and $GLOBUS_SECRET
//	                           log in; "others" is one of somebody else, "laptop" has
//	                           no HTTPS
//	globus-expire              let it take no token that it gave out, and no secret
//	globus-accept SECRET       let it take this one
//	globus-put FILE PATH       put a file into the collection $GLOBUS_ID
//	drive                      start a Google Drive; $DRIVE is its URL, $DRIVE_TOKEN a
//	                           token for it
//	drive-expire               let it take no token that it gave out
//	drive-accept TOKEN         let it take this one
//	gitlab                     start a GitLab; $GITLAB is its URL, $GITLAB_PROJECT a project and
//	                           $GITLAB_TOKEN a token for it, $GITLAB_JOB a job that has left an image
//	gitlab-accept TOKEN        let it take this one, and no other
//	sregistry                  start a Singularity Registry Server; $SREGISTRY is its
//	                           URL, $SREGISTRY_USER and $SREGISTRY_TOKEN log in
//	swift                      start an OpenStack Swift; $SWIFT is where to log in to an account
//	                           as $SWIFT_USER with the password "hunter2", $SWIFT_STORAGE its
//	                           address, $SWIFT_TOKEN a token for that
//	swift-expire               let it take no token that it gave out; $SWIFT_TOKEN is a new one
//	web [dav] [login] [log] [json]   start a web server; $WEB is its URL, $WEB_ROOT the
//	                           directory that it shows. With login it wants the
//	                           user "me" and the password "hunter2"; with log
//	                           $WEB_LOG has its requests, with json its index is JSON
//	web-expire                 let it take no password that it took
//	web-accept PASSWORD        let it take this one
//	hub                        start an archive of Singularity Hub; $HUB is the URL of its
//	                           service, $HUB_DATA of its files; $HUB_OLDER is the
//	                           version of an older build of vsoch/hello-world
//	hub-refuse                 let it answer 403 to everything
//	hub-stop                   let it answer 502 to everything
//	library                    start a Sylabs library; $LIBRARY is its URL, $LIBRARY_TOKEN
//	                           a token for it
//	library-expire             let it take no token that it gave out
//	library-accept TOKEN       let it take this one
//	service TYPE               start what a remote of this type has to do with: a
//	                           registry with its login, and its API; $REGISTRY and
//	                           $API are their URLs, $SERVICE_USER and the password
//	                           "hunter2" log in
//	service-expire             let it take no token that it gave out for a login
//	service-limit N            let it allow N pulls more, or requests to its API
//	ecr-token [unknown]        let ECR take another token only, which the credential
//	                           helper has, unless it is to stay unknown to it
//	ecr-create REPOSITORY      make a repository, as "aws ecr create-repository"
//	keyserver [other] FILE…    start a key server with the keys of the files; $KEYSERVER is
//	                           its URL. With other it has them for every question
//	new-key FILE               write the public key of somebody unknown
//	notify-socket              be systemd for the programs that follow
//	notified TEXT              wait until one has told it TEXT
//	impostor                   hold the state directory, and answer sreg with nonsense
//	busy                       hold the state directory, as another sreg would
//	free                       end impostor and busy
//	ended                      wait until nobody holds the state directory
//	crash                      kill -9 whoever holds it
//	hangup                     send SIGHUP to whoever holds it
//	terminate                  send SIGTERM to whoever holds it
//
// and the conditions [fuse] and [root]. In each script $IMAGE is a whole SIF file of 2 MB, $SIGNER
// the public key of who has signed it,
// the state, the cache and the local store are in $WORK, and there is no
// configuration. /etc/sregfs and the like are below $ROOT. Mounts that a script leaves are taken away.
package scripttest

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sregfs/sregfs/backends/drive/drivetest"
	"github.com/sregfs/sregfs/backends/dropbox/dropboxtest"
	"github.com/sregfs/sregfs/backends/gcs/gcstest"
	"github.com/sregfs/sregfs/backends/gitlab/gitlabtest"
	"github.com/sregfs/sregfs/backends/globus/globustest"
	"github.com/sregfs/sregfs/backends/http/webtest"
	"github.com/sregfs/sregfs/backends/hub/hubtest"
	"github.com/sregfs/sregfs/backends/library/librarytest"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/s3/s3test"
	"github.com/sregfs/sregfs/backends/swift/swifttest"
	"github.com/sregfs/sregfs/cmd/internal/sreg"
	"github.com/sregfs/sregfs/cmd/internal/sregfs"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
)

// Main is the TestMain of a package with scripts: it makes the two programs
// available to them.
func Main(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sreg":         func() { os.Exit(sreg.MainIn(os.Getenv("ROOT"))) },
		"sregfs":       func() { os.Exit(sregfs.MainIn(os.Getenv("ROOT"))) },
		"mount.sregfs": func() { os.Exit(sregfs.MainIn(os.Getenv("ROOT"))) },
	})
}

// Run runs testdata/script/*.txtar. image is the SIF file for $IMAGE.
func Run(t *testing.T, image string) {
	image, err := filepath.Abs(image)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			s := &script{t: t, image: image}
			testscript.Run(t, s.params(file))
		})
	}
}

// A script is one run of one file.
type script struct {
	t        *testing.T
	image    string
	registry *ocitest.Registry
	dropbox  *dropboxtest.Server
	drive    *drivetest.Server
	gcs      *gcstest.Server
	s3       *s3test.Server
	gitlab   *gitlabtest.Server
	swift    *swifttest.Server
	globus   *globustest.Server
	web      *webtest.Server
	internet *ocitest.Internet
	hub      *hubtest.Server
	library  *librarytest.Server
	service  service
	hold     *hold
	free     func()
	systemd  *net.UnixConn
}

func (s *script) params(file string) testscript.Params {
	return testscript.Params{
		Files:               []string{file},
		Setup:               s.setup,
		Condition:           s.condition,
		RequireExplicitExec: true,
		Cmds:                s.commands(),
	}
}

func (s *script) commands() map[string]func(*testscript.TestScript, bool, []string) {
	all := map[string]func(*testscript.TestScript, bool, []string){
		"exits":           exits,
		"runs":            runs,
		"registry":        s.startRegistry,
		"registry-image":  s.pushContainer,
		"internet":        s.startInternet,
		"internet-web":    s.serveWeb,
		"registry-refuse": func(*testscript.TestScript, bool, []string) { s.registry.Use(refuse) },
		"registry-deny":   func(*testscript.TestScript, bool, []string) { s.registry.Use(deny) },
		"registry-heal":   func(*testscript.TestScript, bool, []string) { s.registry.Heal() },
		"registry-stop":   func(*testscript.TestScript, bool, []string) { s.registry.Stop() },
		"registry-hold":   s.holdRegistry,
		"registry-held":   s.awaitHeld,
		"registry-go":     s.releaseRegistry,
		"client-db":       clientDB,
		"service":         s.startService,
		"service-expire":  s.expireService,
		"service-limit":   s.limitService,
		"ecr-token":       s.renewToken,
		"ecr-create":      func(_ *testscript.TestScript, _ bool, args []string) { s.service.ecr.Create(args[0]) },
		"keyserver":       s.startKeyServer,
		"new-key":         newKey,
		"notify-socket":   s.notifySocket,
		"notified":        s.notified,
		"impostor":        s.impostor,
		"busy":            s.busy,
		"free":            func(*testscript.TestScript, bool, []string) { s.free() },
		"ended":           ended,
		"crash":           func(ts *testscript.TestScript, _ bool, _ []string) { signalHolder(ts, syscall.SIGKILL) },
		"hangup":          func(ts *testscript.TestScript, _ bool, _ []string) { signalHolder(ts, syscall.SIGHUP) },
		"terminate":       func(ts *testscript.TestScript, _ bool, _ []string) { signalHolder(ts, syscall.SIGTERM) },
	}
	maps.Copy(all, s.serviceCommands())
	return all
}

// serviceCommands are those that begin with the name of a service of one kind.
func (s *script) serviceCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"dropbox":        s.startDropbox,
		"dropbox-expire": func(*testscript.TestScript, bool, []string) { s.dropbox.Expire() },
		"dropbox-accept": func(_ *testscript.TestScript, _ bool, args []string) { s.dropbox.Accept(args[0]) },
		"gcs":            s.startGCS,
		"gcs-expire":     func(*testscript.TestScript, bool, []string) { s.gcs.Expire() },
		"gcs-accept":     func(_ *testscript.TestScript, _ bool, args []string) { s.gcs.Accept(args[0]) },
		"s3":             s.startS3,
		"s3-begin":       func(_ *testscript.TestScript, _ bool, args []string) { s.s3.Begin(s.t, args[0], args[1]) },
		"s3-expire":      func(*testscript.TestScript, bool, []string) { s.s3.Refuse(400, "ExpiredToken", "") },
		"s3-accept":      func(*testscript.TestScript, bool, []string) { s.s3.Fail(nil) },
		"globus":         s.startGlobus,
		"globus-expire":  func(*testscript.TestScript, bool, []string) { s.globus.Expire() },
		"globus-accept":  func(_ *testscript.TestScript, _ bool, args []string) { s.globus.Accept(args[0]) },
		"globus-put":     s.putGlobus,
		"drive":          s.startDrive,
		"drive-expire":   func(*testscript.TestScript, bool, []string) { s.drive.Expire() },
		"drive-accept":   func(_ *testscript.TestScript, _ bool, args []string) { s.drive.Accept(args[0]) },
		"gitlab":         s.startGitLab,
		"gitlab-accept":  func(_ *testscript.TestScript, _ bool, args []string) { s.gitlab.Accept(args[0]) },
		"sregistry":      s.startSregistry,
		"swift":          s.startSwift,
		"swift-expire":   s.expireSwift,
		"web":            s.startWeb,
		"web-expire":     s.webExpire,
		"web-accept":     s.webAccept,
		"hub":            s.startHub,
		"hub-refuse":     s.refuseHub,
		"hub-stop":       s.stopHub,
		"library":        s.startLibrary,
		"library-expire": func(*testscript.TestScript, bool, []string) { s.library.SetTokens() },
		"library-accept": func(_ *testscript.TestScript, _ bool, args []string) { s.library.SetTokens(args...) },
	}
}

func (s *script) setup(env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, "home")
	mnt := filepath.Join(env.WorkDir, "mnt")
	for _, dir := range []string{home, mnt} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	env.Vars = append(env.Vars,
		"HOME="+home, "IMAGE="+s.image, "SIGNER="+signer(s.image), "MNT="+mnt, "ROOT="+filepath.Join(env.WorkDir, "root"), "LC_ALL=C", "TZ=UTC",
		"SREGFS_HOME="+filepath.Join(env.WorkDir, "state"),
		"SREGFS_CACHE_DIR="+filepath.Join(env.WorkDir, "cache"),
		"SREGISTRY_STORAGE="+filepath.Join(env.WorkDir, "images"),
		// With the race detector a program waits a second at its end otherwise.
		"GORACE=atexit_sleep_ms=0",
	)
	env.Defer(func() {
		state := filepath.Join(env.WorkDir, "state")
		if p, err := statedir.Holder(state); err == nil && p.PID > 0 && p.PID != os.Getpid() {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		unmountBelow(env.WorkDir)
	})
	return nil
}

// unmountBelow takes away what a failed script has left, lest the directory
// cannot be removed.
func unmountBelow(dir string) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			_ = exec.Command("fusermount3", "-uzq", f[4]).Run()
		}
	}
}

func (s *script) condition(name string) (bool, error) {
	if name == "root" {
		return os.Geteuid() == 0, nil
	}
	if name != "fuse" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	_, err := os.Stat("/dev/fuse")
	if _, lookErr := exec.LookPath("fusermount3"); err == nil {
		err = lookErr
	}
	if err != nil && os.Getenv("SREGFS_NOSKIP") == "1" {
		return false, fmt.Errorf("SREGFS_NOSKIP=1, but there is no FUSE: %w", err)
	}
	return err == nil, nil
}

// exits runs a program that must end with one exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// runs runs an image with a program that compares it, in the place of Apptainer.
func runs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: runs URI")
	}
	program := ts.MkAbs("compares")
	ts.Check(os.WriteFile(program, []byte("#!/bin/sh\ntest $1 = run && exec cmp \"$2\" \"$IMAGE\"\n"), 0o700)) //nolint:gosec // it is run
	ts.Setenv("SREGFS_RUNTIME", program)
	ts.Check(ts.Exec("sreg", "run", args[0]))
}

func refuse(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "you may not", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// deny refuses everything to somebody who has no login.
func deny(http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "log in", http.StatusUnauthorized) })
}

func state(ts *testscript.TestScript) string { return ts.Getenv("SREGFS_HOME") }

// eventually waits for what another process does. It gives it longer than any
// machine needs.
func eventually(ts *testscript.TestScript, what string, done func() bool) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			ts.Fatalf("%s: not within 30 s", what)
		}
	}
}

func ended(ts *testscript.TestScript, _ bool, _ []string) {
	eventually(ts, "the mount ends", func() bool {
		_, err := statedir.Holder(state(ts))
		return err != nil
	})
}

func signalHolder(ts *testscript.TestScript, sig syscall.Signal) {
	p, err := statedir.Holder(state(ts))
	ts.Check(err)
	if p.PID == os.Getpid() {
		ts.Fatalf("it is the test that holds the state directory")
	}
	ts.Check(syscall.Kill(p.PID, sig))
}
