// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
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
			if err != nil || m.verified != 0 {
				continue
			}
			kept = max(kept, m.have.present(m.size))
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
func checkMap(t *testing.T, dir string, m *chunkMap, content []byte) {
	t.Helper()
	b, err := os.ReadFile(layout(dir).file(m.key) + partSuffix)
	if err != nil {
		return // the map of a moment between two names
	}
	for c := range chunks(m.size) {
		from, to := c*chunkSize, min((c+1)*chunkSize, m.size)
		if m.have.has(c) && !bytes.Equal(b[from:to], content[from:to]) {
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
	for n := chunks(crashSize) - 1; n >= 0; n-- {
		if from := n * chunkSize; b.Has(from, chunkSize) {
			mustRead(t, b, content, from, min(chunkSize, crashSize-from))
		}
	}
	if now := r.sent.Load(); now != sent {
		t.Errorf("%d bytes fetched of what Has promised", now-sent)
	}
	return b.State() == Cached
}

func FuzzDecodeMap(f *testing.F) {
	m := &chunkMap{key: Key(sha256Of(nil)), digest: sha256Of(nil), size: 3*chunkSize + 1, have: newBitmap(4),
		hashed: chunkSize, state: []byte("state"), verified: 12345}
	m.have.set(2)
	f.Add(m.encode())
	f.Add([]byte(mapMagic))
	f.Add(append(m.encode(), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := len(mapMagic) + 4; len(b) >= n { // a right checksum, or nothing else is ever looked at
			b = bytes.Clone(b)
			binary.LittleEndian.PutUint32(b[len(mapMagic):], crc32.Checksum(b[n:], castagnoli))
		}
		m, err := decodeMap(b)
		if err != nil {
			return
		}
		if n := chunks(m.size); m.have.count() > n || m.have.present(m.size) > m.size || m.hashed > m.size {
			t.Errorf("%d chunks of %d, %d bytes hashed of %d", m.have.count(), n, m.hashed, m.size)
		}
		again, err := decodeMap(m.encode())
		if err != nil || !bytes.Equal(again.encode(), m.encode()) {
			t.Errorf("round trip: %v", err)
		}
	})
}

func TestChunkMap(t *testing.T) {
	t.Parallel()
	m := &chunkMap{key: "version:ab", digest: "md5:0", size: 100*chunkSize + 1, have: newBitmap(101), hashed: 7, state: []byte{1, 2}}
	m.have.set(100)
	good := m.encode()
	got, err := decodeMap(good)
	if err != nil || got.key != m.key || got.digest != m.digest || got.size != m.size || got.hashed != 7 ||
		!bytes.Equal(got.state, m.state) || !got.have.has(100) || got.have.count() != 1 {
		t.Errorf("decodeMap = %+v, %v", got, err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := decodeMap(bad); err == nil {
			t.Errorf("a map with byte %d changed was accepted", i)
		}
		if _, err := decodeMap(good[:i]); err == nil {
			t.Errorf("a map cut to %d bytes was accepted", i)
		}
	}
}
