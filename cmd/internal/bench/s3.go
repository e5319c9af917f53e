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
	"time"
)

const (
	accessKey = "bench"
	secretKey = "bench-secret"
	bucketDir = "images" // of the server, which is the bucket's name
)

// A store is a real S3 server, versitygw, on this machine, with one bucket. It looks at each
// signature, and at the digest of what is sent.
type store struct {
	b     *bench
	url   string
	token string // file with the login
	cmd   *exec.Cmd
}

// newStore starts one. The caller stops it.
func (b *bench) newStore(ctx context.Context) *store {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	at := listener.Addr().String()
	check(listener.Close())
	dir := b.temp("s3-")
	data, meta := filepath.Join(dir, "data"), filepath.Join(dir, "meta")
	for _, sub := range []string{meta, filepath.Join(data, bucketDir)} {
		check(os.MkdirAll(sub, 0o755))
	}
	s := &store{b: b, url: "http://" + at, token: filepath.Join(dir, "token")}
	check(os.WriteFile(s.token, []byte(accessKey+":"+secretKey), 0o600))
	s.cmd = exec.CommandContext(ctx, "versitygw", "--port", at, "--access", accessKey, "--secret", secretKey, "--region", "us-east-1", "--quiet",
		"posix", "--sidecar", meta, data)
	var said bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &said, &said
	check(s.cmd.Start())
	for range 1000 {
		if conn, err := net.Dial("tcp", at); err == nil {
			check(conn.Close())
			return s
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.stop()
	check(fmt.Errorf("versitygw does not answer\n%s", said.String()))
	return nil
}

func (s *store) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// remote is the bucket as a remote of sregfs, rclone as rclone has it.
func (s *store) remote() string {
	return fmt.Sprintf("lab=s3,url=%s,bucket=%s,token_file=%s", s.url, bucketDir, s.token)
}

func (s *store) rclone() string {
	return fmt.Sprintf(":s3,provider=Other,endpoint='%s',access_key_id=%s,secret_access_key=%s,region=us-east-1,no_check_bucket=true:%s", s.url, accessKey, secretKey, bucketDir)
}

// upload is "rclone copyto" of a file.
func (s *store) upload(ctx context.Context, file, key string) time.Duration {
	return timed(ctx, "rclone", "--config", "/dev/null", "copyto", file, s.rclone()+"/"+key)
}

// with runs do on a new mount, of which nothing is left afterwards.
func (s *store) with(ctx context.Context, who subject, do func(d *daemon)) {
	var d *daemon
	if who == rclone {
		d = s.b.rclone(ctx, s.rclone())
		d.tree = "%s:%s.sif"
	} else {
		d = s.b.newHome(false, s.remote()).mount(ctx)
	}
	defer remove(filepath.Dir(d.dir))
	defer d.stop()
	if err := try(func() { do(d) }); err != nil {
		check(fmt.Errorf("%s: %w\n%s", who, err, d.logText()))
	}
}

// buckets measures images in a bucket: reading one that nobody has yet, and pushing.
func buckets(ctx context.Context, b *bench) {
	check(os.Unsetenv("AWS_CA_BUNDLE")) // rclone does not start with it
	s := b.newStore(ctx)
	defer s.stop()
	img, _ := b.bigContainer(ctx, b.scaled(512<<20, 8))
	defer remove(filepath.Dir(img.path))
	s.upload(ctx, img.path, img.repo+":"+img.tag+".sif")
	b.note("%d MiB in a bucket of versitygw on this machine, whose time is in all figures. curl fetches by a signed address, "+
		"in the fastest of %d ways to run several at a time.", img.size>>20, len(parallels))
	touchMemory()
	s.reads(ctx, img)
	b.attempt(func() { s.pushes(ctx, img) })
	b.attempt(func() { s.memory(ctx) })
}

func (s *store) reads(ctx context.Context, img *image) {
	const name, base = "whole read", subject("parallel curl")
	h := s.b.newHome(false, s.remote())
	defer remove(h.dir)
	link := h.sreg(ctx, "share", "--quiet", "lab://"+img.repo+":"+img.tag)
	best, fastest := parallels[0], time.Hour
	for _, p := range parallels {
		if took := p.fetch(ctx, s.b, link, img, false); took < fastest {
			best, fastest = p, took
		}
	}
	s.b.note("%s: parallel curl is %v.", name, best)
	rate := func(who subject, took time.Duration) {
		s.b.add(name, who, "MB/s", float64(img.size)/1e6/took.Seconds())
	}
	for range s.b.Runs {
		for _, who := range []subject{sregfs, rclone} {
			s.with(ctx, who, func(d *daemon) {
				must(os.Stat(d.file(img)))
				rate(who, readWhole(ctx, nil, d.file(img)))
			})
		}
		rate(base, best.fetch(ctx, s.b, link, img, false))
		rate(base+", checked", best.fetch(ctx, s.b, link, img, true))
	}
	s.b.compare(name, base)
	s.b.aim(name, sregfs, base, 0.9)
	met, f := s.b.median(name, sregfs) >= 1.5*s.b.median(name, rclone), s.b.find(s.b.suite, name, rclone)
	f.Target, f.Met = "sregfs ≥ 1.5 of it", &met
}

func (s *store) pushes(ctx context.Context, img *image) {
	const name, base = "push", subject("rclone copyto")
	s.b.note("push: cp returns when the image is checked, hashed, durable here and published there.")
	rate := func(who subject, took time.Duration) {
		s.b.add(name, who, "MB/s", float64(img.size)/1e6/took.Seconds())
	}
	for i := range s.b.Runs {
		s.with(ctx, sregfs, func(d *daemon) {
			rate(sregfs, timed(ctx, "cp", img.path, d.path(fmt.Sprintf("lab/bench/pushed:%d.sif", i))))
		})
		h := s.b.newHome(false, s.remote())
		start := time.Now()
		h.sreg(ctx, "push", img.path, fmt.Sprintf("lab://bench/direct:%d", i))
		rate("sreg push", time.Since(start))
		remove(h.dir)
		rate(base, s.upload(ctx, img.path, fmt.Sprintf("bench/theirs:%d.sif", i)))
	}
	s.b.compare(name, base)
	s.b.aim(name, sregfs, base, 0.9)
	s.b.aim(name, "sreg push", base, 0.9)
}

// memory pushes a large image, and reads it on another mount.
func (s *store) memory(ctx context.Context) {
	img, _ := s.b.bigContainer(ctx, s.b.scaled(2<<30, 8))
	img.repo = "bench/large"
	defer remove(filepath.Dir(img.path))
	for _, step := range []struct {
		name string
		do   func(d *daemon)
	}{
		{"memory of the daemon while 2 GiB are pushed", func(d *daemon) { timed(ctx, "cp", img.path, d.file(img)) }},
		{"memory of the daemon while 2 GiB are read", func(d *daemon) { readWhole(ctx, nil, d.file(img)) }},
	} {
		s.with(ctx, sregfs, func(d *daemon) {
			step.do(d)
			s.b.add(step.name, sregfs, "MB", float64(d.resident("VmHWM"))/1e6)
		})
		s.b.limit(step.name, sregfs, 200)
	}
}
