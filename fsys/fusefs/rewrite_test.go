// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// A file that is written through several descriptors, forks and mappings comes out
// as on any disk, new or changed in place, and in the registry too.
func TestRewrite(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]catalog.Policy{
		"fixed": {}, "overwrite": {Overwrite: true}, "async": {Overwrite: true, Async: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := fsystest.New(t, fsystest.Options{Web: policy})
			old := fsystest.Image(1<<20, 1)
			w.Service.Put("c/old:1", old)
			dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
			fusetest.MustShell(t, dir, fmt.Sprintf("mkdir local/c && cp %q local/c/old:1.sif", source(t, old)))
			src := source(t, fsystest.Image(1<<20, 2))
			native := filepath.Join(t.TempDir(), "native")
			paths := []string{native, filepath.Join(dir, "local/c/new:1.sif"), filepath.Join(dir, "local/c/old:1.sif"),
				filepath.Join(dir, "web/c/new:1.sif")}
			if policy.Overwrite {
				paths = append(paths, filepath.Join(dir, "web/c/old:1.sif"))
			}
			for _, path := range paths {
				if out, err := child(t, "rewrite", path, src).CombinedOutput(); err != nil {
					t.Errorf("%s: %v: %s", path, err, out)
				}
				fusetest.MustShell(t, dir, fmt.Sprintf("cmp %q %q", native, path))
			}
			if policy.Async {
				return // the registry follows
			}
			want, err := os.ReadFile(native)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range paths[3:] {
				if sum(w.Service.Get("c/"+filepath.Base(path[:len(path)-4]))) != sum(want) {
					t.Errorf("%s: the service has other bytes", path)
				}
			}
			if drafts := w.Spool.Drafts(); len(drafts) != 0 {
				t.Errorf("left in the spool: %+v", drafts)
			}
		})
	}
}

// For whoever writes an image its name is the file that it writes: an editor that
// compares the two does not take it for changed by somebody else.
func TestRewrite_editor(t *testing.T) {
	t.Parallel()
	fusetest.NeedTool(t, "vi")
	w := fsystest.New(t, fsystest.Options{Web: catalog.Policy{Overwrite: true}})
	w.Service.Put("c/v:1", fsystest.Image(100_000, 1))
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	fusetest.MustShell(t, dir, fmt.Sprintf("mkdir local/c && cp %q local/c/v:1.sif", source(t, fsystest.Image(100_000, 1))))
	for _, remote := range []string{"local", "web"} {
		in, before := filepath.Join(dir, remote, "c"), filepath.Join(t.TempDir(), "before")
		if out, err := child(t, "same", filepath.Join(in, "v:1.sif")).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", remote, err, out)
		}
		fusetest.MustShell(t, in, `
cp v:1.sif `+before+`
for how in auto yes no; do
	vi -es -u NONE -b -c "set nobackup writebackup backupcopy=$how" -c 'normal G' -c 's/$/ /' -c wq! v:1.sif || exit 1
	! cmp -s v:1.sif `+before+` || exit 1
	test "$(ls -A)" = v:1.sif || { ls -lA; exit 1; }
done`)
	}
}

// childSame replaces a file, and compares what the descriptor and the name say of it.
func childSame(args []string) error {
	content, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	before, err := os.Stat(args[0])
	if err != nil {
		return err
	}
	f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	for off := range len(content) {
		if off%50_000 != 0 {
			continue
		}
		if _, err := f.WriteAt(content[off:], int64(off)); err != nil {
			return err
		}
		byName, err := os.Stat(args[0])
		if err != nil {
			return err
		}
		open, err := f.Stat()
		if err != nil {
			return err
		}
		if !os.SameFile(before, open) || !os.SameFile(byName, open) || byName.Size() != open.Size() || !byName.ModTime().Equal(open.ModTime()) {
			return fmt.Errorf("by its name %+v, by the descriptor %+v", byName.Sys(), open.Sys())
		}
	}
	return f.Close()
}

// A container writes to the overlay of its image through a loop device: what others
// read is the image of before, until the overlay is unmounted.
func TestLoop(t *testing.T) {
	t.Parallel()
	fusetest.NeedTool(t, "mke2fs")
	fusetest.NeedTool(t, "e2fsck")
	fusetest.NeedTool(t, "losetup")
	fsystest.Need(t, os.Getuid() == 0 && exec.CommandContext(t.Context(), "losetup", "-f").Run() == nil, "root with loop devices")
	for _, remote := range []string{"local", "web"} {
		t.Run(remote, func(t *testing.T) {
			t.Parallel()
			disk := filepath.Join(t.TempDir(), "disk")
			fusetest.MustShell(t, t.TempDir(), fmt.Sprintf("truncate -s 8M %[1]q && mke2fs -q -F -t ext3 %[1]q", disk))
			raw, err := os.ReadFile(disk)
			if err != nil {
				t.Fatal(err)
			}
			content, off := fsystest.Overlay(t, 100000, 1, raw)
			w := fsystest.New(t, fsystest.Options{Web: catalog.Policy{Overwrite: true}})
			w.Service.Put("c/i:1", content)
			dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
			path := filepath.Join(dir, remote, "c/i:1.sif")
			if remote == "local" {
				fusetest.MustShell(t, dir, fmt.Sprintf("mkdir local/c && cp %q %q", source(t, content), path))
			}
			mnt := t.TempDir()
			fusetest.MustShell(t, t.TempDir(), fmt.Sprintf(`
set -e
exec 3<> %[1]q
L=$(losetup --show -f -o %[3]d --sizelimit %[4]d /proc/self/fd/3)
trap 'umount %[5]q; losetup -d $L' EXIT
mount -t ext4 $L %[5]q
exec 3>&-
for i in 1 2 3; do head -c 100000 /dev/urandom > %[5]q/file$i; sync -f %[5]q; done
sha256sum < %[5]q/file3 > sum
cmp %[1]q %[2]q
umount %[5]q; losetup -d $L; trap - EXIT
# The kernel lets go of the device a moment later.
for i in $(seq 300); do cmp -s %[1]q %[2]q || break; sleep 0.05; done
tail -c +%[6]d %[1]q | head -c %[4]d > after
e2fsck -fn after
debugfs -R "dump file3 out" after
sha256sum < out | cmp - sum
`, path, source(t, content), off, len(raw), mnt, off+1))
			if drafts := w.Spool.Drafts(); len(drafts) != 0 {
				t.Errorf("left in the spool: %+v", drafts)
			}
		})
	}
}
