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
	AllowOther bool        // other users may look into the mount, as far as permissions let them
	ReadOnly   bool        // the kernel refuses all writes
	UID, GID   uint32      // owner of all files; 0 means the process's own
	Umask      fs.FileMode // permissions that no file and directory has

	MountFlags MountFlags

	NoPassthrough bool          // read through this process also where the kernel could do without
	NameTimeout   time.Duration // how long the kernel believes a name without asking; default 10 s
	Log           *slog.Logger

	trace *log.Logger // of go-fuse, each request and answer; for tests
}

// MountFlags are restrictions that the kernel applies, as mount(8) has them. nosuid,
// nodev and noatime always hold.
type MountFlags struct {
	NoExec  bool     // no file can be executed; it can be read by what runs images
	Sync    bool     // the kernel's MS_SYNCHRONOUS
	DirSync bool     // the kernel's MS_DIRSYNC
	Labels  []string // "context=…" and the like, of SELinux; for root only
}

// Why a mount point cannot be used, beyond the sentinels of io/fs.
var (
	// ErrMounted: a file system of ours is there and lives.
	ErrMounted = errors.New("already mounted")
	// ErrBusy: an unmount while files are open.
	ErrBusy = errors.New("in use")
)

// A Refusal is a change of the tree that was refused: of the reason the program that
// tried it has seen the errno only.
type Refusal struct {
	Time  time.Time // of the last time
	Op    string
	Path  string // below the mount point
	Errno string
	Error string
	Count int // how often, one after the other or not
}
