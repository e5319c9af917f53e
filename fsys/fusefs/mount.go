// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/fsys"
)

// A Mounted is a tree that is mounted. Its methods may be called from many
// goroutines at once.
type Mounted struct {
	opts   Options
	path   string
	device string // as in mountinfo; "" if it is not in this namespace
	disk   string
	log    *slog.Logger
	tree   *fsys.FS
	server *fuse.Server
	root   *dirNode
	done   chan struct{} // closed when the mount is over

	files     openFiles
	opened    openedImages
	notifier  *notifier
	refusals  refusals
	backing   backing
	readAhead string
	counts    struct{ passthrough, cached, written atomic.Int64 }
}

// Mount mounts a tree on a directory, and returns when it can be used. The mount
// lasts until Unmount, or until somebody else unmounts it; ctx ends only the
// mounting.
//
// A dead mount of ours on the directory, which a crash left, is removed first.
//
// Errors, each with what to do about it: fs.ErrNotExist, fs.ErrExist (not empty),
// fs.ErrInvalid (not a directory), ErrMounted, fs.ErrPermission,
// errors.ErrUnsupported (no FUSE here).
func Mount(ctx context.Context, mountpoint string, tree *fsys.FS, opts Options) (*Mounted, error) {
	opts.NameTimeout = cmp.Or(opts.NameTimeout, defaultNameTimeout)
	opts.UID = cmp.Or(opts.UID, uint32(os.Getuid()))
	opts.GID = cmp.Or(opts.GID, uint32(os.Getgid()))
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	path, err := Check(ctx, mountpoint, opts)
	if err != nil {
		return nil, err
	}
	m := &Mounted{
		opts: opts, path: path, log: opts.Log, tree: tree,
		disk: cmp.Or(tree.Disk(), os.TempDir()), done: make(chan struct{}),
	}
	m.notifier = newNotifier(m)
	m.root = &dirNode{m: m, dir: tree.Root()}
	if m.server, err = m.attach(); err != nil {
		return nil, fmt.Errorf("mounting on %s: %w", path, err)
	}
	if entry, ok := findMountNow(path); ok { // before anybody can use it, and unmount it
		m.device = entry.device
	}
	m.serve()
	if err := m.waitMount(); err != nil {
		m.Detach() //nolint:errcheck // the first error is the one to tell
		return nil, fmt.Errorf("mounting on %s: %v", path, err)
	}
	m.backing.start(m.server, !opts.NoPassthrough, m.disk, m.log)
	m.readAhead = raiseReadAhead(m.device)
	return m, nil
}

// waitMount returns when the mount answers. go-fuse opens a file of it for that, without
// O_CLOEXEC (fuse/poll_unix.go). A program that is started meanwhile would inherit the
// descriptor and keep the mount busy, so waitMount holds the fork lock.
func (m *Mounted) waitMount() error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return m.server.WaitMount()
}

// serve starts the goroutines of the mount; all of them end with done.
func (m *Mounted) serve() {
	stop := m.tree.Watch(m.notifier.add)
	go m.notifier.run(m.done)
	go func() {
		m.server.Serve()
		stop()
		close(m.done)
	}()
}

// attach mounts: with mount(2) if permitted, else with fusermount3. go-fuse passes the
// same options to both, but mount(2) takes some of them as flags.
func (m *Mounted) attach() (*fuse.Server, error) {
	if isInherited(m.path) {
		return fuse.NewServer(m.raw(), m.path, m.mountOptions())
	}
	flags, words := m.opts.kernelFlags()
	if os.Geteuid() == 0 {
		o := m.mountOptions(append([]string{"default_permissions"}, m.opts.MountFlags.Labels...)...)
		o.DirectMountStrict = true
		o.DirectMountFlags = flags
		server, err := m.attachDirectly(o)
		if err == nil || !haveFusermount() {
			return server, err
		}
		m.log.Info("mount(2) refused, trying fusermount3", "err", err)
		m.root = &dirNode{m: m, dir: m.tree.Root()}
	}
	return fuse.NewServer(m.raw(), m.path, m.mountOptions(append([]string{"default_permissions"}, words...)...))
}

// kernelFlags returns the options that the kernel implements, as flags for mount(2) and as
// words for fusermount3.
func (o Options) kernelFlags() (flags uintptr, words []string) {
	for _, f := range []struct {
		on   bool
		flag uintptr
		word string
	}{
		{true, syscall.MS_NOSUID, "nosuid"},
		{true, syscall.MS_NODEV, "nodev"},
		{true, syscall.MS_NOATIME, "noatime"},
		{o.ReadOnly, syscall.MS_RDONLY, "ro"},
		{o.MountFlags.NoExec, syscall.MS_NOEXEC, "noexec"},
		{o.MountFlags.Sync, syscall.MS_SYNCHRONOUS, "sync"},
		{o.MountFlags.DirSync, syscall.MS_DIRSYNC, "dirsync"},
	} {
		if f.on {
			flags |= f.flag
			words = append(words, f.word)
		}
	}
	return flags, words
}

// attachDirectly mounts with mount(2), and sets O_CLOEXEC on /dev/fuse, which go-fuse
// 2.12.1 opens without. If a program that we start inherited the descriptor, the mount
// would hang after our process was killed, instead of being dead.
func (m *Mounted) attachDirectly(o *fuse.MountOptions) (*fuse.Server, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	server, err := fuse.NewServer(m.raw(), m.path, o)
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if n, err := strconv.Atoi(fd.Name()); err == nil {
			if name, _ := os.Readlink("/proc/self/fd/" + fd.Name()); name == "/dev/fuse" {
				syscall.CloseOnExec(n)
			}
		}
	}
	return server, err
}

func (m *Mounted) raw() fuse.RawFileSystem {
	// Timeouts are set for each entry.
	return stageFilter{gofs.NewNodeFS(m.root, &gofs.Options{
		NullPermissions: true,
		RootStableAttr:  &gofs.StableAttr{Ino: fuse.FUSE_ROOT_ID, Gen: firstGeneration},
		Logger:          slog.NewLogLogger(m.log.Handler(), slog.LevelWarn),
	}), &m.files}
}

func (m *Mounted) mountOptions(options ...string) *fuse.MountOptions {
	logger := slog.NewLogLogger(m.log.Handler(), slog.LevelWarn)
	if m.opts.trace != nil {
		logger = m.opts.trace
	}
	return &fuse.MountOptions{
		FsName:     "sregfs",
		Name:       fsName,
		AllowOther: m.opts.AllowOther,
		Options:    options,
		// Reads that wait for a registry must not block others: six hung files use up
		// the kernel's default of 12.
		MaxBackground: 512,
		// A request with its header must fit into a pipe, whose maximum is 1 MiB
		// (fs.pipe-max-size), or go-fuse cannot splice and logs that each time. First
		// reads measured: 1.8 GB/s, against 1.5 GB/s at 1 MiB without splicing.
		MaxWrite:                512 << 10,
		MaxInflightRequestBytes: 512 << 20,
		IgnoreSecurityLabels:    true,
		// O_TRUNC must come with the opening: the kernel would otherwise truncate an
		// image that others read. Attributes are sent with names only after a program
		// has asked for attributes.
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_READDIRPLUS_AUTO,
		MaxStackDepth:     stackDepth(m.disk),
		Logger:            logger,
		Debug:             m.opts.trace != nil,
		PanicHandler: func(v any) fuse.Status {
			_ = backends.Guard(m.log, func() error { panic(v) }) // logs it
			return fuse.EIO
		},
	}
}

// Path returns the mount point, absolute.
func (m *Mounted) Path() string { return m.path }

// Wait returns when the mount has ended, in any way, and all files are closed.
func (m *Mounted) Wait() error {
	<-m.done
	return nil
}

// Settle returns when the kernel was notified of all changes of the tree until now: no
// program sees a deleted file any more. A program that holds the kernel's lock on a
// directory can delay that, so ctx should end soon.
func (m *Mounted) Settle(ctx context.Context) error { return m.notifier.wait(ctx) }

// Unmount ends the mount and waits for that, but not for other mount namespaces
// that have a copy of it: there it lives as long as this process. Where it is not mounted
// any more, or was mounted by the process that handed the mount to us, Unmount does
// nothing.
//
// Errors: ErrBusy while files are open.
func (m *Mounted) Unmount() error {
	if !m.isOurs() {
		return nil
	}
	if err := unmount(m.path, false); err != nil {
		return err
	}
	select {
	case <-m.done:
	case <-time.After(connectionEnd):
		m.log.Warn("unmounted, but another mount namespace (a container, most often) still has the mount: it ends there with this process")
	}
	return nil
}

// Detach is Unmount while files are open, as umount -l does it: the mount point is free at
// once and the files stay usable. Detach does not wait for them: Wait does.
func (m *Mounted) Detach() error {
	if !m.isOurs() {
		return nil
	}
	return unmount(m.path, true)
}

// isOurs reports whether this mount is the one at the mount point, and not another that
// was mounted after a lazy unmount.
func (m *Mounted) isOurs() bool {
	select {
	case <-m.done:
		return false
	default:
	}
	now, ok := findMountNow(m.path)
	return ok && now.device == m.device
}

// connectionEnd is how long after an unmount the kernel closes the connection, unless the
// mount was copied to another namespace (mount_namespaces(7)), where it stays.
const connectionEnd = 2 * time.Second

// Status tells how the mount works, for people: passthrough, read_ahead, kernel
// (the FUSE protocol it speaks), and how many files were opened in each way.
func (m *Mounted) Status() map[string]string {
	k := m.server.KernelSettings()
	return map[string]string{
		"passthrough":       m.backing.String(),
		"read_ahead":        m.readAhead,
		"kernel":            fmt.Sprintf("FUSE %d.%d", k.Major, k.Minor),
		"opens_passthrough": strconv.FormatInt(m.counts.passthrough.Load(), 10),
		"opens_cached":      strconv.FormatInt(m.counts.cached.Load(), 10),
		"opens_written":     strconv.FormatInt(m.counts.written.Load(), 10),
	}
}
