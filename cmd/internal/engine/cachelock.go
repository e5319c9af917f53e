// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
)

// A cacheLock holds a cache directory. The lock of the state directory is not
// enough: a home directory on the network is one cache for several machines, and
// two state directories may name the same cache.
type cacheLock struct {
	dir  string
	file *os.File
}

// lockCache takes dir, or where somebody else has it a directory below it that
// belongs to this state directory alone.
func lockCache(dir, state string) (*cacheLock, error) {
	l, err := tryLockCache(dir)
	if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, errNoFlock) {
		return l, err
	}
	host, _ := os.Hostname()
	sum := sha256.Sum256([]byte(host + "\x00" + state))
	own := filepath.Join(dir, "by-state", hex.EncodeToString(sum[:8]))
	if l, err = tryLockCache(own); errors.Is(err, errNoFlock) {
		// Nobody but the holder of the state directory, on this host, has this name.
		return &cacheLock{dir: own}, nil
	}
	return l, err
}

// errNoFlock: the filesystem has no flock(2), as Lustre without -o flock.
var errNoFlock = errors.New("the filesystem cannot lock files")

// cannotWrite reports whether an error of lockCache says that the directory is not
// to be written to, by the disk or by its mode.
func cannotWrite(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}

// stopgap is the cache where cache_dir cannot be written to.
func (o Options) fallbackCache() string { return filepath.Join(o.State, "cache") }

// metadata is where the backend of a remote keeps what can be fetched again: in the cache
// that is used, which counts it. Backends are opened before that.
func (o Options) metadata(remote string) string {
	all := filepath.Join(o.Settings.CacheDir, "remotes")
	if cannotWrite(writable(all)) {
		all = filepath.Join(o.fallbackCache(), "remotes")
	}
	return filepath.Join(all, remote)
}

// writable says why nothing can be written to dir, or it cannot be made.
func writable(dir string) error {
	err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	if up := filepath.Dir(dir); errors.Is(err, unix.ENOENT) && up != dir {
		return writable(up)
	}
	return err
}

func tryLockCache(dir string) (*cacheLock, error) {
	// Whoever can write to it can put another image in the place of a verified one.
	if err := statedir.Private(dir, 0o022); err != nil {
		return nil, err
	}
	f, err := backends.OpenRegular(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|backends.NoFollow, 0o600)
	if err != nil {
		return nil, err
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		return &cacheLock{dir: dir, file: f}, nil
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EBADF):
		f.Close()
		return nil, fmt.Errorf("%w: %v", errNoFlock, err)
	default:
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
}

func (l *cacheLock) release() {
	if l.file != nil {
		_ = l.file.Close()
	}
}
