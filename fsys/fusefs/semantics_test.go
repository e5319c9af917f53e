// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// Every line of the table of docs/semantics.md is so, on local and on an OCI registry
// that is not overwritten, and every line is tried.
func TestSemantics(t *testing.T) {
	t.Parallel()
	fsystest.Need(t, os.Getuid() == 0, "root, for overlayfs and swapon")
	table := semanticsTable(t)
	reg := ocitest.Start(t, ocitest.Options{})
	lab, err := oci.Open(t.Context(), backends.Env{
		Remote: "lab", Type: "oci", HTTP: backends.NewHTTPClient(backends.HTTPOptions{}), Config: map[string]any{"url": reg.URL},
	})
	if err != nil {
		t.Fatal(err)
	}
	var w *fsystest.World
	found := func(ctx context.Context, name string) (string, backends.Image, error) {
		if name != "found.img" {
			return "", backends.Image{}, fs.ErrNotExist
		}
		img, err := w.Catalog.Lookup(ctx, "local", backends.Ref{Collection: "c", Name: "i0", Tag: "1"})
		return "local", img, err
	}
	w = fsystest.New(t, fsystest.Options{
		FS: fsys.Options{Finders: map[string]fsys.FindFunc{".nextflow": found}},
		Extra: []catalog.Remote{
			{Name: "lab", Type: "oci", URL: reg.URL, Client: backends.NewClient("lab", lab, backends.ClientOptions{})},
		},
	})
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	src := source(t, fsystest.Image(5000, 1))
	fusetest.MustShell(t, dir, fmt.Sprintf("mkdir local/c lab/c && for i in $(seq 0 %d); do cp %q local/c/i$i:1.sif && cp %[2]q lab/c/i$i:1.sif || exit; done",
		len(refusals)-1, src))
	for column, remote := range []string{"local", "lab"} {
		out, err := child(t, "semantics", dir, remote, src).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", remote, err, out)
		}
		for line := range strings.Lines(string(out)) {
			operation, got, _ := strings.Cut(strings.TrimSpace(line), "\t")
			cells, ok := table[operation]
			want, _, _ := strings.Cut(strings.TrimLeft(cells[column], " "), ":")
			if !ok || strings.TrimSpace(want) != got {
				t.Errorf("%s: %s: %s, the table has %q", remote, operation, got, cells[column])
			}
		}
	}
	for operation := range table {
		if refusals[operation] == nil {
			t.Errorf("nothing tries the line %q", operation)
		}
	}
	if t.Failed() {
		return
	}
	if fusetest.MustShell(t, dir, "ls -A lab/c | grep -v '^i[0-9]*:1.sif$'; true") != "" {
		t.Error("something is left on lab")
	}
}

// semanticsTable returns the cells of the table of refusals by its first column.
func semanticsTable(t *testing.T) map[string][2]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/semantics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "\n## What is refused\n")
	section, _, _ := strings.Cut(after, "\n## ")
	table := make(map[string][2]string)
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| ") || len(cells) != 3 || strings.HasPrefix(line, "| operation") {
			continue
		}
		table[strings.TrimSpace(cells[0])] = [2]string{strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])}
	}
	if !ok || len(table) < 20 {
		t.Fatalf("the table has %d lines", len(table))
	}
	return table
}

// A trial is where an operation is tried.
type trial struct {
	mnt   string // the mount
	dir   string // a collection
	image string // an image in it, of this operation alone
	src   string // an image outside
}

// new returns a path in the collection.
func (tr trial) new(name string) string { return filepath.Join(tr.dir, name) }

// write copies some bytes to a file, and closes it.
func write(path string, content []byte, flags int) error {
	f, err := os.OpenFile(path, flags|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// each returns the one errno that all calls give.
func each(calls ...func() error) error {
	first := calls[0]()
	for i, call := range calls[1:] {
		if err := call(); errnoOf(err) != errnoOf(first) {
			return fmt.Errorf("call %d: %w, the first: %w", i+2, err, first)
		}
	}
	return first
}

func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	errors.As(err, &e)
	return e
}

// inDraft opens a draft under a temporary name for the call.
func (tr trial) inDraft(call func(f *os.File) error) error {
	f, err := os.Create(tr.new(".draft"))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		return err
	}
	return call(f)
}

// accessList is rwxr-x--- (linux/posix_acl_xattr.h): a version, and of each entry its
// tag, permissions and ID.
var accessList = []byte("\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x04\x00\x05\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff")

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
	return not0(e)
}

// refusals try the lines of the table.
var refusals = map[string]func(tr trial) error{
	"mkdir, rmdir, create, rename in the root": func(tr trial) error {
		return each(
			func() error { return unix.Mkdir(tr.mnt+"/x", 0o755) },
			func() error { return unix.Rmdir(tr.mnt + "/local") },
			func() error { return write(tr.mnt+"/x:1.sif", nil, os.O_CREATE) },
			func() error { return unix.Rename(tr.mnt+"/local", tr.mnt+"/y") },
			func() error { return unix.Rename(tr.image, tr.mnt+"/y:1.sif") },
		)
	},
	"the same, and unlink, in [`.nextflow` and `.snakemake`](tools.md#nextflow), which list nothing": func(tr trial) error {
		tool := tr.mnt + "/.nextflow"
		return each(
			func() error { return unix.Mkdir(tool+"/x", 0o755) },
			func() error { return write(tool+"/x.img", nil, os.O_CREATE) },
			func() error { return unix.Rename(tool+"/found.img", tool+"/y.img") },
			func() error { return unix.Rename(tr.image, tool+"/y.img") },
			func() error { return unix.Unlink(tool + "/found.img") },
			func() error { return unix.Rmdir(tool) },
		)
	},
	"unlink of a remote, of a collection": func(tr trial) error {
		return each(func() error { return unix.Unlink(tr.mnt + "/local") }, func() error { return unix.Unlink(tr.dir) })
	},
	"open an image for writing": func(tr trial) error {
		return each(
			func() error { return write(tr.image, nil, 0) },
			func() error { return write(tr.image, nil, os.O_APPEND|os.O_CREATE) },
		)
	},
	"replace an image (`O_TRUNC`) by another": func(tr trial) error {
		content, err := os.ReadFile(tr.src)
		if err != nil {
			return err
		}
		other := func(at int) func() error {
			return func() error {
				changed := bytes.Clone(content)
				changed[at]++
				return write(tr.image, changed, os.O_TRUNC)
			}
		}
		return each(other(50), other(len(content)-2000)) // the UUID of the SIF, and the data
	},
	"replace an image (`O_TRUNC`) by the same": func(tr trial) error {
		content, err := os.ReadFile(tr.src)
		if err != nil {
			return err
		}
		return write(tr.image, content, os.O_TRUNC)
	},
	"truncate an image (`O_TRUNC`), and write nothing": func(tr trial) error { return write(tr.image, nil, os.O_TRUNC) },
	"open an image with `O_CREAT` and `O_EXCL`":        func(tr trial) error { return write(tr.image, nil, os.O_CREATE|os.O_EXCL) },
	"truncate(2) of an image to another size": func(tr trial) error {
		return each(func() error { return unix.Truncate(tr.image, 100) }, func() error { return unix.Truncate(tr.image, 0) },
			func() error { return unix.Truncate(tr.image, 1<<30) })
	},
	"unlink of an image": func(tr trial) error { return unix.Unlink(tr.image) },
	"chmod, chown, utimes of an image": func(tr trial) error {
		return each(func() error { return unix.Chmod(tr.image, 0o700) }, func() error { return unix.Chown(tr.image, 1, 1) },
			func() error { return unix.Utimes(tr.image, []unix.Timeval{{}, {}}) })
	},
	"set or remove an extended attribute, an access list": func(tr trial) error {
		return each(
			func() error { return unix.Setxattr(tr.image, "user.x", []byte("x"), 0) },
			func() error { return unix.Setxattr(tr.dir, "user.x", []byte("x"), 0) },
			func() error { return unix.Removexattr(tr.image, "user.x") },
			func() error { return unix.Setxattr(tr.image, "system.posix_acl_access", accessList, 0) },
		)
	},
	"set or remove one of `user.sreg.…`, as `rsync -X` does": func(tr trial) error {
		return each(
			func() error { return unix.Setxattr(tr.image, "user.sreg.uri", []byte("x"), 0) },
			func() error { return unix.Removexattr(tr.image, "user.sreg.uri") },
			func() error { return unix.Removexattr(tr.dir, "user.sreg.remote") },
		)
	},
	"`chattr`, `lsattr`: ioctls on flags and versions": func(tr trial) error {
		return tr.inDraft(func(f *os.File) error {
			var n [64]byte
			return each(
				func() error { return ioctl(f, unix.FS_IOC_GETFLAGS, unsafe.Pointer(&n)) },
				func() error { return ioctl(f, unix.FS_IOC_SETFLAGS, unsafe.Pointer(&n)) },
				func() error { return ioctl(f, 0x80087601, unsafe.Pointer(&n)) }, // FS_IOC_GETVERSION
			)
		})
	},
	"link, symlink, mkfifo, mknod, bind of a socket": func(tr trial) error {
		return each(
			func() error { return unix.Link(tr.image, tr.new(".l")) },
			func() error { return unix.Symlink("x", tr.new(".s")) },
			func() error { return unix.Mkfifo(tr.new(".f"), 0o600) },
			func() error { return unix.Mknod(tr.new(".n"), unix.S_IFCHR|0o600, 0x103) },
			func() error {
				fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				if err := unix.Chdir(tr.dir); err != nil { // the path of a socket is short
					return err
				}
				return errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: ".u"}), unix.Chdir("/"))
			},
		)
	},
	"`O_TMPFILE`": func(tr trial) error {
		_, err := unix.Open(tr.dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
		return err
	},
	"rename of an image in its remote": func(tr trial) error { return unix.Rename(tr.image, tr.image+"2.sif") },
	"rename of an image to another remote": func(tr trial) error {
		return unix.Rename(tr.image, filepath.Join(tr.mnt, map[bool]string{true: "web", false: "local"}[strings.HasSuffix(tr.dir, "local/c")], "x:1.sif"))
	},
	"rename of a collection": func(tr trial) error { return unix.Rename(tr.dir, tr.dir+"2") },
	"rename of an empty directory": func(tr trial) error {
		return errors.Join(unix.Mkdir(tr.new("empty"), 0o755), unix.Rename(tr.new("empty"), tr.new("other")), unix.Rmdir(tr.new("empty")))
	},
	"`renameat2` with `RENAME_EXCHANGE`, `RENAME_WHITEOUT`": func(tr trial) error {
		return tr.inDraft(func(f *os.File) error {
			return each(
				func() error {
					return unix.Renameat2(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, tr.image, unix.RENAME_EXCHANGE)
				},
				func() error {
					return unix.Renameat2(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, tr.new(".w"), unix.RENAME_WHITEOUT)
				},
			)
		})
	},
	"close of what is no image; rename of it to an image's name": func(tr trial) error {
		if err := write(tr.new(".text"), []byte("text"), os.O_CREATE); err != nil {
			return err
		}
		defer os.Remove(tr.new(".text"))
		return each(func() error { return write(tr.new("text:1.sif"), []byte("text"), os.O_CREATE) },
			func() error { return unix.Rename(tr.new(".text"), tr.new("text:1.sif")) })
	},
	"close of a part of an image; rename of it to an image's name": func(tr trial) error {
		content, err := os.ReadFile(tr.src)
		if err != nil {
			return err
		}
		part := content[:len(content)-1000]
		if err := write(tr.new(".part"), part, os.O_CREATE); err != nil {
			return err
		}
		defer os.Remove(tr.new(".part"))
		return each(func() error { return write(tr.new("part:1.sif"), part, os.O_CREATE) },
			func() error { return unix.Rename(tr.new(".part"), tr.new("part:1.sif")) })
	},
	"mkdir `a@b`, `a:b`, `%zz`, not UTF-8": func(tr trial) error {
		return each(
			func() error { return unix.Mkdir(tr.new("a@b"), 0o755) }, func() error { return unix.Mkdir(tr.new("a:b"), 0o755) },
			func() error { return unix.Mkdir(tr.new("%zz"), 0o755) }, func() error { return unix.Mkdir(tr.new("a\xff"), 0o755) },
		)
	},
	"mkdir `.x`: a tool's directory": func(tr trial) error { return errors.Join(unix.Mkdir(tr.new(".x"), 0o755), unix.Rmdir(tr.new(".x"))) },
	"create `x:y:z.sif`, `x:1@v.sif`, `README.md`": func(tr trial) error {
		return each(
			func() error { return write(tr.new("x:y:z.sif"), nil, os.O_CREATE) }, func() error { return write(tr.new("x:1@v.sif"), nil, os.O_CREATE) },
			func() error { return write(tr.new("README.md"), nil, os.O_CREATE) },
		)
	},
	"mkdir or create a name that the registry cannot hold (`a b`)": func(tr trial) error {
		defer os.Remove(tr.new("a b"))
		return each(func() error { return unix.Mkdir(tr.new("a b"), 0o755) }, func() error { return write(tr.new("a b:1.sif"), nil, os.O_CREATE) })
	},
	"a name of more than 255 bytes": func(tr trial) error {
		long := strings.Repeat("x", 256)
		return each(
			func() error { return unix.Mkdir(tr.new(long), 0o755) }, func() error { return write(tr.new(long), nil, os.O_CREATE) },
			func() error { return unix.Rename(tr.image, tr.new(long)) }, func() error { return unix.Access(tr.new(long), unix.F_OK) },
		)
	},
	"rmdir of a directory with something in it": func(tr trial) error {
		if err := errors.Join(unix.Mkdir(tr.new("d"), 0o755), write(tr.new("d/.x"), nil, os.O_CREATE), unix.Mkdir(tr.new(".d"), 0o755),
			write(tr.new(".d/x"), nil, os.O_CREATE)); err != nil {
			return err
		}
		defer os.RemoveAll(tr.new("d"))
		defer os.RemoveAll(tr.new(".d"))
		return each(func() error { return unix.Rmdir(tr.dir) }, func() error { return unix.Rmdir(tr.new("d")) }, func() error { return unix.Rmdir(tr.new(".d")) })
	},
	"open for writing what somebody writes": func(tr trial) error {
		return tr.inDraft(func(f *os.File) error {
			return each(func() error { return write(f.Name(), []byte("x"), 0) }, func() error { return write(f.Name(), []byte("x"), os.O_APPEND) },
				func() error { return write(f.Name(), []byte("x"), os.O_TRUNC) })
		})
	},
	"fallocate with `PUNCH_HOLE`, `ZERO_RANGE`, `COLLAPSE_RANGE`, `INSERT_RANGE`, `UNSHARE_RANGE`": func(tr trial) error {
		return tr.inDraft(func(f *os.File) error {
			try := func(mode uint32) func() error {
				return func() error { return unix.Fallocate(int(f.Fd()), mode, 0, 4096) }
			}
			return each(try(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE), try(unix.FALLOC_FL_ZERO_RANGE), try(unix.FALLOC_FL_COLLAPSE_RANGE),
				try(unix.FALLOC_FL_INSERT_RANGE), try(unix.FALLOC_FL_UNSHARE_RANGE))
		})
	},
	"reflinks (`FICLONE`), deduplication, `FIEMAP`": func(tr trial) error {
		image, err := os.Open(tr.image)
		if err != nil {
			return err
		}
		defer image.Close()
		return tr.inDraft(func(f *os.File) error {
			return each(
				func() error { return unix.IoctlFileClone(int(f.Fd()), int(image.Fd())) },
				func() error {
					r := unix.FileDedupeRange{Src_length: 4096, Info: []unix.FileDedupeRangeInfo{{Dest_fd: int64(f.Fd())}}}
					return unix.IoctlFileDedupeRange(int(image.Fd()), &r)
				},
				func() error { var b [64]byte; return ioctl(f, 0xC020660B, unsafe.Pointer(&b)) },
			)
		})
	},
	"`swapon` of a file": func(tr trial) error {
		return tr.inDraft(func(f *os.File) error {
			path, err := unix.BytePtrFromString(f.Name())
			if err != nil {
				return err
			}
			_, _, e := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(path)), 0, 0)
			return not0(e)
		})
	},
	"`O_DIRECT`, also unaligned": func(tr trial) error {
		return tr.inDraft(func(f *os.File) error {
			d, err := os.OpenFile(f.Name(), os.O_RDWR|unix.O_DIRECT, 0)
			if err != nil {
				return err
			}
			defer d.Close()
			_, err = d.WriteAt([]byte("unaligned"), 3)
			return err
		})
	},
	"upper or work directory of an overlayfs": func(tr trial) error {
		lower, err := os.MkdirTemp("", "lower")
		if err != nil {
			return err
		}
		defer os.Remove(lower)
		up, work := tr.new(".up"), tr.new(".work")
		if err := errors.Join(unix.Mkdir(up, 0o755), unix.Mkdir(work, 0o755)); err != nil {
			return err
		}
		defer os.RemoveAll(up)
		defer os.RemoveAll(work)
		err = unix.Mount("overlay", lower, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, up, work))
		if err == nil {
			return unix.Unmount(lower, 0)
		}
		return err
	},
}

// childSemantics tries all of refusals on a remote, and prints what they give.
func childSemantics(args []string) error {
	mnt, remote, src := args[0], args[1], args[2]
	i := 0
	for operation, try := range refusals {
		dir := filepath.Join(mnt, remote, "c")
		err := try(trial{mnt: mnt, dir: dir, image: filepath.Join(dir, fmt.Sprintf("i%d:1.sif", i)), src: src})
		i++
		got := "works"
		if err != nil {
			got = unix.ErrnoName(errnoOf(err))
			if got == "ENOTSUP" {
				got = "EOPNOTSUPP" // another name of it
			}
			if got == "" || strings.Contains(err.Error(), "call ") {
				got += " " + err.Error()
			}
		}
		fmt.Printf("%s\t%s\n", operation, got)
	}
	return nil
}
