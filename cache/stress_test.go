// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// Whatever happens at once, nobody ever reads a wrong byte or gets stuck.
func TestCache_everythingAtOnce(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client := r.client(t)
	spool := t.TempDir()
	c := openCache(t, t.TempDir(), Options{MaxBytes: 8 * mib, FillDelay: time.Millisecond, dirtyAge: 3 * time.Millisecond})
	var images []backends.Image
	var contents [][]byte
	for i := range 6 {
		contents = append(contents, randomBytes(uint64(i), mib*(i+1)/2+i))
		images = append(images, r.image(strconv.Itoa(i), contents[i]))
	}
	images[5].Size = -1
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(worker), 3))
			for range 40 {
				i := rnd.IntN(len(images))
				key := KeyOf("lab", images[i])
				switch rnd.IntN(8) {
				case 0:
					c.Trim()
				case 1:
					if err := c.Remove(key); err != nil && !errors.Is(err, ErrInUse) {
						t.Errorf("Remove: %v", err)
					}
				case 2:
					path := filepath.Join(spool, strconv.Itoa(worker))
					mustDo(t, os.WriteFile(path, contents[i], 0o600), c.Adopt(path, images[i].Digest, int64(len(contents[i]))))
				case 3:
					if err := c.Verify(t.Context(), key, nil); errors.Is(err, backends.ErrCorrupt) {
						t.Errorf("Verify: %v", err)
					}
				case 4:
					for info := range c.Infos() {
						_ = info.Have
					}
				default:
					readSome(t, c, client, images[i], contents[i], rnd)
				}
			}
		})
	}
	wg.Wait()
	c.Trim()
	if used, limit := c.Usage(); used > limit {
		eventually(t, "room", func() bool { c.Trim(); used, _ := c.Usage(); return used <= limit })
	}
}

func readSome(t *testing.T, c *Cache, client *backends.Client, img backends.Image, content []byte, rnd *rand.Rand) {
	b, err := c.Blob(t.Context(), client, img)
	if err != nil {
		t.Errorf("Blob: %v", err)
		return
	}
	defer b.Close()
	p := make([]byte, 100<<10)
	for range 4 {
		off := rnd.Int64N(int64(len(content)))
		n, err := b.ReadAt(p, off)
		if n == 0 || !bytes.Equal(p[:n], content[off:off+int64(n)]) {
			t.Errorf("ReadAt(%d) = %d, %v, or other bytes", off, n, err)
		}
	}
	if rnd.IntN(3) == 0 {
		if err := b.Wait(t.Context(), nil); err != nil {
			t.Errorf("Wait: %v", err)
		}
	}
}

// A blob of which nothing is left is not forgotten while somebody is at work on
// it: who finds another item for its key would not wait.
func TestCache_forgottenByTheLast(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(1, 4*mib)
	img := r.image("a", content)
	key := KeyOf("lab", img)
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	b, err := c.Blob(t.Context(), r.client(t), img)
	mustDo(t, err)
	mustRead(t, b, content, mib, 10)
	f, err := c.table.take(t.Context(), key)
	mustDo(t, err, os.Remove(f.part(b.src.origin()).slot().part()), b.Close())
	eventually(t, "its committer's end", func() bool { d, _ := f.main.live(); return d == nil })
	other, err := c.table.lookup(key)
	if mustDo(t, err); other != f {
		t.Error("two families of one key")
	}
	f.release()
	eventually(t, "to be forgotten", func() bool { return c.table.get(key) == nil })
}
