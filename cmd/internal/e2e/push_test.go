// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// A copied image is what Apptainer would have pushed, and what another machine
// mounts, lists, reads and runs.
func TestCopyInAndRunElsewhere(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "squashfuse", "chroot")
	reg := ocitest.Start(t, ocitest.Options{})
	content, err := os.ReadFile(greet)
	must(t, err)

	here := newWorld(t, "lab=oci,url="+reg.URL)
	m := here.mount()
	here.ok("mkdir", m.path("lab/demo"))
	here.ok("cp", greet, m.path("lab/demo/greet:1.0.sif"))

	got, ok := reg.Manifest("demo/greet", "1.0")
	if !ok {
		t.Fatal("cp succeeded and the registry has no manifest")
	}
	checkManifest(t, got, ocitest.Digest(content), len(content))

	there := newWorld(t, "lab=oci,url="+reg.URL)
	m = there.mount()
	image := m.path("lab/demo/greet:1.0.sif")
	line := there.ok("ls", "-l", m.path("lab/demo"))
	if !strings.Contains(line, fmt.Sprint(len(content))) || !strings.Contains(line, "-r-xr-xr-x") {
		t.Errorf("ls -l: %s", line)
	}
	if sum := there.ok("sha256sum", image); "sha256:"+strings.Fields(sum)[0] != ocitest.Digest(content) {
		t.Errorf("sha256sum: %s", sum)
	}
	if out := runImage(there, image); out != "hello from sregfs args=a b\n" {
		t.Errorf("the image printed %q", out)
	}
}

// checkManifest compares what Apptainer looks at when it pulls.
func checkManifest(t *testing.T, text []byte, digest string, size int) {
	t.Helper()
	type descriptor struct {
		MediaType   string
		Digest      string
		Size        int
		Annotations map[string]string
	}
	var m struct {
		SchemaVersion int
		MediaType     string
		Config        descriptor
		Layers        []descriptor
	}
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("manifest: %v\n%s", err, text)
	}
	const emptyObject = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	if m.SchemaVersion != 2 || m.MediaType != ocitest.OCIManifest || len(m.Layers) != 1 ||
		m.Config.MediaType != ocitest.SIFConfig || m.Config.Digest != emptyObject || m.Config.Size != 2 {
		t.Fatalf("manifest: %s", text)
	}
	layer := m.Layers[0]
	if layer.MediaType != ocitest.SIFLayer || layer.Digest != digest || layer.Size != size ||
		layer.Annotations["org.opencontainers.image.title"] != "greet_1.0.sif" {
		t.Errorf("layer: %+v", layer)
	}
}

// runImage does what Apptainer does: mount the squashfs partition of the image
// from its path with squashfuse, then start its run script inside.
func runImage(w *world, image string) string {
	w.t.Helper()
	root := filepath.Join(w.t.TempDir(), "root")
	must(w.t, os.MkdirAll(root, 0o755))
	w.ok("squashfuse", "-o", "offset=36864", image, root)
	defer w.ok("fusermount3", "-u", root)
	return w.ok("chroot", root, "/.singularity.d/actions/run", "a", "b")
}

// A push that fails makes cp fail, and says why where the user can find it.
func TestFailedPushFailsTheCopy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		status int
		errno  string
	}{
		{"forbidden", http.StatusForbidden, "Permission denied"},
		{"full", http.StatusInsufficientStorage, "Disk quota exceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reg := ocitest.Start(t, ocitest.Options{})
			reg.Use(refuseUploads(tt.status))
			w := newWorld(t, "lab=oci,url="+reg.URL)
			m := w.mount()
			w.ok("mkdir", m.path("lab/demo"))
			r := w.run("cp", greet, m.path("lab/demo/greet:1.0.sif"))
			if r.code == 0 || !strings.Contains(r.err, tt.errno) {
				t.Errorf("cp: exit %d, %q; want a failure with %q", r.code, r.err, tt.errno)
			}
			uploads := w.status().Uploads
			if len(uploads) != 1 || uploads[0].Error == "" || uploads[0].Size == 0 {
				t.Fatalf("sreg status shows %+v; want the failed upload with its reason", uploads)
			}
			// What failed is kept, and goes through once the registry is well.
			reg.Heal()
			w.ok("sreg", "uploads", "retry", uploads[0].ID)
			if _, ok := reg.Manifest("demo/greet", "1.0"); !ok {
				t.Error("retried, and the registry has no manifest")
			}
			if left := w.status().Uploads; len(left) != 0 {
				t.Errorf("still in the spool: %+v", left)
			}
		})
	}
}

func refuseUploads(status int) ocitest.Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.Contains(req.URL.Path, "/blobs/uploads/") {
				http.Error(w, `{"errors":[{"code":"DENIED","message":"quota of the project is used up"}]}`, status)
				return
			}
			next.ServeHTTP(w, req)
		})
	}
}

// A part of an image is never published, whoever closed the file.
func TestInterruptedCopyIsNotPublished(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	w := newWorld(t, "lab=oci,url="+reg.URL)
	m := w.mount()
	w.ok("mkdir", m.path("lab/demo"))
	target := m.path("lab/demo/half:1.0.sif")
	// The writer is killed between two blocks: the kernel closes its file as if it were done.
	w.run("sh", "-c", `{ head -c 1000000 "$1"; kill -9 $$; } > "$2"`, "sh", greet, target)
	r := w.run("dd", "if="+greet, "of="+m.path("lab/demo/half:2.0.sif"), "bs=100000", "count=7", "status=none")
	if r.code == 0 {
		t.Error("dd of a part of an image succeeded")
	}
	for _, tag := range []string{"1.0", "2.0"} {
		if _, ok := reg.Manifest("demo/half", tag); ok {
			t.Errorf("half an image was published as %s", tag)
		}
	}
	if n := reg.Count(http.MethodPut, "/manifests/"); n != 0 {
		t.Errorf("%d manifests were put", n)
	}
	if uploads := w.status().Uploads; len(uploads) != 2 || uploads[0].State != "incomplete" {
		t.Errorf("sreg status shows %+v; want two incomplete drafts", uploads)
	}
}
