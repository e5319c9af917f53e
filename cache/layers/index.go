// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/zran"
)

// An index is the file of what is known of one layer: records that are only ever added,
// each with its length, a CRC-32C, and a gob, deflated. It is cut off behind the last
// record that is whole. A layer that was read to its end and found right has its index
// under its digest; before, under its origin too, since nothing of it was verified.
type index struct {
	f    *os.File
	path string // "" if there is no directory for it: it ends with the image
	size int64  // of the file, in bytes
}

// A record is what one step of reading a layer has shown.
type record struct {
	// Of the file: what it is about.
	Version int
	Layer   digest.Digest

	Entries []vsif.Entry // since the last record
	Next    int64        // where in the tar the header behind them begins
	Sums    [][]byte     // SHA-256 of further chunks of the tar
	Point   *point       // where inflating can begin
	End     *end         // no more of it follows
	Members []vsif.Member
	Held    *held // a file that has the tar; behind the end
}

// A point is where reading a layer can begin: Point.Out bytes behind the start of its tar.
type point struct {
	Point zran.Point
	Blob  []byte // state of the layer's digest there
	Tar   []byte // state of the tar's digest there
}

// An end is what is known of a layer that was read to its end and found right.
type end struct {
	Size int64 // of the tar, in bytes
}

// A held is a file in the cache that has the tar of the layer.
type held struct {
	Name   string // see Options.Whole
	Offset int64  // of the tar in it
}

const (
	indexVersion = 1
	recordHead   = 8
	maxRecord    = 256 << 20
	partSuffix   = ".part"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A pathOf returns where the index of a layer is; from is the origin of one that was not
// verified, else "".
func pathOf(dir string, layer digest.Digest, from string) string {
	if dir == "" {
		return ""
	}
	path := filepath.Join(dir, string(layer.Algorithm()), layer.Encoded()[:2], layer.Encoded())
	if from != "" {
		path += "." + from + partSuffix
	}
	return path
}

// openIndex opens the index of a layer, or begins one, and gives its records to take.
// Errors: those of the disk.
func openIndex(dir string, layer digest.Digest, from string, take func(record, int64)) (*index, error) {
	for _, path := range []string{pathOf(dir, layer, ""), pathOf(dir, layer, from)} {
		if x, err := readIndex(path, layer, take); err == nil {
			return x, nil
		}
	}
	if dir == "" {
		f, err := os.CreateTemp("", "sregfs-layer-")
		if err != nil {
			return nil, err
		}
		x := &index{f: f}
		_, err = x.add(record{Version: indexVersion, Layer: layer})
		return x, errors.Join(err, os.Remove(f.Name()))
	}
	path := pathOf(dir, layer, from)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	x := &index{f: f, path: path}
	if _, err = x.add(record{Version: indexVersion, Layer: layer}); err != nil {
		f.Close()
		return nil, err
	}
	return x, nil
}

var errOtherIndex = errors.New("the index of something else")

// readIndex opens an index that is there.
func readIndex(path string, layer digest.Digest, take func(record, int64)) (*index, error) {
	if path == "" {
		return nil, fs.ErrNotExist
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	x := &index{f: f, path: path}
	first := true
	for {
		at := x.size
		r, n, err := x.read(at)
		if first && (err != nil || r.Version != indexVersion || r.Layer != layer) {
			f.Close()
			return nil, errors.Join(errOtherIndex, err)
		}
		if err != nil { // cut off, or the end
			return x, f.Truncate(x.size)
		}
		x.size += n
		if !first {
			take(r, at)
		}
		first = false
	}
}

// read returns the record at an offset of the file, and how long it is.
func (x *index) read(at int64) (r record, n int64, err error) {
	head := make([]byte, recordHead)
	if _, err := x.f.ReadAt(head, at); err != nil {
		return r, 0, err
	}
	size := binary.LittleEndian.Uint32(head)
	if size > maxRecord {
		return r, 0, fmt.Errorf("%w: a record of %d bytes", errOtherIndex, size)
	}
	text := make([]byte, size)
	if _, err := x.f.ReadAt(text, at+recordHead); err != nil {
		return r, 0, err
	}
	if crc32.Checksum(text, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return r, 0, fmt.Errorf("%w: a checksum does not match", errOtherIndex)
	}
	err = gob.NewDecoder(flate.NewReader(bytes.NewReader(text))).Decode(&r)
	return r, recordHead + int64(size), err
}

// add adds a record, and returns at which offset it stands. Errors: those of the disk.
func (x *index) add(r record) (at int64, err error) {
	var b bytes.Buffer
	b.Write(make([]byte, recordHead))
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(gob.NewEncoder(w).Encode(r), w.Close()); err != nil {
		return 0, err
	}
	text := b.Bytes()
	binary.LittleEndian.PutUint32(text, uint32(len(text)-recordHead)) //nolint:gosec // its parts are bounded
	binary.LittleEndian.PutUint32(text[4:], crc32.Checksum(text[recordHead:], castagnoli))
	at = x.size
	if _, err := x.f.WriteAt(text, at); err != nil {
		return 0, err
	}
	x.size += int64(len(text))
	return at, nil
}

// finish gives the index of a layer that was found right its final name, durably.
func (x *index) finish(dir string, layer digest.Digest) error {
	path := pathOf(dir, layer, "")
	if path == x.path {
		return nil
	}
	if err := x.f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(x.path, path); err != nil {
		return err
	}
	x.path = path
	return disk.SyncDir(filepath.Dir(path))
}

// drop removes the index.
func (x *index) drop() {
	x.f.Close()
	if x.path != "" {
		_ = os.Remove(x.path)
	}
}

// entries returns all headers of the layer, in their order.
func (x *index) entries() (all []vsif.Entry, err error) {
	for at := int64(0); at < x.size; {
		r, n, err := x.read(at)
		if err != nil {
			return nil, err
		}
		all, at = append(all, r.Entries...), at+n
	}
	return all, nil
}

// chunkOf is the number of the chunk of a tar that a byte of it lies in.
func chunkOf(off int64) int { return int(chunks.Of(off)) }
