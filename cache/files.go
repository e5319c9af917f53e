// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"syscall"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/cache/chunks"
)

var errNotOurs = errors.New("not a file of the cache")

// openRegular opens a file that must be what the cache put there: a regular file
// that only we can have written, under no other name, so that nobody's later write
// goes into it.
func openRegular(path string, flag int) (*os.File, os.FileInfo, error) {
	f, err := backends.OpenRegular(path, flag|backends.NoFollow, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EISDIR) || errors.Is(err, fs.ErrInvalid) {
		return nil, nil, fmt.Errorf("%w: %v", errNotOurs, err)
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && (disk.Names(info) > 1 || !backends.OnlyOurs(info)) {
		err = errNotOurs
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// readMap reads the map file at path. Errors: any means that there is no map.
func readMap(path string) (*chunks.Map, error) {
	f, _, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return chunks.ReadMap(f)
}

// readRecent reads the list at path; ok is false if there is none for this blob.
func readRecent(path string, of chunks.File) (have chunks.Set, ok bool) {
	f, _, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	return chunks.ReadRecent(f, bootID(), of)
}

// verdict notes beside the blob that it is as it should be. An error costs
// reading it once more.
func verdict(dir layout, key Key, digest string, info os.FileInfo, log *slog.Logger) {
	m := &chunks.Map{File: chunks.File{Name: string(key), Digest: digest, Size: info.Size()}, Verified: info.ModTime().UnixNano()}
	if old, err := readMap(dir.mapOf(key)); err == nil {
		m.Verity = old.Verity // of no use if it is another file: the kernel will say so
	}
	if err := m.Write(dir.mapOf(key)); err != nil {
		log.Warn("cannot note that a blob was verified", "key", key, "err", err)
	}
}

// verityOn switches fs-verity on for f and returns the kernel's hash of it.
func verityOn(f *os.File, info os.FileInfo) (sum string, err error) {
	if sum, err := measureVerity(f); err == nil {
		return sum, nil
	}
	// The kernel wants write permission on the file, though not an open one.
	if err := f.Chmod(info.Mode() | 0o200); err != nil {
		return "", err
	}
	err = enableVerity(f)
	if err := errors.Join(err, f.Chmod(info.Mode())); err != nil {
		return "", err
	}
	return measureVerity(f)
}

// guarded reports whether the kernel vouches that f is the file that was noted.
func guarded(m *chunks.Map, f *os.File) bool {
	if m.Verity == "" {
		return false
	}
	sum, err := measureVerity(f)
	return err == nil && sum == m.Verity
}
