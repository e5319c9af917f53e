// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A mount that ends while files are open drains: whoever has one open keeps it, and
// nobody opens another. It goes through these stages, in this order:
//
//	serving    all requests
//	draining   no new opening, file or directory: what is written is closed, renamed,
//	           and so published
//	retired    nothing but what is open: the catalogue is another process's
//
// What is refused is ENOTCONN, as it will be when this process has ended.
type stage int

const (
	serving stage = iota
	draining
	retired
)

// openFiles are the files that are open, and the openings under way. The zero value is
// ready.
type openFiles struct {
	mu      sync.Mutex // guards the fields below
	stage   stage
	opening int
	all     map[*openFile]struct{}
	change  chan struct{} // closed, and replaced, when one is closed; nil while nobody waits
}

type openFile struct {
	inode   *gofs.Inode
	thread  uint32 // which opened it
	writing bool
}

// begin is called before something is opened, end afterwards. It reports false when
// nothing may be.
func (o *openFiles) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stage != serving {
		return false
	}
	o.opening++
	return true
}

func (o *openFiles) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opening--
	o.changed()
}

func (o *openFiles) at() stage {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stage
}

func (o *openFiles) advance(to stage) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stage = max(o.stage, to)
}

// changed is called with mu held.
func (o *openFiles) changed() {
	if o.change != nil {
		close(o.change)
		o.change = nil
	}
}

// add notes that a file was opened, until it is closed by remove.
func (o *openFiles) add(ctx context.Context, inode *gofs.Inode, writing bool) *openFile {
	f := &openFile{inode: inode, writing: writing}
	if c, ok := fuse.FromContext(ctx); ok {
		f.thread = c.Pid
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = make(map[*openFile]struct{})
	}
	o.all[f] = struct{}{}
	return f
}

func (o *openFiles) remove(f *openFile) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, f)
	o.changed()
}

// await returns when no file is open for writing, or else for reading, and none is being
// opened; or when over is closed. Errors: ctx's.
func (o *openFiles) await(ctx context.Context, over <-chan struct{}, writing bool) error {
	for {
		o.mu.Lock()
		busy := o.opening > 0
		for f := range o.all {
			busy = busy || f.writing == writing
		}
		if o.change == nil {
			o.change = make(chan struct{})
		}
		change := o.change
		o.mu.Unlock()
		if !busy {
			return nil
		}
		select {
		case <-change:
		case <-over:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Drain makes every further opening fail with ENOTCONN. What is open can be read,
// written, closed, and renamed.
func (m *Mounted) Drain() { m.files.advance(draining) }

// Retire makes every further request fail with ENOTCONN, except for what is open.
func (m *Mounted) Retire() { m.files.advance(retired) }

// Written returns when no file is open for writing, or the mount is over. Errors: ctx's.
func (m *Mounted) Written(ctx context.Context) error { return m.files.await(ctx, m.done, true) }

// Finished returns when no file is open for reading only, or the mount is over. Errors: ctx's.
func (m *Mounted) Finished(ctx context.Context) error { return m.files.await(ctx, m.done, false) }

// Users returns the files that are open, in the order of their names.
func (m *Mounted) Users() []User {
	m.files.mu.Lock()
	files := make([]openFile, 0, len(m.files.all))
	for f := range m.files.all {
		files = append(files, *f)
	}
	m.files.mu.Unlock()
	users := make([]User, 0, len(files))
	for _, f := range files {
		u := User{Name: f.inode.Path(nil), PID: int(cmp.Or(processOf(f.thread), f.thread)), Writing: f.writing}
		if name, err := os.ReadFile("/proc/" + strconv.Itoa(u.PID) + "/comm"); err == nil {
			u.Program = strings.TrimSuffix(string(name), "\n")
		}
		users = append(users, u)
	}
	slices.SortFunc(users, func(a, b User) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.PID, b.PID))
	})
	return users
}

// A gate lets through what the stage of the mount allows.
type gate struct {
	fuse.RawFileSystem
	files *openFiles
}

// opening runs what opens something.
func (g gate) opening(open func() fuse.Status) fuse.Status {
	if !g.files.begin() {
		return fuse.Status(syscall.ENOTCONN)
	}
	defer g.files.end()
	status := open()
	if !status.Ok() && g.files.at() != serving {
		return fuse.Status(syscall.ENOTCONN) // whatever it was: it was too late
	}
	return status
}

// named runs what needs the catalogue.
func (g gate) named(do func() fuse.Status) fuse.Status {
	if g.files.at() == retired {
		return fuse.Status(syscall.ENOTCONN)
	}
	return do()
}

func (g gate) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return g.opening(func() fuse.Status { return g.RawFileSystem.Open(cancel, in, out) })
}

func (g gate) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return g.opening(func() fuse.Status { return g.RawFileSystem.OpenDir(cancel, in, out) })
}

func (g gate) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return g.opening(func() fuse.Status { return g.RawFileSystem.Create(cancel, in, name, out) })
}

func (g gate) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return g.opening(func() fuse.Status { return g.RawFileSystem.Mkdir(cancel, in, name, out) })
}

func (g gate) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return g.named(func() fuse.Status { return g.RawFileSystem.Lookup(cancel, in, name, out) })
}

func (g gate) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return g.named(func() fuse.Status { return g.RawFileSystem.Rename(cancel, in, from, to) })
}

func (g gate) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return g.named(func() fuse.Status { return g.RawFileSystem.Unlink(cancel, in, name) })
}

func (g gate) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return g.named(func() fuse.Status { return g.RawFileSystem.Rmdir(cancel, in, name) })
}

func (g gate) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return g.named(func() fuse.Status { return g.RawFileSystem.ReadDir(cancel, in, out) })
}

func (g gate) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return g.named(func() fuse.Status { return g.RawFileSystem.ReadDirPlus(cancel, in, out) })
}

// Release tells handles when the bridge is done with their release: the context of
// a release, which nobody can interrupt, ends then.
func (g gate) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	over := make(chan struct{})
	defer close(over)
	g.RawFileSystem.Release(over, in)
}
