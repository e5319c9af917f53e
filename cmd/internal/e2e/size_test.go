// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// A registry takes a manifest with any size of a layer from anyone who may push.
// Such an image cannot be read; the mount, sreg and all other images go on.
func TestImpossibleSizes(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	content, err := os.ReadFile(greet)
	must(t, err)
	reg.PushSIF("team/tool", "good", content, nil)
	layer := reg.PutBlob("team/tool", append(bytes.Clone(content), 0)) // nothing of it is here
	config := reg.PutBlob("team/tool", []byte("{}"))
	sizes := []int64{1<<63 - 1, 1<<63 - 262145, 1 << 60, 1e15, 16<<40 + 1, 16 << 40, -1, -1 << 63}
	for _, size := range sizes {
		reg.PutManifest("team/tool", tagOf(size), ocitest.OCIManifest, map[string]any{
			"schemaVersion": 2, "mediaType": ocitest.OCIManifest,
			"config": map[string]any{"mediaType": ocitest.SIFConfig, "digest": config, "size": 2},
			"layers": []any{map[string]any{"mediaType": ocitest.SIFLayer, "digest": layer, "size": size}},
		})
	}
	w := newWorld(t, "lab=oci,url="+reg.URL)
	// sreg alone, in its own process: the good image comes, each other one is a line.
	got := w.run("sreg", "warm", "lab://**")
	if got.code == 0 || got.code == 2 || strings.Contains(got.err, "goroutine ") || !strings.Contains(got.err, tagOf(1<<60)) {
		t.Errorf("sreg warm: exit %d\n%s", got.code, got.err)
	}
	if state := w.ok("sreg", "get", "lab://team/tool:good"); state == "" {
		t.Error("the good image did not come")
	}
	m := w.mount()
	for _, size := range sizes {
		name := m.path("lab/team/tool:" + tagOf(size) + ".sif")
		f, err := os.Open(name)
		if err == nil {
			_, err = f.ReadAt(make([]byte, 4096), 0)
			f.Close()
		}
		if size != 16<<40 && !errors.Is(err, syscall.EIO) {
			t.Errorf("size %d: %v, want EIO", size, err)
		}
	}
	names, err := os.ReadDir(m.path("lab/team"))
	if err != nil || len(names) != len(sizes)+1 {
		t.Errorf("%d names are listed, %v; want all %d", len(names), err, len(sizes)+1)
	}
	read, err := os.ReadFile(m.path("lab/team/tool:good.sif"))
	if err != nil || !bytes.Equal(read, content) {
		t.Errorf("the good image: %d bytes, %v", len(read), err)
	}
}

func tagOf(size int64) string { return "s" + strconv.FormatUint(uint64(size), 10) }
