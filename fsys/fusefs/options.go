// SPDX-License-Identifier: Apache-2.0

package fusefs

import (
	"errors"
	"io/fs"
	"log"
	"log/slog"
	"time"
)

// Options tune a mount. The zero value has the defaults.
type Options struct {
	AllowOther bool        // other users may access the mount, within the permissions
	ReadOnly   bool        // the kernel refuses all writes
	UID, GID   uint32      // owner of all files; 0 means the process's own
	Umask      fs.FileMode // permissions that no file and directory has

	MountFlags MountFlags

	NoPassthrough bool          // read through this process also where the kernel could read the file itself
	NameTimeout   time.Duration // how long the kernel may cache a name; default 10 s
	Log           *slog.Logger

	trace *log.Logger // of go-fuse, each request and answer; for tests
}

// MountFlags are restrictions that the kernel applies, as mount(8) has them. nosuid,
// nodev and noatime always hold.
type MountFlags struct {
	NoExec  bool     // no file can be executed; programs that run images can read it
	Sync    bool     // the kernel's MS_SYNCHRONOUS
	DirSync bool     // the kernel's MS_DIRSYNC
	Labels  []string // "context=…" and the like, of SELinux; for root only
}

// Why a mount point cannot be used, beyond the sentinels of io/fs.
var (
	// ErrMounted: a sregfs is mounted there, and its process is alive.
	ErrMounted = errors.New("already mounted")
	// ErrBusy: an unmount while files are open.
	ErrBusy = errors.New("in use")
)

// A Refusal is a change of the tree that was refused. The program that tried it has seen
// the errno only, not the reason.
type Refusal struct {
	Time  time.Time // of the last time
	Op    string
	Path  string // below the mount point
	Errno string
	Error string
	Count int // how often
}
