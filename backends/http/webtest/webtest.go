// SPDX-License-Identifier: Apache-2.0

// Package webtest starts real web servers for tests: Debian's nginx, Apache and rclone, and
// Python's http.server, each as a child of the test, on a port of 127.0.0.1, with a
// configuration of its own and a temporary directory to serve.
//
// None of them is a fake: what they answer is what they do. Begin at [Nginx];
// [Server.Put] writes a file into the directory.
package webtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Options say how a server behaves. The zero value shows a page for each
// directory to everybody.
type Options struct {
	JSON    bool // the index of a directory is JSON
	NoIndex bool // there is none: 403
	NoLocks bool // there is no LOCK in ApacheDAV
	Log     bool // requests are written to Server.Log, one a line: "GET /x"

	// User and Password, if set, are needed for every request, as Basic
	// credentials.
	User, Password string
}

// A Server is a running web server.
type Server struct {
	URL  string // "http://127.0.0.1:PORT", without a slash
	Root string // the directory that it serves
	Log  string // file with the requests, if Options.Log is set

	t    testing.TB
	opts Options
	dir  string // of everything
	mark string // in Root/.alive
}

// Nginx runs Debian's nginx until the test ends. Where it is not installed the
// test is skipped, or fails if SREGFS_NOSKIP=1.
func Nginx(t testing.TB, opts Options) *Server {
	t.Helper()
	s := newServer(t, opts)
	if opts.User != "" {
		s.Login(opts.User, opts.Password)
	}
	s.run(program(t, "nginx"), func(host, port string) []string {
		return []string{"-e", "stderr", "-c", s.config("nginx.conf", s.nginx(net.JoinHostPort(host, port)))}
	})
	return s
}

func (s *Server) nginx(address string) string {
	index := "autoindex on; autoindex_exact_size off;"
	switch {
	case s.opts.NoIndex:
		index = "autoindex off;"
	case s.opts.JSON:
		index = "autoindex on; autoindex_format json;"
	}
	log := "access_log off;"
	if s.opts.Log {
		log = fmt.Sprintf(`log_format short "$request_method $request_uri"; access_log %q short;`, s.Log)
	}
	login := ""
	if s.opts.User != "" {
		login = fmt.Sprintf("auth_basic images; auth_basic_user_file %q;", s.passwords())
	}
	return fmt.Sprintf(`daemon off; master_process off; pid %[1]q; error_log stderr;
events {}
http {
	%[7]s
	default_type application/octet-stream;
	client_body_temp_path %[2]q; proxy_temp_path %[2]q; fastcgi_temp_path %[2]q; uwsgi_temp_path %[2]q; scgi_temp_path %[2]q;
	server { listen %[3]s; root %[4]q; %[5]s %[6]s }
}
`, filepath.Join(s.dir, "pid"), filepath.Join(s.dir, "temp"), address, s.Root, index, login, log)
}

// Apache runs Debian's apache2 until the test ends, with fancy indexes. Where it
// is not installed the test is skipped, or fails if SREGFS_NOSKIP=1.
func Apache(t testing.TB) *Server {
	t.Helper()
	s := newServer(t, Options{})
	const modules = "/usr/lib/apache2/modules/mod_"
	s.run(program(t, "apache2"), func(host, port string) []string {
		return []string{"-X", "-f", s.config("apache.conf", fmt.Sprintf(`ServerRoot %[1]q
ServerName localhost
PidFile "%[1]s/pid"
DefaultRuntimeDir %[1]q
Mutex "file:%[1]s"
ErrorLog /dev/stderr
Listen %[2]s
LoadModule mpm_event_module %[3]smpm_event.so
LoadModule authz_core_module %[3]sauthz_core.so
LoadModule autoindex_module %[3]sautoindex.so
LoadModule dir_module %[3]sdir.so
DocumentRoot %[4]q
<Directory %[4]q>
	Options Indexes FollowSymLinks
	IndexOptions FancyIndexing HTMLTable NameWidth=20 FoldersFirst
	Require all granted
</Directory>
`, s.dir, net.JoinHostPort(host, port), modules, s.Root))}
	})
	return s
}

// Python runs "python3 -m http.server" until the test ends: HTTP/1.0, no ranges,
// no ETag, no conditions. Where there is no python3 the test is skipped, or
// fails if SREGFS_NOSKIP=1.
func Python(t testing.TB) *Server {
	t.Helper()
	s := newServer(t, Options{})
	s.run(program(t, "python3"), func(host, port string) []string {
		return []string{"-m", "http.server", "--bind", host, "--directory", s.Root, port}
	})
	return s
}

// program returns the path of a program, also where only root has its directory
// in PATH.
func program(t testing.TB, name string) string {
	t.Helper()
	for _, at := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(at); err == nil {
			return path
		}
	}
	if os.Getenv("SREGFS_NOSKIP") == "1" {
		t.Fatalf("%s is not installed and SREGFS_NOSKIP=1 allows no skip", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// newServer makes the directories. A server that root starts becomes somebody
// else, who could not look into t.TempDir.
func newServer(t testing.TB, opts Options) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "webtest") //nolint:usetesting // see above
	s := &Server{t: t, opts: opts, dir: dir, Root: filepath.Join(dir, "www"), Log: filepath.Join(dir, "requests"), mark: rand.Text()}
	s.must(err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.must(os.Chmod(dir, 0o755))
	s.Put(".alive", []byte(s.mark), time.Now())
	return s
}

// Put writes a file below Root, with the directories above it.
func (s *Server) Put(path string, content []byte, modified time.Time) {
	s.t.Helper()
	path = filepath.Join(s.Root, filepath.FromSlash(path))
	s.must(os.MkdirAll(filepath.Dir(path), 0o755))
	s.must(os.WriteFile(path, content, 0o644))
	s.must(os.Chtimes(path, modified, modified))
}

// Login lets this user in, and nobody else, from the next request on.
func (s *Server) Login(user, password string) {
	s.t.Helper()
	sum := sha1.Sum([]byte(password))
	line := user + ":{SHA}" + base64.StdEncoding.EncodeToString(sum[:]) + "\n"
	s.must(os.WriteFile(s.passwords()+".new", []byte(line), 0o644))
	s.must(os.Rename(s.passwords()+".new", s.passwords()))
}

func (s *Server) passwords() string { return filepath.Join(s.dir, "passwords") }

func (s *Server) config(name, text string) string {
	path := filepath.Join(s.dir, name)
	s.must(os.WriteFile(path, []byte(text), 0o644))
	return path
}

// run starts a server on a free port. Somebody else can take that meanwhile; then
// it is another one.
func (s *Server) run(path string, args func(host, port string) []string) {
	s.t.Helper()
	var log bytes.Buffer
	for range 10 {
		host, port := s.freePort()
		log.Reset()
		// Not CommandContext: t.Context ends before the cleanups.
		cmd := exec.Command(path, args(host, port)...)
		cmd.Stdout, cmd.Stderr = &log, &log
		s.must(cmd.Start())
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		stop := func() { _ = cmd.Process.Kill(); <-ended }
		s.URL = "http://" + net.JoinHostPort(host, port)
		if s.alive(ended) {
			s.t.Cleanup(stop)
			return
		}
		stop()
	}
	s.t.Fatalf("%s does not start: %s", path, &log)
}

func (s *Server) freePort() (host, port string) {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	defer func() { _ = l.Close() }()
	host, port, err = net.SplitHostPort(l.Addr().String())
	s.must(err)
	return host, port
}

// alive waits until the server gives its mark, for as long as it runs.
func (s *Server) alive(ended <-chan struct{}) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return false
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/.alive", nil)
		s.must(err)
		req.SetBasicAuth(s.opts.User, s.opts.Password)
		resp, err := client.Do(req)
		if err != nil {
			continue
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		return err == nil && string(text) == s.mark
	}
}

func (s *Server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}
