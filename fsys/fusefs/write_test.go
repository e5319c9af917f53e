// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// source writes an image outside the mount and returns its path.
func source(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "new.sif")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// dirOf makes a directory "d" that holds the source under its name to be.
const dirOf = `mkdir d && cp $SRC d/${DST##*/} && `

// Every usual way of putting a file somewhere publishes it, whole, and under its
// name only.
func TestCopyIn(t *testing.T) {
	t.Parallel()
	ways := map[string]string{
		"cp":          `cp $SRC $DST`,
		"cp -p":       `cp -p $SRC $DST`,
		"cp -a":       `cp -a $SRC $DST`,
		"cp reflink":  `cp --reflink=auto --sparse=always $SRC $DST`,
		"mv":          `cp $SRC $SRC.2 && mv $SRC.2 $DST && test ! -e $SRC.2`,
		"install":     `install -m 755 $SRC $DST`,
		"dd":          `dd if=$SRC of=$DST bs=64k conv=fsync`,
		"cat":         `cat $SRC > $DST`,
		"subshell":    `( head -c 100000 $SRC; tail -c +100001 $SRC ) > $DST`,
		"appending":   `exec 3> $DST; head -c 100000 $SRC >&3; tail -c +100001 $SRC >&3; exec 3>&-`,
		"tee":         `tee $DST < $SRC > /dev/null`,
		"rename":      `cp $SRC ${DST%/*}/.tmp.XYZ && mv ${DST%/*}/.tmp.XYZ $DST`,
		"tmp-copy":    `cp $SRC ${DST%/*}/tmp-copy-123 && chmod 755 ${DST%/*}/tmp-copy-123 && mv -T ${DST%/*}/tmp-copy-123 $DST`,
		"part":        `cp $SRC $DST.part && mv -n $DST.part $DST`,
		"tar":         `mkdir d && cp $SRC d/hello:2.0.sif && tar c -C d hello:2.0.sif | tar x -C ${DST%/*}`,
		"no suffix":   `cp $SRC ${DST%.sif}`,
		"mkdir":       `mkdir -p ${DST%/*}/new/deep && cp $SRC ${DST%/*}/new/deep/x:1.sif && cmp $SRC ${DST%/*}/new/deep/x:1.sif && cp $SRC $DST`,
		"truncate":    `truncate -s $(stat -c %s $SRC) ${DST%/*}/.t && dd if=$SRC of=${DST%/*}/.t conv=notrunc && mv ${DST%/*}/.t $DST`,
		"fallocate":   `fallocate -l 4096 ${DST%/*}/.t && cat $SRC > ${DST%/*}/.t && mv ${DST%/*}/.t $DST`,
		"no room":     `( ! fallocate -l 1P /proc/self/fd/3 && cat $SRC >&3 ) 3> $DST`,
		"touch first": `touch ${DST%/*}/.t && cp $SRC ${DST%/*}/.t && touch -d 2020-01-01 ${DST%/*}/.t && mv ${DST%/*}/.t $DST`,
		"rsync":       `rsync -a $SRC $DST`,
		"rsync in":    `rsync -a --inplace $SRC $DST`,
		"bare":        `cp $SRC ${DST%/*}/bare && cmp $SRC ${DST%/*}/bare:latest.sif && cp $SRC $DST`,

		// Tools that make a directory beside the target.
		"rsync delay":   dirOf + `rsync -a --delay-updates d/ ${DST%/*}/`,
		"rsync partial": dirOf + `rsync -a --partial-dir=.rsync-partial d/ ${DST%/*}/`,
		"rsync temp":    dirOf + `mkdir ${DST%/*}/.tmp && rsync -a --temp-dir=.tmp d/ ${DST%/*}/ && rmdir ${DST%/*}/.tmp`,
		"rsync temp in": dirOf + `rsync -a --temp-dir=${DST%/*} d/ ${DST%/*}/`,
		"rsync xattrs":  `rsync -aX $SRC $DST`,
		"rsync copy":    `cp $SRC ${DST%/*}/.t && rsync -aX ${DST%/*}/.t $DST.part && mv $DST.part $DST && rsync -aX $DST ${DST%/*}/.u && cmp ${DST%/*}/.u $SRC && rm ${DST%/*}/.t ${DST%/*}/.u`,
		"rsync all": dirOf + `rsync -rlptD --delay-updates --partial --fsync --delete --checksum d/ ${DST%/*}/ && ` +
			`rsync -ai --checksum d/ ${DST%/*}/ | { ! grep '^>f'; }`,
		"rsync killed": dirOf + `mkdir ${DST%/*}/.rsync-partial && head -c 1000000 $SRC > ${DST%/*}/.rsync-partial/${DST##*/} && ` +
			`rsync -a --no-whole-file --partial-dir=.rsync-partial d/ ${DST%/*}/`,

		// Editors and other programs.
		"sed":        `cp $SRC ${DST%/*}/.t && sed -i s/no-such-text/x/ ${DST%/*}/.t && cmp $SRC ${DST%/*}/.t && mv ${DST%/*}/.t $DST`,
		"backup":     `cp $SRC ${DST%/*}/.t && cp --backup=numbered $SRC ${DST%/*}/.t && rm ${DST%/*}/.t.~1~ && mv ${DST%/*}/.t $DST`,
		"install -b": `cp $SRC ${DST%/*}/.t && install -b $SRC ${DST%/*}/.t && rm ${DST%/*}/.t~ && mv ${DST%/*}/.t $DST`,
		"copyfile":   `python3 -c "import shutil, sys; shutil.copyfile(*sys.argv[1:])" $SRC $DST`,
		"copy2":      `python3 -c "import shutil, sys; shutil.copy2(*sys.argv[1:])" $SRC $DST`,
		"move":       `cp $SRC $SRC.2 && python3 -c "import shutil, sys; shutil.move(*sys.argv[1:])" $SRC.2 $DST && test ! -e $SRC.2`,
		"tempfile": `python3 -c "import os, sys, tempfile; fd, tmp = tempfile.mkstemp(dir=os.path.dirname(sys.argv[2])); ` +
			`os.write(fd, open(sys.argv[1], 'rb').read()); os.fsync(fd); os.close(fd); os.replace(tmp, sys.argv[2])" $SRC $DST`,
		"mktemp":   `T=$(mktemp -p ${DST%/*}) && cat $SRC > $T && mv $T $DST`,
		"download": `curl -sf -o $DST file://$SRC`,
		"nextflow": `cp $SRC $DST.pulling.1700000000 && mv $DST.pulling.1700000000 $DST`,
		"split":    `split -b 1M $SRC part. && cat part.* > $DST`,
		"vi":       `cp $SRC ${DST%/*}/.t && vi -es -b -c 'set backup nowritebackup' -c 'normal G' -c wq! ${DST%/*}/.t && rm -f ${DST%/*}/.t~ && mv ${DST%/*}/.t $DST`,
	}
	for _, remote := range []string{"local", "web"} {
		t.Run(remote, func(t *testing.T) {
			t.Parallel()
			w := fsystest.New(t, fsystest.Options{})
			dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
			content := fsystest.Image(3<<20+1, 9)
			for name, way := range ways {
				t.Run(name, func(t *testing.T) {
					for _, tool := range []string{"rsync", "python3", "curl", "vi"} {
						if strings.Contains(" "+way, " "+tool+" ") {
							fusetest.NeedTool(t, tool)
						}
					}
					collection := strings.ReplaceAll(name, " ", "-")
					dst := filepath.Join(dir, remote, collection, "hello:2.0.sif")
					out := fusetest.MustShell(t, t.TempDir(), fmt.Sprintf(
						"set -e; SRC=%q DST=%q; mkdir ${DST%%/*}\n%s\ncmp $SRC $DST && ls -A ${DST%%/*}", source(t, content), dst, way))
					out = strings.ReplaceAll(strings.ReplaceAll(out, "new\n", ""), "bare:latest.sif\n", "")
					if !strings.HasSuffix(out, "hello:2.0.sif\n") || strings.Contains(out, ".t") || strings.Contains(out, "tmp") {
						t.Errorf("the directory afterwards:\n%s", out)
					}
					if remote == "web" && sum(w.Service.Get(collection+"/hello:2.0")) != sum(content) {
						t.Error("the service has other bytes")
					}
				})
			}
			if drafts := w.Spool.Drafts(); len(drafts) != 0 {
				t.Errorf("left in the spool: %+v", drafts)
			}
			if n := w.Service.Bytes.Load(); n != 0 {
				t.Errorf("reading back what was pushed fetched %d bytes", n)
			}
		})
	}
}

// What may not be replaced is not, by none of the ways, and stays readable.
func TestOverwrite_refused(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	old := fsystest.Image(100000, 1)
	w.Service.Put("c/i:1", old)
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	src := source(t, fsystest.Image(200000, 2))
	for _, way := range []string{
		"cp $SRC $DST", "cat $SRC > $DST", "set -C; cat $SRC > $DST", "dd if=$SRC of=$DST", "echo >> $DST", "truncate -s 0 $DST",
		"cp $SRC ${DST%/*}/.x && mv ${DST%/*}/.x $DST", "rm -f $DST", "mv $DST ${DST%/*}/j:1.sif",
		"cp $SRC ${DST%.sif}", "rmdir ${DST%/*}", "rm -rf ${DST%/*}", "mkdir ${DST%/*}", "mv ${DST%/*} ${DST%/*}2",
	} {
		out := fusetest.MustFail(t, dir, fmt.Sprintf("SRC=%q DST=%q\n%s", src, filepath.Join(dir, "web/c/i:1.sif"), way))
		if strings.Contains(out, "Function not implemented") {
			t.Errorf("%s: %s", way, out)
		}
		fusetest.MustShell(t, dir, "cmp web/c/i:1.sif "+source(t, old))
	}
	if !bytes.Equal(w.Service.Get("c/i:1"), old) {
		t.Error("the service has other bytes")
	}
}

// While an image is replaced its name means the old one, for everybody but the
// writer; afterwards the new one. A handle keeps what it opened.
func TestOverwrite(t *testing.T) {
	t.Parallel()
	for _, remote := range []string{"local", "web"} {
		t.Run(remote, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *testing.T, opts fusefs.Options) {
				w := fsystest.New(t, fsystest.Options{Web: catalog.Policy{Overwrite: true, Delete: true}})
				v1, v2, v3 := fsystest.Image(100000, 1), fsystest.Image(200001, 2), fsystest.Image(150001, 3)
				dir, _ := fusetest.Mount(t, w.FS, opts)
				path := filepath.Join(dir, remote, "c/i:1.sif")
				fusetest.MustShell(t, dir, fmt.Sprintf("mkdir %s/c && cp %q %q", remote, source(t, v1), path))

				reader, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer reader.Close()
				writer := child(t, "copy", path)
				writer.Stdin = bytes.NewReader(v2)
				out, err := writer.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := writer.Start(); err != nil {
					t.Fatal(err)
				}
				if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
					t.Fatal(err)
				}
				// All is written, but not closed.
				fusetest.MustShell(t, dir, fmt.Sprintf("cmp %q %q", path, source(t, v1)))
				// A second writer has a file of its own.
				fusetest.MustShell(t, dir, fmt.Sprintf("cp %[1]q %[2]q && cmp %[1]q %[2]q", source(t, v3), path))
				// Killed or not, closing publishes what is whole. The closing is over when
				// the process is.
				writer.Process.Kill()
				writer.Wait()
				fusetest.MustShell(t, dir, fmt.Sprintf("cp %q %q && cmp %q %q && rm -f %q && test ! -e %q",
					source(t, v2), path, path, source(t, v2), path, path))
				got := make([]byte, len(v1))
				if _, err := reader.ReadAt(got, 0); err != nil || !bytes.Equal(got, v1) {
					t.Errorf("the open file changed: %v", err)
				}
			})
		})
	}
}

// A copy that ends early is an error, and nothing is published, however it ends.
func TestTruncatedCopy(t *testing.T) {
	t.Parallel()
	for _, remote := range []string{"local", "web"} {
		t.Run(remote, func(t *testing.T) {
			t.Parallel()
			w := fsystest.New(t, fsystest.Options{})
			w.Service.Put("c/other:1", fsystest.Image(5000, 1))
			dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
			fusetest.MustShell(t, dir, "mkdir -p local/c")
			whole := fsystest.Image(1<<20, 1)
			part := source(t, whole[:700000])
			dst := filepath.Join(dir, remote, "c/i:1.sif")
			out := fusetest.MustFail(t, dir, fmt.Sprintf("cp %q %q", part, dst))
			if !strings.Contains(out, "Input/output error") {
				t.Errorf("cp of a part: %s", out)
			}
			fusetest.MustFail(t, dir, fmt.Sprintf("cp %q %s/c/.t && mv %s/c/.t %q", part, remote, remote, dst))
			fusetest.MustFail(t, dir, fmt.Sprintf("echo no image | dd of=%q conv=fsync", dst))
			fusetest.MustShell(t, dir, fmt.Sprintf("rm -f %s/c/.t; : > %q", remote, dst))

			killed := child(t, "copy", dst)
			killed.Stdin = bytes.NewReader(whole[:700000])
			stdout, err := killed.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := killed.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			fusetest.MustShell(t, dir, fmt.Sprintf("test -e %q && ls %s/c | grep -q i:1", dst, remote))
			killed.Process.Kill()
			killed.Wait()

			// The kernel tells us of the end of a killed writer some time after it.
			fusetest.MustShell(t, dir, fmt.Sprintf(
				"for i in $(seq 200); do test -e %q || ls %s/c | grep -q i:1 || exit 0; sleep 0.05; done; exit 1", dst, remote))
			if w.Service.Get("c/i:1") != nil || w.Service.Pushes.Load() > 0 {
				t.Error("a part was pushed")
			}
			for _, d := range w.Spool.Drafts() {
				if d.State != spool.Incomplete {
					t.Errorf("in the journal: %+v", d)
				}
			}
			fusetest.MustShell(t, dir, fmt.Sprintf("cp %[1]q %[2]q && cmp %[1]q %[2]q", source(t, whole), dst))
		})
	}
}

// When the push fails, so does close, with a reason that can be read.
func TestPushFails(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		http.StatusForbidden:           "Permission denied",
		http.StatusUnauthorized:        "Permission denied",
		http.StatusInsufficientStorage: "Host is down",
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			w := fsystest.New(t, fsystest.Options{MaxElapsed: time.Second})
			w.Service.Put("c/other:1", fsystest.Image(5000, 1))
			dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
			content := fsystest.Image(50000, 4)
			src := source(t, content)
			w.Service.Fail(http.MethodPut, status)
			out := fusetest.MustFail(t, dir, fmt.Sprintf("cp %q web/c/i:1.sif", src))
			if !strings.Contains(out, want) {
				t.Errorf("cp: %s, want %s", out, want)
			}
			fusetest.MustFail(t, dir, "test -e web/c/i:1.sif")
			out = fusetest.MustFail(t, dir, fmt.Sprintf("cp %[1]q %[1]q.2 && mv %[1]q.2 web/c/i:1.sif", src))
			if _, err := os.Stat(src + ".2"); err != nil || !strings.Contains(out, want) {
				t.Errorf("mv: %s, and the file it moved: %v", out, err)
			}
			out = fusetest.MustFail(t, dir, fmt.Sprintf("cp %q web/c/.t && mv web/c/.t web/c/i:1.sif", src))
			if !strings.Contains(out, want) {
				t.Errorf("mv of a temporary file: %s", out)
			}
			w.Service.Fail("", 0)
			// The temporary file is still there, and can be renamed now.
			fusetest.MustShell(t, dir, fmt.Sprintf("mv web/c/.t web/c/i:1.sif && cmp web/c/i:1.sif %q", src))
			if !bytes.Equal(w.Service.Get("c/i:1"), content) {
				t.Error("the service has other bytes")
			}
		})
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{Web: catalog.Policy{ReadOnly: true}})
	w.Service.Put("c/i:1", fsystest.Image(5000, 1))
	src := source(t, fsystest.Image(6000, 2))
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	for _, way := range []string{"cp %q web/c/j:1.sif", "cp %q web/c/.tmp", "mkdir web/d # %q", "cp %q web/c/i:1.sif"} {
		if out := fusetest.MustFail(t, dir, fmt.Sprintf(way, src)); !strings.Contains(out, "Read-only file system") {
			t.Errorf("%s: %s", way, out)
		}
	}
	ro, _ := fusetest.Mount(t, w.FS, fusefs.Options{ReadOnly: true})
	if out := fusetest.MustFail(t, ro, fmt.Sprintf("cp %q local/x:1.sif", src)); !strings.Contains(out, "Read-only file system") {
		t.Errorf("cp into a read-only mount: %s", out)
	}
}

func TestNames_refused(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	src := source(t, fsystest.Image(6000, 2))
	for _, name := range []string{"x:1.sif", "local/a:b:c.sif", "local/n@v:1.sif", "local/%zz:1.sif", "local/%2E:1.sif",
		"local/" + strings.Repeat("x", 256), "local/:1.sif", "newremote/x"} {
		fusetest.MustFail(t, dir, fmt.Sprintf("cp %q '%s'", src, name))
	}
	for _, name := range []string{"newremote", "local/a:b", "local/%41", "local/" + strings.Repeat("x", 256)} {
		fusetest.MustFail(t, dir, "mkdir '"+name+"'")
	}
	fusetest.MustFail(t, dir, "rmdir local")
	fusetest.MustShell(t, dir, "mkdir local/d && rmdir local/d && test ! -e local/d")
	fusetest.MustFail(t, dir, "mkdir local/e && cp "+src+" local/e/.t && rmdir local/e")
}

// No call that a program can make is answered "not implemented": the kernel
// would remember that, and for close it would take it as success.
func TestNoENOSYS(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	var mu sync.Mutex
	var lines []string
	trace := log.New(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, string(p))
		return len(p), nil
	}), "", 0)
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Traced(fusefs.Options{}, trace))
	fusetest.MustShell(t, dir, fmt.Sprintf("mkdir local/c && cp %q local/c/i:1.sif", source(t, fsystest.Image(20000, 1))))
	if out, err := child(t, "calls", filepath.Join(dir, "local/c"), "i:1.sif").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	mu.Lock()
	defer mu.Unlock()
	asked := map[string]string{}
	for _, line := range lines {
		var id string
		switch {
		case strings.HasPrefix(line, "rx "):
			id, line, _ = strings.Cut(strings.TrimPrefix(line, "rx "), ": ")
			asked[id] = line
		case strings.Contains(line, "function not implemented"):
			id, _, _ = strings.Cut(strings.TrimPrefix(line, "tx "), ": ")
			if op, _, _ := strings.Cut(asked[id], " "); !doesWithout[op] {
				t.Errorf("not implemented: %s", asked[id])
			}
		}
	}
	if len(asked) < 50 {
		t.Errorf("only %d requests were traced", len(asked))
	}
}

// doesWithout are the requests that go-fuse leaves unanswered and for which the
// kernel has a way of its own.
var doesWithout = map[string]bool{"POLL": true, "STATX": true, "COPY_FILE_RANGE_64": true}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A mount that died is replaced; one that lives is not.
func TestMount_again(t *testing.T) {
	t.Parallel()
	fusetest.NeedFUSE(t)
	dir := t.TempDir()
	cmd := child(t, "mount", dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	w := fsystest.New(t, fsystest.Options{})
	if _, err := fusefs.Mount(t.Context(), dir, w.FS, fusefs.Options{}); !errors.Is(err, fusefs.ErrMounted) {
		t.Fatalf("over a living mount: %v, want %v", err, fusefs.ErrMounted)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err := unix.Statfs(dir, new(unix.Statfs_t)); !errors.Is(err, syscall.ENOTCONN) {
		t.Fatalf("a dead mount: %v, want %v", err, syscall.ENOTCONN)
	}
	m, err := fusefs.Mount(t.Context(), dir, w.FS, fusefs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fusetest.MustShell(t, dir, "ls local")
	f, err := os.Open(filepath.Join(dir, "local"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(); !errors.Is(err, fusefs.ErrBusy) {
		t.Errorf("unmounting with a directory open: %v, want %v", err, fusefs.ErrBusy)
	}
	if err := m.Detach(); err != nil {
		t.Error(err)
	}
	f.Close()
	if err := m.Wait(); err != nil {
		t.Error(err)
	}
	if err := m.Unmount(); err != nil {
		t.Errorf("a second unmounting: %v", err)
	}
}
