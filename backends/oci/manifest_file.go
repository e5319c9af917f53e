// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/sregfs/sregfs/backends/disk"
)

// A pack is a file of small records, the newest of each key at the end: a file for
// each would cost an inode and a block for each tag of a registry. What was written
// is never changed, so several processes may add to it; one that is full begins
// anew with the newer half. Nothing in it need be durable.
//
// A record is the CRC-32C of the rest, the length of the value (both four bytes,
// little-endian), the key, and the value.
type pack struct {
	path string

	mu    sync.Mutex // guards the fields below
	file  *os.File   // nil while it is not open
	info  os.FileInfo
	index map[packKey]extent
	end   int64 // up to which the index goes
}

type packKey [16]byte

// An extent is where a value is.
type extent struct {
	off int64
	n   uint32
}

const (
	packHead = 4 + 4 + int64(len(packKey{}))
	// maxPack is when a pack begins anew. Docker Hub's manifests have 2 KiB or so.
	maxPack = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newPack(dir string) *pack { return &pack{path: filepath.Join(dir, "manifests.pack")} }

func (p *pack) has(key packKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh()
	_, ok := p.index[key]
	return ok
}

// get returns the value of key, nil if there is none.
func (p *pack) get(key packKey) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh()
	s, ok := p.index[key]
	if !ok {
		return nil
	}
	b := make([]byte, s.n)
	if _, err := p.file.ReadAt(b, s.off); err != nil {
		return nil
	}
	return b
}

// put adds a record. Errors: those of the local disk.
func (p *pack) put(key packKey, value []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh()
	if p.file == nil {
		if err := os.MkdirAll(filepath.Dir(p.path), 0o700); err != nil {
			return err
		}
		if err := p.open(os.O_CREATE); err != nil {
			return err
		}
	}
	if p.end+packHead+int64(len(value)) > maxPack {
		if err := p.shrink(); err != nil {
			return err
		}
	}
	if info, err := p.file.Stat(); err != nil || info.Size() > p.end {
		// Cut off by a full disk, or damaged: what follows would not be found.
		if err := errors.Join(err, p.file.Truncate(p.end)); err != nil {
			return err
		}
	}
	if _, err := p.file.Write(record(key, value)); err != nil {
		return errors.Join(err, p.file.Truncate(p.end))
	}
	p.refresh()
	return nil
}

func record(key packKey, value []byte) []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 4, packHead+int64(len(value))), uint32(len(value)))
	b = append(append(b, key[:]...), value...)
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

// refresh reads what was added, and all of it where there is another file. Call with
// mu held.
func (p *pack) refresh() {
	now, err := os.Lstat(p.path)
	switch {
	case err != nil || !now.Mode().IsRegular():
		p.close()
		return
	case p.file == nil || !os.SameFile(now, p.info) || now.Size() < p.end:
		if p.open(0) != nil {
			return
		}
	}
	p.scan()
}

// open opens the file, which is not read yet.
func (p *pack) open(flag int) error {
	p.close()
	f, err := os.OpenFile(p.path, os.O_RDWR|os.O_APPEND|flag, 0o600)
	if err != nil {
		return err
	}
	if p.info, err = f.Stat(); err != nil {
		f.Close()
		return err
	}
	p.file, p.end, p.index = f, 0, map[packKey]extent{}
	return nil
}

func (p *pack) close() {
	if p.file != nil {
		p.file.Close()
	}
	p.file, p.end, p.index = nil, 0, nil
}

// scan reads on from end to the end of the file, or to the first record that is
// none.
func (p *pack) scan() {
	r := bufio.NewReader(io.NewSectionReader(p.file, p.end, maxPack-p.end))
	var head [packHead]byte
	var body []byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		n := binary.LittleEndian.Uint32(head[4:])
		if n > maxStored+1<<10 {
			return
		}
		body = append(append(body[:0], head[4:]...), make([]byte, n)...)
		if _, err := io.ReadFull(r, body[packHead-4:]); err != nil || crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(head[:]) {
			return
		}
		p.index[packKey(head[8:])] = extent{p.end + packHead, n}
		p.end += packHead + int64(n)
	}
}

// shrink begins anew with what was added last.
func (p *pack) shrink() error {
	f, err := disk.Create(p.path, disk.Replacement{Safety: disk.Volatile})
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for key, s := range p.index {
		if s.off < p.end/2 {
			continue
		}
		value := make([]byte, s.n)
		if _, err := p.file.ReadAt(value, s.off); err == nil {
			_, _ = w.Write(record(key, value)) // Flush tells
		}
	}
	if err := w.Flush(); err != nil {
		return errors.Join(err, f.Abort())
	}
	if err := f.Commit(); err != nil {
		return err
	}
	p.refresh()
	if p.file == nil {
		return os.ErrNotExist
	}
	return nil
}
