// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
)

// The index is kept as it came, after a line with the SHA-256 of the rest. There
// is no end to how long: nothing is added to the archive. Whoever wants to see
// whether something was removed deletes the file.

const (
	keptFormat = "sregfs index of shub 1 sha256:%064x\n"
	keptLine   = len("sregfs index of shub 1 sha256:") + 64 + 1 // bytes
)

// keptFile is the file in the cache's directory; "" if there is none. Another
// address has another index.
func keptFile(dir, address string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, fmt.Sprintf("images-%.8x.json", sha256.Sum256([]byte(address))))
}

// readKept returns the index that was kept, nil if there is none that can be
// trusted.
func (c *client) readKept() *index {
	if c.kept == "" {
		return nil
	}
	ix, err := readKept(c.kept, c.most)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Info("the kept index is fetched again", "err", err)
	}
	return ix
}

func readKept(path string, most int64) (*index, error) {
	f, err := backends.OpenRegular(path, os.O_RDONLY|backends.NoFollow, 0)
	if err != nil {
		return nil, errors.Join(err, errNotKept)
	}
	defer f.Close()
	line := make([]byte, keptLine)
	if _, err := io.ReadFull(f, line); err != nil {
		return nil, errNotKept
	}
	sum := sha256.New()
	ix, err := decode(io.TeeReader(f, sum), most)
	if err != nil {
		return nil, err
	}
	if string(line) != fmt.Sprintf(keptFormat, sum.Sum(nil)) {
		return nil, errNotKept
	}
	return ix, nil
}

var errNotKept = errors.New("not as it was written")

// An indexCopy writes what is fetched to a new file. An error on the way makes keep fail,
// never the fetch.
type indexCopy struct {
	file *disk.PendingFile // nil if there is none
	sum  hash.Hash
	err  error
}

// newIndexCopy returns one, of nothing where there is no cache.
func (c *client) newIndexCopy() *indexCopy {
	k := &indexCopy{sum: sha256.New()}
	if c.kept == "" {
		return k
	}
	if k.err = os.MkdirAll(filepath.Dir(c.kept), 0o700); k.err == nil {
		// What a power failure leaves of it is noticed by its sum.
		k.file, k.err = disk.Create(c.kept, disk.Replacement{Safety: disk.Volatile})
	}
	if k.err == nil {
		_, k.err = fmt.Fprintf(k.file, keptFormat, make([]byte, sha256.Size))
	}
	return k
}

// Write implements io.Writer. It takes everything.
func (k *indexCopy) Write(p []byte) (int, error) {
	if k.file != nil && k.err == nil {
		_, k.err = k.file.Write(p)
		k.sum.Write(p)
	}
	return len(p), nil
}

// keep gives the file its name.
func (k *indexCopy) keep() error {
	if k.file == nil || k.err != nil {
		return k.err
	}
	if _, err := k.file.WriteAt(fmt.Appendf(nil, keptFormat, k.sum.Sum(nil)), 0); err != nil {
		return err
	}
	file := k.file
	k.file = nil
	return file.Commit()
}

// drop removes a file that was not kept.
func (k *indexCopy) drop() {
	if k.file != nil {
		_ = k.file.Abort()
	}
}
