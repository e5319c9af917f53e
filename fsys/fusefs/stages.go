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

// A mount that ends while files are open drains: open files stay usable, and no others can
// be opened. It goes through these stages, in this order:
//
//	serving    all requests
//	draining   no opening, of files or directories; files being written can be closed and
//	           renamed, and so are published
//	retired    only requests on open files: the catalogue belongs to another process
//
// Other requests get ENOTCONN, as they will once this process has ended.
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

// begin is called before an opening, end afterwards. It reports whether openings are
// allowed.
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

func (o *openFiles) current() stage {
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

// await returns when no file is open for writing (for reading, without writing) and no
// opening is under way; or when over is closed. Errors: ctx's.
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

// A stageFilter refuses the requests that the stage of the mount does not allow.
type stageFilter struct {
	fuse.RawFileSystem
	files *openFiles
}

// ifServing runs a request that opens something.
func (g stageFilter) ifServing(open func() fuse.Status) fuse.Status {
	if !g.files.begin() {
		return fuse.Status(syscall.ENOTCONN)
	}
	defer g.files.end()
	status := open()
	if !status.Ok() && g.files.current() != serving {
		return fuse.Status(syscall.ENOTCONN) // it failed because the mount began to drain
	}
	return status
}

// unlessRetired runs a request that needs the catalogue.
func (g stageFilter) unlessRetired(do func() fuse.Status) fuse.Status {
	if g.files.current() == retired {
		return fuse.Status(syscall.ENOTCONN)
	}
	status := do()
	if !status.Ok() && g.files.current() == retired {
		return fuse.Status(syscall.ENOTCONN) // it failed because the catalogue is closed
	}
	return status
}

func (g stageFilter) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return g.ifServing(func() fuse.Status { return g.RawFileSystem.Open(cancel, in, out) })
}

func (g stageFilter) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return g.ifServing(func() fuse.Status { return g.RawFileSystem.OpenDir(cancel, in, out) })
}

func (g stageFilter) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return g.ifServing(func() fuse.Status { return g.RawFileSystem.Create(cancel, in, name, out) })
}

func (g stageFilter) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return g.ifServing(func() fuse.Status { return g.RawFileSystem.Mkdir(cancel, in, name, out) })
}

func (g stageFilter) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return g.unlessRetired(func() fuse.Status { return g.RawFileSystem.Lookup(cancel, in, name, out) })
}

func (g stageFilter) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return g.unlessRetired(func() fuse.Status { return g.RawFileSystem.Rename(cancel, in, from, to) })
}

func (g stageFilter) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return g.unlessRetired(func() fuse.Status { return g.RawFileSystem.Unlink(cancel, in, name) })
}

func (g stageFilter) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return g.unlessRetired(func() fuse.Status { return g.RawFileSystem.Rmdir(cancel, in, name) })
}

func (g stageFilter) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return g.unlessRetired(func() fuse.Status { return g.RawFileSystem.ReadDir(cancel, in, out) })
}

func (g stageFilter) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return g.unlessRetired(func() fuse.Status { return g.RawFileSystem.ReadDirPlus(cancel, in, out) })
}

// Release ends the context of a release when go-fuse's bridge is done with it, so that
// handles can wait for that. The kernel never interrupts a release.
func (g stageFilter) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	over := make(chan struct{})
	defer close(over)
	g.RawFileSystem.Release(over, in)
}
