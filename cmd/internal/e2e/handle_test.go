// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// A view is one way to an image's bytes that stays open.
type view struct {
	file *os.File
	mem  *memoryMap
}

func openView(t *testing.T, path string, mapped bool) *view {
	t.Helper()
	if mapped {
		return &view{mem: mapFile(t, path)}
	}
	f, err := os.Open(path)
	must(t, err)
	return &view{file: f}
}

// at returns what is at off.
func (v *view) at(off int64) ([]byte, error) {
	buf := make([]byte, 4096)
	if v.mem != nil {
		return buf, v.mem.read(buf, off)
	}
	_, err := v.file.ReadAt(buf, off)
	return buf, err
}

func (v *view) close() error {
	if v.mem != nil {
		return v.mem.close()
	}
	return v.file.Close()
}

// Descriptors and maps from before and after an image became whole live side by
// side, are closed in any order, and show the right bytes: with passthrough, where
// the modes must not mix on one inode, and without.
func TestHandlesAcrossCompletion(t *testing.T) {
	t.Parallel()
	orders := [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 2, 0, 3}, {2, 0, 3, 1}, {0, 2, 1, 3}, {1, 3, 0, 2}}
	reg := ocitest.Start(t, ocitest.Options{})
	content := randomBytes(18<<20 + 99)
	for i := range orders {
		copy(content, fmt.Sprint("image ", i))
		reg.PushSIF("demo/mixed", fmt.Sprint(i), content, nil)
	}
	for _, passthrough := range []string{"auto", "off"} {
		w := newWorld(t, "lab=oci,url="+reg.URL)
		m := w.mount("--passthrough=" + passthrough)
		for i, order := range orders {
			t.Run(fmt.Sprintf("%s/%v", passthrough, order), func(t *testing.T) {
				checkViews(t, m, i, order, bytes.Clone(content))
			})
		}
	}
}

func checkViews(t *testing.T, m *mounted, i int, order []int, content []byte) {
	copy(content, fmt.Sprint("image ", i))
	name := fmt.Sprintf("demo/mixed:%d", i)
	var views [4]*view
	check := func() {
		t.Helper()
		for k, v := range views {
			for _, off := range []int64{0, 9<<20 + 4096, int64(len(content)) - 4096} {
				if v == nil {
					continue
				}
				if got, err := v.at(off); err != nil || !bytes.Equal(got, content[off:off+4096]) {
					t.Fatalf("view %d at %d: wrong, %v", k, off, err)
				}
			}
		}
	}
	for k := range views {
		if k == 2 {
			m.w.ok("sreg", "pull", "lab://"+name)
		}
		views[k] = openView(t, m.path("lab/"+name+".sif"), k%2 == 1)
		check()
	}
	for _, k := range order {
		must(t, views[k].close())
		views[k] = nil
		check()
	}
}

// Hundreds of readers that are killed while they wait harm nobody else, and what
// they asked for is not fetched twice.
func TestInterruptStorm(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	// The first request that gets stuck is asked for twice, of whatever size up to 4 MiB: that is
	// within the 2 % below.
	content := randomBytes(208 << 20)
	reg.PushSIF("demo/storm", "1", content, nil)
	w := newWorld(t, "lab=oci,url="+reg.URL)
	m := w.mount()
	reg.Use(throttle(256 << 10))
	path := m.path("lab/demo/storm:1.sif")
	want := strings.TrimPrefix(ocitest.Digest(content), "sha256:")
	steady := make(chan string)
	for range 3 {
		go func() {
			out, err := exec.Command("sha256sum", path).Output()
			steady <- fmt.Sprintf("%.64s %v", out, err)
		}()
	}
	for i := range 200 {
		cmd := exec.Command("dd", "if="+path, "bs=64k", "count=4", "status=none", fmt.Sprintf("skip=%d", rand.IntN(700)))
		cmd.Stdout = io.Discard
		must(t, cmd.Start())
		<-time.After(rand.N(10 * time.Millisecond))
		_ = cmd.Process.Signal([]os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL}[i%3])
		_ = cmd.Wait()
	}
	for range 3 {
		if got := <-steady; got != want+" <nil>" {
			t.Errorf("a reader who was let alone: %s", got)
		}
	}
	if limit := int64(len(content)) / 100 * 102; reg.BlobBytes() > limit {
		t.Errorf("the registry sent %d bytes of %d", reg.BlobBytes(), len(content))
	}
}
