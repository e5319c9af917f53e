// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"bytes"
	"context"
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
func folder(ctx context.Context, b *bench) {
	images := int(b.scaled(120_000, 20))
	root := b.temp("www-")
	all := filepath.Join(root, "all")
	makeImages(all, images)
	what := figure(float64(images)) + " names, "
	for name, config := range map[string]string{"nginx": nginxConf, "nginx, JSON": nginxJSONConf, "apache": apacheConf} {
		b.folderOn(ctx, what+name, root, config)
	}
	b.folderOf(ctx, what+"a directory", "big=dir,path="+root)
	for range b.Runs {
		b.add(what+"a directory: the first ls", native, "ms", ms(timed(ctx, "ls", all)))
		b.add(what+"a directory: ls -l", native, "ms", ms(timed(ctx, "ls", "-l", all)))
	}
	b.note("Each run begins with nothing known. The peak is VmHWM of the daemon after all that stands above it.")
}

// folderOn measures the folder on a web server.
func (b *bench) folderOn(ctx context.Context, what, root, config string) {
	url, stop := startWeb(ctx, root, config)
	defer stop()
	b.folderOf(ctx, what, "big=http,url="+url)
	for range b.Runs {
		b.add(what+": the first ls", "curl of the page", "ms", ms(timed(ctx, "curl", "-sSf", "-o", "/dev/null", url+"/all/")))
		if err := try(func() {
			b.add(what+": the first ls", "rclone lsf", "ms", ms(timed(ctx, "rclone", "--config", "/dev/null", "lsf", ":http,url='"+url+"':all")))
		}); err != nil { // it may not be there, and does not read JSON
			b.note("%s: no figure of rclone lsf.", what)
		}
	}
}

// folderOf measures a remote that has the folder "all".
func (b *bench) folderOf(ctx context.Context, what, remote string) {
	for range b.Runs {
		h := b.newHome(false, remote)
		d := h.mount(ctx)
		defer func() { d.stop() }()
		all := d.path("big/all")
		step := func(name string, words ...string) {
			b.add(what+": "+name, sregfs, "ms", ms(timed(ctx, append(words, all)...)))
		}
		peak := func(name string) { b.add(what+": "+name, sregfs, "MB", float64(d.resident("VmHWM"))/1e6) }
		step("the first ls", "ls")
		step("ls again", "ls")
		peak("peak after ls")
		step("ls -l", "ls", "-l")
		peak("peak after ls -l")
		d.stop()
		d = h.mount(ctx)
		step("the first ls after a restart", "ls")
		peak("peak after that")
		d.stop()
	}
}

// makeImages fills a directory with names of one small file: as many as one can have,
// then of another.
func makeImages(dir string, images int) {
	check(os.MkdirAll(dir, 0o755))
	first := ""
	for i := range images {
		name := filepath.Join(dir, fmt.Sprintf("bioconductor-tool-%06d:1.20--h50ea8bc_%d", i*7919%images, i%3))
		if i%30_000 != 0 && os.Link(first, name) == nil {
			continue
		}
		check(os.WriteFile(name, []byte("hsqs"), 0o755))
		first = name
	}
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
func startWeb(ctx context.Context, root, config string) (url string, stop func()) {
	dir := must(os.MkdirTemp(filepath.Dir(root), "web-"))
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	address := l.Addr().String()
	check(l.Close())
	command, text, _ := strings.Cut(fmt.Sprintf(config, filepath.Join(dir, "pid"), address, root), "\n")
	words, file := strings.Fields(command), filepath.Join(dir, "conf")
	check(os.WriteFile(file, []byte(text), 0o644))
	// A server that root starts becomes somebody else.
	check(os.Mkdir(filepath.Join(dir, "pid.t"), 0o777))
	program, err := exec.LookPath(words[0])
	if err != nil { // only root has that directory in PATH
		program = must(exec.LookPath("/usr/sbin/" + words[0]))
	}
	cmd := exec.CommandContext(ctx, program, append(words[1:], file)...)
	var log bytes.Buffer
	cmd.Stderr = &log
	check(cmd.Start())
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	for range 2000 {
		if c, err := net.Dial("tcp", address); err == nil {
			check(c.Close())
			return "http://" + address, stop
		}
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	check(fmt.Errorf("%s does not answer: %s", words[0], &log))
	return "", nil
}
