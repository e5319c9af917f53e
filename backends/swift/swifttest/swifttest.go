// SPDX-License-Identifier: Apache-2.0

// Package swifttest runs OpenStack Swift for tests: Debian's proxy, account, container and object
// servers, each with one ring of one device in a temporary directory, with tempauth, large
// objects and temporary URLs, as children of the test on ports of 127.0.0.1.
//
// It is no fake: what it answers is what Swift does. Begin at [Start]; [Server.Account] is an
// account that nothing is in yet.
package swifttest

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// python is Debian's, which has Swift's code.
const python = "/usr/bin/python3"

//go:embed servers.py
var servers string

const (
	accounts = 2000 // that one server has
	starting = 2 * time.Minute

	// Key is the password of all users.
	Key = "hunter2"
)

// A Server is a Swift that runs.
type Server struct {
	URL  string // "http://127.0.0.1:PORT", without a slash
	Auth string // where to log in: tempauth

	dir    string
	ports  map[string]string // of each server, by its name
	cmd    *exec.Cmd
	log    bytes.Buffer
	ended  chan struct{}
	http   *http.Client
	next   atomic.Int64 // number of the next account
	tokens sync.Map     // of users who have logged in here
}

// Start runs a Swift until the test ends. Where it is not installed the test is skipped, or
// fails if SREGFS_NOSKIP=1.
func Start(t testing.TB) *Server {
	t.Helper()
	need(t)
	s, err := run()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// need skips the test where a program is missing.
func need(t testing.TB) {
	t.Helper()
	for _, name := range []string{"swift-proxy-server", "swift-account-server", "swift-container-server", "swift-object-server", "memcached", python} {
		_, err := exec.LookPath(name)
		switch {
		case err != nil && os.Getenv("SREGFS_NOSKIP") == "1":
			t.Fatalf("%s is not installed and SREGFS_NOSKIP=1 allows no skip", name)
		case err != nil:
			t.Skipf("%s is not installed", name)
		}
	}
}

// run starts everything. Somebody else can take a port that was free: then it is another one.
func run() (s *Server, err error) {
	for range 3 {
		if s, err = try(); err == nil {
			return s, nil
		}
	}
	return nil, err
}

func try() (_ *Server, err error) {
	dir, err := os.MkdirTemp("", "swift")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, ports: map[string]string{}, ended: make(chan struct{}), http: &http.Client{Transport: &http.Transport{}}}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	for _, name := range []string{"account", "container", "object", "proxy", "memcached"} {
		if s.ports[name], err = freePort(); err != nil {
			return nil, err
		}
	}
	if err := s.configure(); err != nil {
		return nil, err
	}
	if err := s.spawn(); err != nil {
		return nil, err
	}
	s.URL = "http://127.0.0.1:" + s.ports["proxy"]
	s.Auth = s.URL + "/auth/v1.0"
	return s, s.ready()
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// Stop ends all processes, and removes what they have stored.
func (s *Server) Stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	s.http.CloseIdleConnections()
	_ = os.RemoveAll(s.dir)
}

// spawn starts all servers. They end with a pipe of this process, however that ends.
func (s *Server) spawn() error {
	cmd := exec.Command(python, "-c", servers, s.dir, s.ports["memcached"], s.ports["account"], s.ports["container"], s.ports["object"])
	cmd.Env = append(os.Environ(), fmt.Sprintf("PART_POWER=%d", partPower))
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	if _, err := cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd = cmd
	go func() { _ = cmd.Wait(); close(s.ended) }()
	return nil
}

// ready waits until the proxy gives out a token, and the token is good for an account.
func (s *Server) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), starting)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	a := s.Account()
	for {
		token, err := s.login(ctx, a.User)
		if err == nil {
			if _, err = s.do(ctx, http.MethodPut, a.Storage+"/ready", token, nil, nil); err == nil {
				_, err = s.do(ctx, http.MethodPut, a.Storage+"/ready/object", token, nil, nil)
			}
		}
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("the servers ended: %s", &s.log)
		case <-ctx.Done():
			s.Stop() // ends who writes the log
			return fmt.Errorf("the servers do not answer: %w: %s", err, &s.log)
		case <-tick.C:
		}
	}
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) configure() error {
	me, err := user.Current()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.file("devices/d1"), 0o700); err != nil {
		return err
	}
	write := func(name, text string) {
		if err == nil {
			err = os.WriteFile(s.file(name), []byte(text), 0o600)
		}
	}
	write("swift.conf", "[swift-hash]\nswift_hash_path_suffix = "+hashSuffix+"\n[storage-policy:0]\nname = gold\ndefault = yes\n")
	common := func(name string) string {
		return fmt.Sprintf("[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = %s\nworkers = 0\nuser = %s\nswift_dir = %s\ndevices = %s\nmount_check = false\ndisable_fallocate = true\nfallocate_reserve = 0\nlog_level = WARNING\n",
			s.ports[name], me.Username, s.dir, s.file("devices"))
	}
	for _, name := range []string{"account", "container", "object"} {
		write(name+".conf", common(name)+fmt.Sprintf("[pipeline:main]\npipeline = %[1]s-server\n[app:%[1]s-server]\nuse = egg:swift#%[1]s\n", name))
	}
	var filters, users strings.Builder
	pipeline := "catch_errors gatekeeper healthcheck cache listing_formats bulk tempurl tempauth copy slo dlo"
	for name := range strings.FieldsSeq(pipeline) {
		egg := map[string]string{"cache": "memcache"}[name]
		if egg == "" {
			egg = name
		}
		if name == "tempauth" {
			continue
		}
		fmt.Fprintf(&filters, "[filter:%s]\nuse = egg:swift#%s\n", name, egg)
		if name == "gatekeeper" {
			filters.WriteString("shunt_inbound_x_timestamp = false\n") // so that objects can be as old as a test wants
		}
		if name == "cache" {
			fmt.Fprintf(&filters, "memcache_servers = 127.0.0.1:%s\nerror_suppression_limit = 1000\n", s.ports["memcached"])
		}
	}
	for i := range accounts {
		fmt.Fprintf(&users, "user_a%d_me = %s .admin\nuser_a%[1]d_you = %[2]s .admin\nuser_a%[1]d_guest = %[2]s\n", i, Key)
	}
	write("proxy.conf", common("proxy")+"[pipeline:main]\npipeline = "+pipeline+" proxy-server\n[app:proxy-server]\nuse = egg:swift#proxy\nallow_account_management = true\naccount_autocreate = true\n"+
		filters.String()+"[filter:tempauth]\nuse = egg:swift#tempauth\nuser_root_one = "+Key+" .reseller_admin\nuser_root_two = "+Key+" .reseller_admin\n"+users.String())
	return err
}

// login returns a token of a user.
func (s *Server) login(ctx context.Context, name string) (string, error) {
	if token, ok := s.tokens.Load(name); ok {
		return token.(string), nil
	}
	h := http.Header{"X-Auth-User": {name}, "X-Auth-Key": {Key}}
	got, err := s.do(ctx, http.MethodGet, s.Auth, "", h, nil)
	if err != nil {
		return "", err
	}
	token := got.Get("X-Auth-Token")
	s.tokens.Store(name, token)
	return token, nil
}

// do sends a request, and fails if it does.
func (s *Server) do(ctx context.Context, method, address, token string, h http.Header, body []byte) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if h != nil {
		req.Header = h.Clone()
	}
	if token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s %s", method, address, resp.Status, text)
	}
	return resp.Header, err
}

var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Shared returns a Swift that runs until [StopShared]: starting one takes seconds, and its accounts
// know nothing of each other.
func Shared(t testing.TB) *Server {
	t.Helper()
	need(t)
	shared.once.Do(func() { shared.server, shared.err = run() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// StopShared ends what Shared has started.
func StopShared() {
	if shared.server != nil {
		shared.server.Stop()
	}
}
