// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sregfs/sregfs/backends/hub/hubtest"
)

// startHub starts an archive with images of each format it has: a SIF file, two
// builds of one tag, a squashfs, and an ext3 file system that is compressed.
func (s *script) startHub(ts *testscript.TestScript, _ bool, _ []string) {
	sif, err := os.ReadFile(s.image)
	ts.Check(err)
	squashed, err := os.ReadFile(filepath.Join(filepath.Dir(s.image), "greet.simg"))
	ts.Check(err)
	built := time.Date(2018, 1, 1, 0, 0, 0, 0, time.UTC)
	s.hub = hubtest.Start(s.t, hubtest.Options{},
		hubtest.Image{Name: "vsoch/hello-world", Tag: "latest", Content: sif, License: "MIT"},
		hubtest.Image{Name: "vsoch/hello-world", Tag: "1.2/singularity", Content: append([]byte("older "), sif...), Built: built},
		hubtest.Image{Name: "vsoch/hello-world", Tag: "1.2/singularity", Content: sif, SHA256: true},
		hubtest.Image{Name: "vsoch/squashed", Tag: "v1", Content: squashed, Ext: "simg"},
		hubtest.Image{Name: "vsoch/legacy", Tag: "master", Content: compressed(ts), Ext: "img.gz"},
	)
	ts.Setenv("HUB", s.hub.URL)
	ts.Setenv("HUB_DATA", s.hub.DataURL)
	ts.Setenv("HUB_OLDER", hubtest.Image{Content: append([]byte("older "), sif...)}.Version())
}

// compressed is what begins as the image of an ext3 file system does.
func compressed(ts *testscript.TestScript) []byte {
	image := make([]byte, 1<<20)
	copy(image[1024+56:], "\x53\xef") // the magic of its superblock
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(image)
	ts.Check(err)
	ts.Check(w.Close())
	return b.Bytes()
}

func (s *script) refuseHub(*testscript.TestScript, bool, []string) {
	s.hub.Break(hubtest.Status(http.StatusForbidden))
}

func (s *script) stopHub(*testscript.TestScript, bool, []string) {
	s.hub.Break(hubtest.Status(http.StatusBadGateway))
}
