// SPDX-License-Identifier: Apache-2.0

package chunks

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"os"
)

// A Recent is a file that lists the chunks that were written since the map was
// last replaced. It is never synced: what a process has written outlives the
// process in the page cache, with the data it speaks of, but not the machine. So
// it is believed within one boot only, and kill -9 costs no more than the chunks
// that were under way.
//
// It grows by the word of the set that has changed with each chunk.
//
// A nil Recent keeps nothing. It is not for concurrent use.
type Recent struct {
	f   *os.File
	end int64 // of the list
}

// A Boot names the time since the machine was started; "" if it cannot be told.
type Boot string

const (
	recentMagic = "SREGRCT2"
	recentWords = 64 // offset of the list; the header is shorter
)

// recentHeader is what the file must begin with to speak of this blob, now.
func recentHeader(boot Boot, of File) []byte {
	sum := sha256.Sum256([]byte(string(boot) + "\x00" + of.Name + "\x00" + of.Digest))
	b := append([]byte(recentMagic), sum[:]...)
	return binary.LittleEndian.AppendUint64(b, uint64(of.Size))
}

// ReadRecent returns the chunks that a list names. ok is false if it is about
// another blob, or of another boot.
func ReadRecent(r io.Reader, boot Boot, of File) (have Set, ok bool) {
	if boot == "" {
		return nil, false
	}
	b, err := io.ReadAll(io.LimitReader(r, maxMapFile))
	if err != nil || len(b) < recentWords || !bytes.HasPrefix(b, recentHeader(boot, of)) {
		return nil, false
	}
	b = b[recentWords:]
	return parseSet(b[:len(b)-len(b)%setRecord], Count(of.Size)) // the last one may be cut off
}

// StartRecent begins a new list at path with the chunks in have; nil where there
// can be none.
func StartRecent(path string, boot Boot, of File, have Set) *Recent {
	if boot == "" {
		return nil
	}
	f, err := os.OpenFile(path+TmpSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return nil
	}
	r := &Recent{f: f, end: recentWords}
	header := make([]byte, recentWords)
	copy(header, recentHeader(boot, of))
	if _, err = f.Write(header); err == nil {
		err = r.Replace(have)
	}
	if err == nil {
		err = os.Rename(path+TmpSuffix, path)
	}
	if err != nil {
		r.Close()
		return nil
	}
	return r
}

// Note lists the chunks of the word that holds chunk c.
func (r *Recent) Note(c int64, have Set) {
	if r == nil {
		return
	}
	var one [setRecord]byte
	binary.LittleEndian.PutUint64(one[:], uint64(c/64))
	binary.LittleEndian.PutUint64(one[8:], have.load(c))
	// A full disk costs fetching the chunk again one day.
	if n, err := r.f.WriteAt(one[:], r.end); err == nil {
		r.end += int64(n)
	}
}

// Replace lists exactly the chunks in have.
func (r *Recent) Replace(have Set) error {
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

// Close closes the file, which stays.
func (r *Recent) Close() {
	if r != nil {
		r.f.Close()
	}
}
