// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
)

// A layout is the cache's directory:
//
//	CACHEDIR.TAG                     so that backups leave it out
//	blobs/sha256/ab/<hex>            a blob that is whole and was verified
//	blobs/sha256/ab/<hex>.part       a blob under way, sparse, of the final length
//	blobs/sha256/ab/<hex>.map        what of it can be trusted, see chunkMap
//	blobs/sha256/ab/<hex>.recent     what of it can be trusted until the machine stops
//	blobs/version/ab/<hex>           the same for services without such digests
//
// Anything may be deleted at any time: it is fetched again when it is asked for.
type layout string

const (
	partSuffix   = ".part"
	mapSuffix    = ".map"
	recentSuffix = ".recent"
	tmpSuffix    = ".tmp"    // a map being written
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

func (l layout) part(k Key) string   { return l.file(k) + partSuffix }
func (l layout) mapOf(k Key) string  { return l.file(k) + mapSuffix }
func (l layout) recent(k Key) string { return l.file(k) + recentSuffix }
func (l layout) stream(k Key) string { return l.file(k) + streamSuffix }

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

// drop removes all files of k. What describes the data goes before the data, the
// map durably: an old map must never describe a new file.
func (l layout) drop(k Key) error {
	var errs []error
	remove := func(path string) bool {
		err := os.Remove(path)
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		return err == nil
	}
	if remove(l.mapOf(k)) {
		errs = append(errs, syncFolder(filepath.Dir(l.file(k))))
	}
	remove(l.recent(k))
	remove(l.part(k))
	remove(l.file(k))
	return errors.Join(errs...)
}

// A found is one blob of which files are there.
type found struct {
	whole, part os.FileInfo // nil if there is none
	mapped      bool
	recent      bool
}

// walk returns what the directory holds, and deletes what a crash left over.
func (l layout) walk() (map[Key]*found, error) {
	blobs := map[Key]*found{}
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

// visit notes one file; names that are not ours are left alone.
func (l layout) visit(blobs map[Key]*found, kind, path string, e fs.DirEntry) error {
	name := e.Name()
	ext := filepath.Ext(name)
	key := Key(kind + ":" + strings.TrimSuffix(name, ext))
	if ext == tmpSuffix {
		key = Key(strings.TrimSuffix(strings.TrimSuffix(string(key), mapSuffix), recentSuffix))
	}
	if !key.valid() || l.file(key)+strings.TrimPrefix(filepath.Base(path), filepath.Base(l.file(key))) != path {
		return nil
	}
	info, err := e.Info()
	if err != nil {
		return nil //nolint:nilerr // gone meanwhile
	}
	if ext == tmpSuffix || ext == streamSuffix {
		return ignoreMissing(os.Remove(path))
	}
	f := blobs[key]
	if f == nil {
		f = &found{}
		blobs[key] = f
	}
	switch ext {
	case "":
		f.whole = info
	case partSuffix:
		f.part = info
	case mapSuffix:
		f.mapped = true
	case recentSuffix:
		f.recent = true
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// valid reports whether k has the form of a key, which makes it safe as a path.
func (k Key) valid() bool {
	kind, sum, _ := strings.Cut(string(k), ":")
	return (kind == "sha256" || kind == "version") && len(sum) == 2*sha256.Size && strings.Trim(sum, "0123456789abcdef") == ""
}

// KeyOf returns the key of img on the remote of that name.
func KeyOf(remote string, img backends.Image) Key {
	if k := Key(img.Digest); strings.HasPrefix(img.Digest, "sha256:") && k.valid() {
		return k
	}
	if archive.IsDigest(img.Digest) {
		// Same manifest, same bytes, whatever names it, and wherever.
		sum := sha256.Sum256([]byte(img.Digest))
		return Key("version:" + hex.EncodeToString(sum[:]))
	}
	fields := []string{remote, img.Ref.Collection, img.Ref.Name, img.Ref.Tag, img.Version}
	if img.Version == "" {
		// Without a validator take all that might change with the bytes.
		fields = append(fields, img.Digest, img.Modified.UTC().String(), img.Ref.Version)
	}
	h := sha256.New()
	for _, f := range fields {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(f)))
		h.Write(n[:])
		h.Write([]byte(f))
	}
	return Key("version:" + hex.EncodeToString(h.Sum(nil)))
}
