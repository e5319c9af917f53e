// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/chunks"
)

// What the child of TestCrash is told.
const (
	crashDir  = "SREGFS_TEST_CACHE_DIR"
	crashURL  = "SREGFS_TEST_CACHE_URL"
	crashSize = 12*mib + 777
)

func crashImage() ([]byte, backends.Image) {
	content := randomBytes(7, crashSize)
	return content, backends.Image{Ref: backends.Ref{Collection: "c", Name: "a", Tag: "1"}, Size: crashSize,
		Digest: sha256Of(content), Version: etag(content)}
}

// TestCrashChild is no test of its own: TestCrash runs it in a process that it
// kills. It reads at random places of a cold image, for ever.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("runs as a child of TestCrash")
	}
	_, img := crashImage()
	r := &registry{}
	r.Server = newRegistry(t).Server
	r.URL = os.Getenv(crashURL)
	c := openCache(t, dir, Options{FillDelay: time.Millisecond, dirtyAge: 5 * time.Millisecond})
	b := openBlob(t, c, r.client(t), img)
	os.Stdout.WriteString("reading\n")
	rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	p := make([]byte, 200<<10)
	for {
		b.ReadAt(p, rnd.Int64N(crashSize))
	}
}

// A process killed at any moment leaves nothing that is taken for what it is not.
func TestCrash(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content, img := crashImage()
	r.put("a", content)
	r.set(faults{rate: 40 * mib}) // a whole download takes several lives
	dir := t.TempDir()
	key := KeyOf("lab", img)
	rounds, wholes, kept := 20, 0, int64(0)
	for round := range rounds {
		killChild(t, dir, r.URL, time.Duration(rand.IntN(150))*time.Millisecond)
		maps, _ := filepath.Glob(layout(dir).file(key) + "*" + mapSuffix)
		for _, path := range maps {
			m, err := readMap(path)
			if err != nil || m.Verified != 0 {
				continue
			}
			kept = max(kept, m.Have.Bytes(m.Size))
			checkMap(t, dir, m, content)
		}
		if round%5 == 4 && checkReopened(t, dir, r, img, content) {
			wholes++
			mustDo(t, os.RemoveAll(dir))
		}
	}
	if kept == 0 {
		t.Error("nothing ever survived: the test shows nothing")
	}
	t.Logf("%d lives, up to %d bytes kept over a death, whole %d times", rounds, kept, wholes)
	r.set(faults{})
	c := openCache(t, dir, Options{})
	b := openBlob(t, c, r.client(t), img)
	mustWait(t, b)
	mustRead(t, b, content, 0, crashSize)
}

// killChild runs the child and kills it at the given moment after it has begun.
func killChild(t *testing.T, dir, url string, moment time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashURL+"="+url)
	out, err := cmd.StdoutPipe()
	mustDo(t, err, cmd.Start())
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "reading"; {
		t.Log(lines.Text())
	}
	<-time.After(moment)
	mustDo(t, cmd.Process.Kill())
	cmd.Wait()
}

// checkMap compares the chunks that a map vouches for.
func checkMap(t *testing.T, dir string, m *chunks.Map, content []byte) {
	t.Helper()
	b, err := os.ReadFile(layout(dir).file(Key(m.Name)) + partSuffix)
	if err != nil {
		return // the map of a moment between two names
	}
	for c := range chunks.Count(m.Size) {
		from, to := c*chunks.Size, min((c+1)*chunks.Size, m.Size)
		if m.Have.Has(c) && !bytes.Equal(b[from:to], content[from:to]) {
			t.Fatalf("the map vouches for chunk %d, which holds other bytes", c)
		}
	}
}

// checkReopened reads what is here by the cache's own word, and reports whether
// that is all.
func checkReopened(t *testing.T, dir string, r *registry, img backends.Image, content []byte) bool {
	t.Helper()
	c := openCache(t, dir, Options{NoBackground: true})
	defer c.Close()
	b := openBlob(t, c, r.client(t), img)
	// What is still being sent to the dead one does not count.
	eventually(t, "end of all requests", func() bool { return r.open.Load() == 0 })
	sent := r.sent.Load()
	for n := chunks.Count(crashSize) - 1; n >= 0; n-- {
		if from := n * chunks.Size; b.Has(from, chunks.Size) {
			mustRead(t, b, content, from, min(chunks.Size, crashSize-from))
		}
	}
	if now := r.sent.Load(); now != sent {
		t.Errorf("%d bytes fetched of what Has promised", now-sent)
	}
	return b.State() == Cached
}
