// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// kills is how often TestKills kills; SREGFS_KILLS=100 for a figure to publish.
func kills(t *testing.T) int {
	s := os.Getenv("SREGFS_KILLS")
	if s == "" {
		return 10
	}
	n, err := strconv.Atoi(s)
	must(t, err)
	return n
}

// A ledger sends a blob at a settable pace and writes down what it had sent
// before, and lost with which kill.
type ledger struct {
	mu    sync.Mutex // guards the fields below
	life  int        // of the daemon, from 1
	sent  []int      // the life in which each block was sent the last time; 0 if never
	again []int64    // by life: bytes that it had got, and that were sent once more later
}

const block = 64 << 10

// begin notes that the daemon was started once more, with an empty cache if fresh.
func (l *ledger) begin(size int, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.life++
	l.again = append(l.again, 0)
	if fresh {
		l.sent = make([]int, (size+block-1)/block)
	}
}

// note is called when the block at off was sent.
func (l *ledger) note(off int64, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := off / block
	if was := l.sent[i]; was > 0 {
		l.again[was-1] += int64(n)
	}
	l.sent[i] = l.life
}

// lost returns what had to be sent again of each of these lives, the least first.
func (l *ledger) lost(lives []int) []int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := []int64{0}
	for _, life := range lives {
		lost = append(lost, l.again[life-1])
	}
	slices.Sort(lost)
	return lost
}

// answer is a liar that does not lie. It sends 25 MB a second and connection.
func (l *ledger) answer(w http.ResponseWriter, a asked, content []byte) {
	partial(w, a.from, a.to, a.size)
	tick := time.NewTicker(time.Second * block / 25e6)
	defer tick.Stop()
	for off := a.from; off < a.to; {
		end := min((off/block+1)*block, a.to)
		n, err := w.Write(content[off:end])
		if err != nil {
			return
		}
		l.note(off, n)
		off = end
		<-tick.C
	}
}

// However often the daemon is killed while images are read cold: every byte that
// is read is right, what a finished image consists of too, and little of what
// had been sent is asked for again.
func TestKills(t *testing.T) {
	t.Parallel()
	const size = 96<<20 + 4321
	reg := ocitest.Start(t, ocitest.Options{})
	content := randomBytes(size)
	reg.PushSIF("demo/big", "1", content, nil)
	book := &ledger{}
	reg.Use(lies("demo/big", content, book.answer))
	w := newWorld(t, "lab=oci,url="+reg.URL)
	var unfinished []int // lives that ended in the middle of the download
	whole, reads, fresh := 0, int64(0), true
	for range kills(t) {
		book.begin(size, fresh)
		m := w.mount()
		readers := readAtRandom(t, m.path("lab/demo/big:1.sif"), content)
		<-time.After(rand.N(700 * time.Millisecond))
		m.kill()
		reads += readers()
		fresh = wholeAndRight(t, w.path("cache"), content)
		if fresh {
			whole++
			must(t, os.RemoveAll(w.path("cache")))
		} else {
			unfinished = append(unfinished, book.life)
		}
	}
	book.begin(size, fresh)
	m := w.mount()
	if sum := w.ok("sha256sum", m.path("lab/demo/big:1.sif")); "sha256:"+strings.Fields(sum)[0] != ocitest.Digest(content) {
		t.Errorf("after the last restart: %s", sum)
	}
	lost := book.lost(unfinished)
	t.Logf("%d kills, of them %d in the middle of a download, %d images finished, %d MiB read; fetched again after a kill: median %d KiB, at most %d KiB",
		book.life-1, len(unfinished), whole, reads>>20, lost[len(lost)/2]>>10, lost[len(lost)-1]>>10)
	if most := lost[len(lost)-1]; most > 64<<20 {
		t.Errorf("a kill cost %d bytes", most)
	}
	if reads == 0 {
		t.Error("nothing was ever read: the test shows nothing")
	}
}

// readAtRandom reads the file in many ways until the mount goes away or nothing
// is new any more, and compares. The result waits for that and returns how many
// bytes were right.
func readAtRandom(t *testing.T, path string, content []byte) (wait func() int64) {
	var right atomic.Int64
	var wg sync.WaitGroup
	for reader := range 4 {
		wg.Go(func() {
			f, err := os.Open(path)
			if err != nil {
				return // killed already
			}
			defer f.Close()
			buf := make([]byte, 300_000)
			for off := int64(0); ; {
				n, err := f.ReadAt(buf, off)
				if !bytes.Equal(buf[:n], content[off:off+int64(n)]) {
					t.Errorf("wrong bytes within %d of %d", n, off)
				}
				right.Add(int64(n))
				if err != nil && err != io.EOF || right.Load() > 3*int64(len(content)) {
					return
				}
				off = (off + int64(n)) % int64(len(content))
				if reader > 0 {
					off = rand.Int64N(int64(len(content)))
				}
			}
		})
	}
	return func() int64 {
		wg.Wait()
		return right.Load()
	}
}

// wholeAndRight reports whether the image is whole in the cache, where it must
// have the right bytes then.
func wholeAndRight(t *testing.T, cache string, content []byte) bool {
	t.Helper()
	sum := sha256.Sum256(content)
	hexa := hex.EncodeToString(sum[:])
	got, err := os.ReadFile(filepath.Join(cache, "blobs", "sha256", hexa[:2], hexa))
	if err != nil {
		return false
	}
	if !bytes.Equal(got, content) {
		t.Error("the cache holds a whole image with wrong bytes")
	}
	return true
}
