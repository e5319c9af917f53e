// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// folder measures a folder of files without an extension, as large as the largest
// public collection of images, on web servers and as a directory.
func folder(ctx context.Context, b *bench) (err error) {
	images := 120_000
	if b.quick {
		images = 6000
	}
	root, err := b.temp("www-")
	if err != nil {
		return err
	}
	if err := makeImages(filepath.Join(root, "all"), images); err != nil {
		return err
	}
	what := figure(float64(images)) + " names, "
	for name, config := range map[string]string{"nginx": nginxConf, "nginx, JSON": nginxJSONConf, "apache": apacheConf} {
		srv, err := startWeb(ctx, root, config)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		err = b.folderOf(ctx, what+name, "big=http,url="+srv.url)
		for range b.runs {
			var took time.Duration
			if took, err = timed(ctx, "curl", "-sSf", "-o", "/dev/null", srv.url+"/all/"); err != nil {
				break
			}
			b.add(result{name: what + name + ": the first ls", subject: "curl of the page", unit: "ms", lower: true, runs: []float64{ms(took)}})
			if _, missing := exec.LookPath("rclone"); missing != nil {
				continue
			}
			if took, err = timed(ctx, "rclone", "--config", "/dev/null", "lsf", ":http,url='"+srv.url+"':all"); err != nil {
				break
			}
			b.add(result{name: what + name + ": the first ls", subject: "rclone lsf", unit: "ms", lower: true, runs: []float64{ms(took)}})
		}
		srv.stop()
		if err != nil {
			return err
		}
	}
	if err := b.folderOf(ctx, what+"a directory", "big=dir,path="+root); err != nil {
		return err
	}
	for range b.runs {
		for step, args := range map[string][]string{": the first ls": nil, ": ls -l": {"-l"}} {
			took, err := timed(ctx, "ls", append(args, filepath.Join(root, "all"))...)
			if err != nil {
				return err
			}
			b.add(result{name: what + "a directory" + step, subject: "native", unit: "ms", lower: true, runs: []float64{ms(took)}})
		}
	}
	b.note("Each run begins with nothing known. The peak is VmHWM of the daemon after all that stands above it.")
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// folderOf measures a remote that has the folder "all".
func (b *bench) folderOf(ctx context.Context, what, remote string) error {
	for range b.runs {
		h, err := b.newHome(remote)
		if err != nil {
			return err
		}
		if err := b.folderOnce(ctx, h, what); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func (b *bench) folderOnce(ctx context.Context, h *home, what string) error {
	d, err := h.mount(ctx, "sregfs")
	if err != nil {
		return err
	}
	defer func() { d.stop() }()
	step := func(name string, args ...string) error {
		took, err := timed(ctx, args[0], args[1:]...)
		b.add(result{name: what + ": " + name, subject: "sregfs", unit: "ms", lower: true, runs: []float64{ms(took)}})
		return err
	}
	peak := func(name string) error {
		most, err := d.peakRSS()
		b.add(result{name: what + ": " + name, subject: "sregfs", unit: "MB", lower: true, runs: []float64{float64(most) / 1e6}})
		return err
	}
	all := d.path("big/all")
	if err := errors.Join(step("the first ls", "ls", all), step("ls again", "ls", all), peak("peak after ls"),
		step("ls -l", "ls", "-l", all), peak("peak after ls -l")); err != nil {
		return err
	}
	d.stop()
	if d, err = h.mount(ctx, "sregfs"); err != nil {
		return err
	}
	return errors.Join(step("the first ls after a restart", "ls", all), peak("peak after that"))
}

// makeImages fills a directory with names of one small file: as many as one can have,
// then of another.
func makeImages(dir string, images int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	first := ""
	for i := range images {
		name := filepath.Join(dir, fmt.Sprintf("bioconductor-tool-%06d:1.20--h50ea8bc_%d", i*7919%images, i%3))
		if i%30_000 != 0 && os.Link(first, name) == nil {
			continue
		}
		if err := os.WriteFile(name, []byte("hsqs"), 0o755); err != nil {
			return err
		}
		first = name
	}
	return nil
}

// A web is a running web server.
type web struct {
	url  string
	stop func()
}

// What follows is filled in with the directory of the server's own files, its address
// and the directory that it shows.

const nginxConf = `nginx -e stderr -c
daemon off; master_process off; pid %[1]q; error_log stderr;
events {}
http {
	access_log off; default_type application/octet-stream;
	client_body_temp_path %[1]s.t; proxy_temp_path %[1]s.t; fastcgi_temp_path %[1]s.t; uwsgi_temp_path %[1]s.t; scgi_temp_path %[1]s.t;
	server { listen %[2]s; root %[3]q; autoindex on; }
}
`

var nginxJSONConf = nginxConf[:len(nginxConf)-len("}\n}\n")] + "autoindex_format json; }\n}\n"

const apacheConf = `apache2 -X -f
ServerName localhost
PidFile %[1]q
DefaultRuntimeDir %[1]s.t
Mutex file:%[1]s.t
ErrorLog /dev/stderr
Listen %[2]s
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule autoindex_module /usr/lib/apache2/modules/mod_autoindex.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
DocumentRoot %[3]q
<Directory %[3]q>
	Options Indexes
	IndexOptions FancyIndexing HTMLTable NameWidth=*
	Require all granted
</Directory>
`

// startWeb starts a server of which the first line of config is the command. The caller
// stops it.
func startWeb(ctx context.Context, root, config string) (*web, error) {
	dir, err := os.MkdirTemp(filepath.Dir(root), "web-")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	command, text, _ := strings.Cut(fmt.Sprintf(config, filepath.Join(dir, "pid"), address, root), "\n")
	file := filepath.Join(dir, "conf")
	// A server that root starts becomes somebody else.
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o644), os.Mkdir(filepath.Join(dir, "pid.t"), 0o777), open755(root)); err != nil {
		return nil, err
	}
	words := append(strings.Fields(command), file)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin")
	if cmd.Path, err = lookPath(words[0]); err != nil {
		return nil, err
	}
	cmd.Err = nil
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w := &web{url: "http://" + address, stop: func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}}
	for range 2000 {
		if c, err := net.Dial("tcp", address); err == nil {
			return w, c.Close()
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.stop()
	return nil, fmt.Errorf("%s does not answer: %s", words[0], &log)
}

// lookPath finds a program, also where only root has its directory in PATH.
func lookPath(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/" + name)
}

// open755 lets everybody read the directory, and pass those above it that are ours.
func open755(dir string) error {
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}
