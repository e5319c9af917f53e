// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/cache/chunks"
)

// A layout is the cache's directory:
//
//	CACHEDIR.TAG                         so that backups leave it out
//	blobs/sha256/ab/<hex>                a blob that is whole and was verified
//	blobs/sha256/ab/<hex>.map            when that was, see chunks.Map
//	blobs/sha256/ab/<hex>.<from>.part    a blob under way from one origin, sparse, of the final length
//	blobs/sha256/ab/<hex>.<from>.map     what of it is on the disk, see chunks.Map
//	blobs/sha256/ab/<hex>.<from>.recent  what of it is there until the machine stops
//	blobs/version/ab/<hex>               the same for services without such digests
//	layers/sha256/ab/<hex>               what is known of a layer of container images, see package layers
//	remotes/<name>/                      what a backend keeps
//
// Anything may be deleted at any time: it is fetched again when it is asked for.
type layout string

// A slot is what the files of one blob of one origin have in common: their path
// without a suffix.
type slot string

func (s slot) part() string   { return string(s) + partSuffix }
func (s slot) mapOf() string  { return string(s) + mapSuffix }
func (s slot) recent() string { return string(s) + recentSuffix }
func (s slot) stream() string { return string(s) + streamSuffix }

const (
	partSuffix   = ".part"
	mapSuffix    = ".map"
	recentSuffix = ".recent"
	streamSuffix = ".stream" // a blob whose size is not known yet

	dirMode  = 0o700
	partMode = 0o600
	// An image can be executed; nothing of ours writes to a whole blob. The
	// directory keeps others out.
	wholeMode = 0o555
)

// The form is fixed by bford.info/cachedir.
const cacheTag = `Signature: 8a477f597d28d172789f06886806bc55
# Images that sregfs fetched. They are fetched again when this directory is deleted.
`

// file returns where the whole blob lies.
func (l layout) file(k Key) string {
	kind, sum, _ := strings.Cut(string(k), ":")
	return filepath.Join(string(l), "blobs", kind, sum[:2], sum)
}

// mapOf returns where it is noted that the whole blob was verified.
func (l layout) mapOf(k Key) string { return l.slot(k, "").mapOf() }

func (l layout) slot(k Key, from origin) slot {
	if from == "" {
		return slot(l.file(k))
	}
	return slot(l.file(k) + "." + string(from))
}

// remotes returns the folder in which the folders of the backends are.
func (l layout) remotes() string { return filepath.Join(string(l), "remotes") }

// layers returns the folder in which the indexes of layers are.
func (l layout) layers() string { return filepath.Join(string(l), "layers") }

// nowhere is a directory of l that is never made.
func (l layout) nowhere() layout { return layout(filepath.Join(string(l), "handed-over")) }

// create makes the directory and its tag.
func (l layout) create() error {
	if err := os.MkdirAll(string(l), dirMode); err != nil {
		return err
	}
	tag := filepath.Join(string(l), "CACHEDIR.TAG")
	if _, err := os.Lstat(tag); err == nil {
		return nil
	}
	return os.WriteFile(tag, []byte(cacheTag), 0o644)
}

// room makes the directory in which the files of k lie.
func (l layout) room(k Key) error { return os.MkdirAll(filepath.Dir(l.file(k)), dirMode) }

// drop removes all files of a slot. What describes the data goes before the data,
// the map durably: an old map must never describe a new file.
func (s slot) drop() error {
	var errs []error
	remove := func(path string) bool {
		err := os.Remove(path)
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		return err == nil
	}
	if remove(s.mapOf()) {
		errs = append(errs, disk.SyncDir(filepath.Dir(string(s))))
	}
	remove(s.recent())
	remove(s.part())
	remove(string(s))
	return errors.Join(errs...)
}

// A found is the files of one slot.
type found struct {
	key        Key
	from       origin
	file, part os.FileInfo // nil if there is none
	mapped     bool
	recent     bool
}

// walk returns what the directory holds, and deletes what a crash left over.
func (l layout) walk() (map[slot]*found, error) {
	blobs := map[slot]*found{}
	for _, kind := range []string{"sha256", "version"} {
		err := filepath.WalkDir(filepath.Join(string(l), "blobs", kind), func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || e.IsDir() {
				return err
			}
			return l.visit(blobs, kind, path, e)
		})
		if err != nil {
			return nil, err
		}
	}
	return blobs, nil
}

// visit notes one file; names that are not ours are left alone. Parts without an
// origin, which earlier versions kept, are deleted: nobody vouches for their bytes.
func (l layout) visit(blobs map[slot]*found, kind, path string, e fs.DirEntry) error {
	sum, rest, _ := strings.Cut(e.Name(), ".")
	key, from := Key(kind+":"+sum), origin("")
	if first, suffix, ok := strings.Cut(rest, "."); ok && origin(first).valid() {
		from, rest = origin(first), suffix
	}
	if !key.valid() || filepath.Dir(l.file(key)) != filepath.Dir(path) {
		return nil
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil //nolint:nilerr // gone meanwhile
	}
	if !backends.OnlyOurs(info) {
		_ = os.Remove(path) // somebody else put it there; openRegular would not take it
		return nil
	}
	at := l.slot(key, from)
	f := blobs[at]
	if f == nil {
		f = &found{key: key, from: from}
	}
	switch suffix := "." + rest; {
	case rest == "" && from == "":
		f.file = info
	case suffix == mapSuffix:
		f.mapped = true
	case suffix == partSuffix && from != "":
		f.part = info
	case suffix == recentSuffix && from != "":
		f.recent = true
	case slices.Contains([]string{partSuffix, recentSuffix, streamSuffix, mapSuffix + chunks.TmpSuffix, recentSuffix + chunks.TmpSuffix}, suffix):
		return ignoreMissing(os.Remove(path))
	default:
		return nil
	}
	blobs[at] = f
	return nil
}

var errNotOurs = errors.New("not a file of the cache")

// openRegular opens a file that must be what the cache put there: a regular file
// that only we can have written, and that has no other name through which it could be
// written to later.
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

// verdict notes beside the blob that its digest matched. If that fails, the blob is read
// and compared once more later.
func verdict(dir layout, key Key, digest string, info os.FileInfo, log *slog.Logger) {
	m := &chunks.Map{File: chunks.File{Name: string(key), Digest: digest, Size: info.Size()}, Verified: info.ModTime().UnixNano()}
	if old, err := readMap(dir.mapOf(key)); err == nil {
		m.Verity = old.Verity // of another file, perhaps: then the kernel's hash differs
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

// A shared cache is the directory of another cache, of the site for example, in which
// whole blobs are looked for. It is never written to and no lock is taken on it. Naming it
// means trusting its owner: its files, and the directories above them, must belong to that
// owner, to root or to us, and no other user may write to them. A blob is used if the map
// beside it says that its digest matched, with the file's modification time; else it is
// read once and compared. A blob without a digest that can be computed is not used.

// shared opens a file of a shared cache. Errors: those of the disk;
// fs.ErrPermission if a user who is not trusted may have changed it.
func (l layout) shared(path string) (*os.File, os.FileInfo, error) {
	top, err := os.Stat(string(l))
	if err != nil {
		return nil, nil, err
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Lstat(dir)
		if dir == string(l) {
			info = top // which may be a link: it was named
		}
		if err == nil {
			err = trusted(info, top)
		}
		if err != nil {
			return nil, nil, err
		}
		if dir == string(l) {
			break
		}
	}
	f, err := backends.OpenRegular(path, os.O_RDONLY|backends.NoFollow, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = trusted(info, top)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// trusted returns an error if the file may have been changed by a user other than root,
// us, and the owner of the shared cache at top.
func trusted(info, top os.FileInfo) error {
	owner, ok := ownerOf(info)
	named, _ := ownerOf(top)
	switch {
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%w: %s can be written to by others (mode %#o)", fs.ErrPermission, info.Name(), info.Mode().Perm())
	case ok && owner != 0 && owner != os.Getuid() && owner != named:
		return fmt.Errorf("%w: %s belongs to uid %d, not to the cache's owner", fs.ErrPermission, info.Name(), owner)
	}
	return nil
}

// notes reports whether the map beside a shared blob says that its digest matched, with the
// modification time that the file has.
func (l layout) notes(key Key, info os.FileInfo) bool {
	f, _, err := l.shared(l.mapOf(key))
	if err != nil {
		return false
	}
	defer f.Close()
	m, err := chunks.ReadMap(f)
	return err == nil && m.Name == string(key) && m.Size == info.Size() && m.Verified == info.ModTime().UnixNano()
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
