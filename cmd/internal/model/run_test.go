// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/cache/spool"
)

var (
	binaries string                 // directory of the built programs
	clients  = map[string]*client{} // by name: they outlive a world
)

// A world is the real thing: a registry, a user's directories, the daemon, three clients.
type world struct {
	t       testing.TB
	m       *model
	reg     *ocitest.Registry
	dir     string
	env     []string
	mount   string
	daemon  *exec.Cmd
	log     *os.File
	clients map[string]*client
}

func newWorld(t testing.TB, s settings) *world {
	t.Helper()
	w := &world{
		t: t, m: newModel(s), reg: ocitest.Start(t, ocitest.Options{Delete: true, InMemory: true}),
		dir: t.TempDir(), clients: map[string]*client{},
	}
	w.mount = w.path("mnt")
	w.must(os.Mkdir(w.mount, 0o755))
	config := fmt.Sprintf("list_ttl = \"1h\"\npassthrough = %q\n[remotes.lab]\ntype = \"oci\"\nurl = %q\ntimeout = \"2s\"\nallow_overwrite = %v\nallow_delete = %v\npush = %q\n",
		map[bool]string{true: "auto", false: "off"}[s.passthrough], w.reg.URL, s.overwrite, s.overwrite,
		map[bool]string{true: "async", false: "sync"}[s.async])
	w.must(os.WriteFile(w.path("config.toml"), []byte(config), 0o600))
	w.env = []string{
		"PATH=" + binaries + ":" + os.Getenv("PATH"), "HOME=" + w.dir, "LC_ALL=C", "TZ=UTC", "SREGFS_HOME=" + w.path("state"),
		"SREGFS_CACHE_DIR=" + w.path("cache"), "SREGISTRY_STORAGE=" + w.path("images"), "SREGFS_CONFIG=" + w.path("config.toml"),
	}
	for i := range images {
		w.must(os.WriteFile(w.image(strconv.Itoa(i)), images[i], 0o644))
		w.must(os.Chtimes(w.image(strconv.Itoa(i)), at(pushed), at(pushed)))
	}
	for _, name := range []string{"c0", "c1", "c2"} {
		if clients[name] == nil {
			c, err := startClient()
			w.must(err)
			clients[name] = c
		}
		w.clients[name] = clients[name]
	}
	var err error
	w.log, err = os.Create(w.path("log"))
	w.must(err)
	t.Cleanup(func() { w.log.Close() })
	w.start()
	t.Cleanup(w.kill)
	for _, remote := range []string{"local", "lab"} {
		for _, c := range []string{"c1", "c2"} {
			w.m.dirs[remote+"/"+c] = "no"
		}
	}
	return w
}

func (w *world) path(name string) string   { return filepath.Join(w.dir, name) }
func (w *world) image(image string) string { return w.path("image" + image + ".sif") }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) start() {
	w.t.Helper()
	w.daemon = exec.Command(binaries+"/sregfs", "-f", w.mount)
	w.daemon.Env, w.daemon.Stdout, w.daemon.Stderr = w.env, w.log, w.log
	w.daemon.Dir = w.dir
	w.must(w.daemon.Start())
	w.eventually("the mount is there, and sreg reaches it", func() bool {
		table, err := os.ReadFile("/proc/self/mountinfo")
		return err == nil && strings.Contains(string(table), " "+w.mount+" ") && strings.Contains(w.sreg("status", "-o", "json").Text, w.mount)
	})
}

// stop ends the daemon as systemd would.
func (w *world) stop() error {
	w.must(w.daemon.Process.Signal(syscall.SIGTERM))
	timer := time.AfterFunc(time.Minute, func() { _ = w.daemon.Process.Signal(syscall.SIGQUIT) })
	defer timer.Stop()
	err := w.daemon.Wait()
	w.daemon = nil
	return err
}

func (w *world) kill() {
	if w.daemon != nil {
		_ = w.daemon.Process.Kill()
		_ = w.daemon.Wait()
	}
	w.daemon = nil
	for _, c := range w.clients {
		c.do(w.mount, "reset")
	}
	_ = exec.Command("fusermount3", "-uzq", w.mount).Run()
}

func (w *world) eventually(what string, cond func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); {
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(w.log.Name())
			w.t.Fatalf("not within a minute: %s\n%s", what, text)
		}
		timer := time.NewTimer(10 * time.Millisecond)
		<-timer.C
	}
}

// sreg runs the companion program.
func (w *world) sreg(args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binaries+"/sreg", args...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Dir = w.env, &stdout, &stderr, w.dir
	r := result{From: time.Now()}
	err := cmd.Run()
	r.To = time.Now()
	r.Data, r.Text = stdout.Bytes(), stdout.String()+stderr.String()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		r.Err = "HANGS"
	case errors.As(err, &exit):
		r.Err = fmt.Sprintf("exit %d", exit.ExitCode())
	default:
		w.must(err)
	}
	return r
}

// do carries an operation out.
func (w *world) do(o op) result {
	switch o.who {
	case "sreg":
		return w.doSreg(o)
	case "other":
		return w.doOther(o)
	case "world":
		return w.doWorld(o)
	}
	r := w.clients[o.who].do(w.mount, o.verb, o.args...)
	if r.Err == "HANGS" {
		delete(clients, o.who) // it was killed
	}
	return r
}

func (w *world) doSreg(o op) result {
	switch o.verb {
	case "push":
		return w.sreg("push", w.image(o.arg(0)), o.arg(1))
	case "force":
		return w.sreg("push", "--force", w.image(o.arg(0)), o.arg(1))
	case "rm":
		return w.sreg("rm", "--yes", o.arg(0))
	case "pull":
		r := w.sreg("-q", "pull", o.arg(0), "-")
		if r.Err == "" {
			r.Text = ""
		}
		return r
	case "retry":
		args := []string{"uploads", "retry"}
		for _, d := range w.uploads() {
			if d.Target.File == "" && d.State != spool.Writing {
				args = append(args, d.ID)
			}
		}
		if len(args) == 2 {
			return result{}
		}
		return w.sreg(args...)
	case "discard":
		return w.sreg("uploads", "discard", "--all")
	case "refresh":
		return w.sreg("images", "--refresh", "--in", "lab")
	case "evict":
		return w.sreg("cache", "clean", "--yes", "--all")
	}
	var r result
	for _, d := range w.uploads() {
		key := d.Target.Remote + "/" + d.Target.Ref.Collection + "/" + d.Target.Ref.Name + ":" + d.Target.Ref.Tag
		if d.Target.File != "" {
			key = d.Target.Remote + "/" + d.Target.File
		}
		r.Names = append(r.Names, fmt.Sprintf("%s %d %s", key, d.Size, d.State))
	}
	return r
}

func (w *world) uploads() (all []spool.Info) {
	r := w.sreg("uploads", "ls", "-o", "json")
	if r.Err != "" {
		w.t.Fatalf("sreg uploads ls: %v", r)
	}
	w.must(json.Unmarshal(r.Data, &all))
	return all
}

// doOther is what somebody else does at the registry, past every fault.
func (w *world) doOther(o op) (r result) {
	n := parseName(o.arg(0) + ".sif")
	repo, tag, _ := strings.Cut(strings.TrimPrefix(n.key, n.remote+"/"), ":")
	if n.remote == "lab" {
		if old := w.m.truth[n.key]; old != nil && w.m.loses(o, old) {
			w.reg.Untag(repo, tag, ocitest.Digest(old.data))
		}
		if o.verb == "put" {
			w.reg.PushSIF(repo, tag, whole(o.arg(1)), nil)
		}
		return r
	}
	dir := w.path("images/" + repo)
	old, _ := filepath.Glob(dir + "/" + tag + "@*.sif")
	if o.verb == "put" {
		w.must(os.MkdirAll(dir, 0o755))
		data := whole(o.arg(1))
		w.must(os.WriteFile(dir+"/.new", data, 0o644))
		file := dir + "/" + tag + "@" + strings.TrimPrefix(ocitest.Digest(data), "sha256:") + ".sif"
		w.must(os.Rename(dir+"/.new", file))
		old = slices.DeleteFunc(old, func(f string) bool { return f == file })
	}
	for _, f := range old {
		w.must(os.Remove(f))
	}
	return r
}

func (w *world) doWorld(o op) (r result) {
	switch o.verb {
	case "blip":
		w.reg.Use(awayFor(300 * time.Millisecond))
		r = w.clients["c0"].do(w.mount, "read", o.args...)
		w.heal()
	case "away":
		w.reg.Use(awayFor(time.Hour))
	case "slow":
		w.reg.Use(ocitest.Latency(50 * time.Millisecond))
	case "lie":
		w.reg.Use(lie)
	case "nolist":
		w.reg.Use(refuse)
	case "heal":
		w.heal()
	case "kill":
		w.kill()
		w.start()
	case "remount":
		if err := w.stop(); err != nil {
			r.Err, r.Text = "not ended", err.Error()
		}
		w.start()
	}
	if w.m.async && (o.verb == "sync" || o.verb == "heal") {
		w.eventually("nothing is queued", func() bool {
			return !slices.ContainsFunc(w.uploads(), spool.Info.Queued)
		})
	}
	return r
}

// heal ends all faults, and waits until the daemon has noticed.
func (w *world) heal() {
	w.reg.Heal()
	w.eventually("the registry is well again", func() bool {
		// A name that nobody has asked for: the breaker is over when that is answered.
		return w.clients["c0"].do(w.mount, "stat", fmt.Sprintf("lab/c%d/x:1.sif", time.Now().UnixNano())).Err == "ENOENT" &&
			w.sreg("images", "--refresh", "--in", "lab").Err == ""
	})
}

// awayFor breaks each connection for that long, from the first request on.
func awayFor(d time.Duration) ocitest.Middleware {
	var since atomic.Int64
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			since.CompareAndSwap(0, time.Now().UnixNano())
			if time.Since(time.Unix(0, since.Load())) < d {
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, req)
		})
	}
}

// lie changes a bit of each piece of a blob.
func lie(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/sha") {
			w = flipper{w}
		}
		next.ServeHTTP(w, req)
	})
}

type flipper struct{ http.ResponseWriter }

func (f flipper) Write(p []byte) (int, error) {
	q := bytes.Clone(p)
	q[len(q)/2] ^= 1
	return f.ResponseWriter.Write(q)
}

// refuse refuses all listings.
func refuse(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "/tags/list") || strings.HasSuffix(req.URL.Path, "/_catalog") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// play carries out what next gives until that is false, and then what ends each sequence. It
// returns what was done, and the difference, if there was one.
func play(t testing.TB, s settings, next func(*model) (op, bool)) (done script, err error) {
	w := newWorld(t, s)
	done.settings = s
	step := func(o op) error {
		done.ops = append(done.ops, o)
		r := w.do(o)
		if err := w.m.check(o, r); err != nil {
			return fmt.Errorf("%s: %w", o, err)
		}
		if key := w.m.ending; key != "" {
			w.eventually("the daemon knows that "+key+" is closed", func() bool {
				writing := 0
				for _, s := range w.doSreg(op{verb: "uploads"}).Names {
					if strings.HasPrefix(s, key+" ") && strings.HasSuffix(s, " writing") {
						writing++
					}
				}
				return writing <= len(w.m.at(key))
			})
		}
		return nil
	}
	for o, ok := next(w.m); ok && err == nil; o, ok = next(w.m) {
		if w.m.legal(o) {
			err = step(o)
		}
	}
	n := len(done.ops)
	if err == nil {
		err = w.finish(step)
		done.ops = done.ops[:n] // what ends each sequence is no part of the script
	}
	if err != nil {
		text, _ := os.ReadFile(w.log.Name())
		err = fmt.Errorf("%w\nthe log ends:\n%s", err, tail(string(text), 15))
	}
	return done, err
}

func tail(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(len(lines)-n, 0):], "")
}

// finish closes what is open, and compares what the registries have with what was promised.
func (w *world) finish(step func(op) error) error {
	var last []op
	for _, id := range slices.Sorted(maps.Keys(w.m.fds)) {
		last = append(last, op{id[:2], "close", []string{id[2:]}})
	}
	if w.m.fault != "" {
		last = append(last, parseOp("world heal"))
	}
	if w.m.async {
		last = append(last, parseOp("world sync"))
	}
	last = append(last, parseOp("sreg uploads"))
	for _, o := range last {
		if err := step(o); err != nil {
			return err
		}
	}
	if err := errors.Join(w.compareLab(), w.compareLocal(), w.noDescriptors()); err != nil {
		return err
	}
	return w.stop()
}

// compareLab asks the registry itself, by plain HTTP.
func (w *world) compareLab() (err error) {
	has := map[string]bool{}
	for _, repo := range w.reg.Repositories("") {
		for _, tag := range w.reg.Tags(repo) {
			key := "lab/" + repo + ":" + tag
			has[key] = true
			manifest, _ := w.reg.Manifest(repo, tag)
			switch v := w.m.truth[key]; {
			case v == nil:
				err = errors.Join(err, fmt.Errorf("the registry has %s, for which nobody asked", key))
			case !strings.Contains(string(manifest), ocitest.Digest(v.data)):
				err = errors.Join(err, fmt.Errorf("the registry has another image as %s than was acknowledged", key))
			}
		}
	}
	for key := range w.m.truth {
		if w.m.truth[key] != nil && strings.HasPrefix(key, "lab/") && !has[key] {
			err = errors.Join(err, fmt.Errorf("the registry does not have %s, which was acknowledged", key))
		}
	}
	return err
}

func (w *world) compareLocal() (err error) {
	has := map[string]bool{}
	files, _ := filepath.Glob(w.path("images/*/*/*.sif"))
	for _, file := range files {
		rel, _ := filepath.Rel(w.path("images"), file)
		tag, _, _ := strings.Cut(filepath.Base(rel), "@")
		key := "local/" + filepath.Dir(rel) + ":" + tag
		got, e := os.ReadFile(file)
		w.must(e)
		v := w.m.truth[key]
		if v == nil || !bytes.Equal(got, v.data) {
			err = errors.Join(err, fmt.Errorf("the store has %s, which nobody put there", rel))
		}
		has[key] = true
	}
	for key := range w.m.truth {
		if w.m.truth[key] != nil && strings.HasPrefix(key, "local/") && !has[key] {
			err = errors.Join(err, fmt.Errorf("the store does not have %s, which was acknowledged", key))
		}
	}
	return err
}

// noDescriptors reports whether the daemon has a draft open of which nobody has.
func (w *world) noDescriptors() error {
	var open []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		open = nil
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", w.daemon.Process.Pid))
		for _, fd := range fds {
			if file, err := os.Readlink(fd); err == nil && strings.HasPrefix(file, w.path("state/spool/")) && strings.HasSuffix(strings.TrimSuffix(file, " (deleted)"), "/data") {
				open = append(open, file)
			}
		}
		if len(open) == 0 {
			return nil
		}
		timer := time.NewTimer(20 * time.Millisecond)
		<-timer.C
	}
	return fmt.Errorf("the daemon still has open: %q", open)
}
