// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// On a cache disk that is too small images are read all the same, what was used
// longest ago makes room, and the daemon lives.
func TestFullCacheDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	reg := ocitest.Start(t, ocitest.Options{})
	images := map[string][]byte{"first": randomBytes(9 << 20), "large": randomBytes(40 << 20)}
	for name, content := range images {
		copy(content, name)
		reg.PushSIF("demo/"+name, "1", content, nil)
	}
	for _, verify := range []string{"lazy", "strict"} {
		t.Run(verify, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "lab=oci,url="+reg.URL)
			must(t, os.Mkdir(w.path("cache"), 0o700))
			must(t, syscall.Mount("tmpfs", w.path("cache"), "tmpfs", 0, "size=24m,mode=0700"))
			t.Cleanup(func() { must(t, syscall.Unmount(w.path("cache"), syscall.MNT_DETACH)) })
			m := w.mount("--verify="+verify, "--min-free=1M")
			for _, name := range []string{"first", "large", "first"} {
				r := w.run("sha256sum", m.path("lab/demo/"+name+":1.sif"))
				switch {
				case name == "large" && verify == "strict":
					if r.code == 0 || !strings.Contains(r.err, "No space left on device") {
						t.Errorf("strict, where the image cannot be kept: exit %d, %q", r.code, r.err)
					}
				case r.code != 0 || "sha256:"+strings.Fields(r.out)[0] != ocitest.Digest(images[name]):
					t.Errorf("%s: exit %d, %s%s", name, r.code, r.out, r.err)
				}
			}
			m.stop()
			checkCache(t, w.path("cache"))
		})
	}
}

// An image that never matches its digest is refused, and wherever one looks the
// reason is given.
func TestRefusedImageSaysWhy(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "getfattr")
	reg := ocitest.Start(t, ocitest.Options{})
	content := randomBytes(2 << 20)
	reg.PushSIF("demo/bad", "1", content, nil)
	reg.Use(lies("demo/bad", content, liars["a bit, always"].answer))
	w := newWorld(t, "lab=oci,url="+reg.URL)
	m := w.mount()
	path := m.path("lab/demo/bad:1.sif")
	for range 3 {
		if r := w.run("cat", path); r.code == 0 || !strings.Contains(r.err, "Input/output error") {
			t.Errorf("cat: exit %d, %q", r.code, r.err)
		}
	}
	if sent := reg.BlobBytes(); sent > 2*int64(len(content)) {
		t.Errorf("%d bytes were fetched of an image of %d", sent, len(content))
	}
	const why = "content does not match its digest"
	if got := w.ok("getfattr", "--only-values", "-n", "user.sreg.error", path); !strings.Contains(got, why) {
		t.Errorf("user.sreg.error is %q", got)
	}
	if got := w.ok("sreg", "status"); !strings.Contains(got, why) {
		t.Errorf("sreg status does not say why:\n%s", got)
	}
	if r := w.run("sreg", "pull", "lab://demo/bad:1"); r.code != 6 || !strings.Contains(r.err, why) {
		t.Errorf("sreg pull: exit %d, %q", r.code, r.err)
	}
}
