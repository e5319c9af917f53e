// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"os"
)

// A recent is a file that lists the chunks that were written since the map was
// last replaced. It is never synced: what a process has written outlives the
// process in the page cache, with the data it speaks of, but not the machine. So
// it is believed within one boot only, and kill -9 costs no more than the chunks
// that were under way.
//
// It grows by the word of the bitmap that has changed with each chunk.
//
// A nil recent keeps nothing. Methods are called with data.mu held.
type recent struct {
	f   *os.File
	end int64 // of the list
}

const (
	recentMagic = "SREGRCT2"
	recentWords = 64 // offset of the list; the header is shorter
)

// recentHeader is what the file must begin with to speak of this blob, now.
func recentHeader(boot string, key Key, digest string, size int64) []byte {
	sum := sha256.Sum256([]byte(boot + "\x00" + string(key) + "\x00" + digest))
	b := append([]byte(recentMagic), sum[:]...)
	return binary.LittleEndian.AppendUint64(b, uint64(size))
}

// readRecent returns the chunks listed in the file at path. ok is false if it
// is not about this blob, or of another boot.
func readRecent(path, boot string, key Key, digest string, size int64) (have bitmap, ok bool) {
	if boot == "" {
		return nil, false
	}
	f, _, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMapFile))
	header := recentHeader(boot, key, digest, size)
	if err != nil || len(b) < recentWords || !bytes.HasPrefix(b, header) {
		return nil, false
	}
	b = b[recentWords:]
	return parseBitmap(b[:len(b)-len(b)%bitmapRecord], chunks(size)) // the last one may be cut off
}

// startRecent begins a new list with the chunks in have; nil where there can be
// none.
func startRecent(path, boot string, key Key, digest string, size int64, have bitmap) *recent {
	if boot == "" {
		return nil
	}
	f, err := os.OpenFile(path+tmpSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC, partMode)
	if err != nil {
		return nil
	}
	r := &recent{f: f, end: recentWords}
	header := make([]byte, recentWords)
	copy(header, recentHeader(boot, key, digest, size))
	if _, err = f.Write(header); err == nil {
		err = r.replace(have)
	}
	if err == nil {
		err = os.Rename(path+tmpSuffix, path)
	}
	if err != nil {
		r.close()
		return nil
	}
	return r
}

// note lists the chunks of the word that holds chunk c.
func (r *recent) note(c int64, have bitmap) {
	if r == nil {
		return
	}
	var one [bitmapRecord]byte
	binary.LittleEndian.PutUint64(one[:], uint64(c/64))
	binary.LittleEndian.PutUint64(one[8:], have.load(c))
	// A full disk costs fetching the chunk again one day.
	if n, err := r.f.WriteAt(one[:], r.end); err == nil {
		r.end += int64(n)
	}
}

// replace lists exactly the chunks in have.
func (r *recent) replace(have bitmap) error {
	if r == nil {
		return nil
	}
	if err := r.f.Truncate(recentWords); err != nil {
		return err
	}
	n, err := r.f.WriteAt(have.appendTo(nil), recentWords)
	r.end = recentWords + int64(n)
	return err
}

func (r *recent) close() {
	if r != nil {
		r.f.Close()
	}
}
