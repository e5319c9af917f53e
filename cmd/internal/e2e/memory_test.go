// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sylabs/sif/v2/pkg/sif"

	"github.com/sregfs/sregfs/backends/dropbox/dropboxtest"
	"github.com/sregfs/sregfs/backends/gcs/gcstest"
	"github.com/sregfs/sregfs/backends/http/webtest"
	"github.com/sregfs/sregfs/backends/library/librarytest"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
)

const (
	largeSize = 2 << 30   // bytes of the image
	mostRSS   = 200 << 20 // bytes that the daemon may have in memory at any time
)

// A large is an image of 2 GB on the disk.
type large struct {
	path, sha256, md5 string
}

// newLarge makes a SIF file for this machine, with a partition of a kind into which
// nobody looks.
func newLarge(t *testing.T) large {
	t.Helper()
	l := large{path: filepath.Join(t.TempDir(), "large.sif")}
	object, err := sif.NewDescriptorInput(sif.DataPartition, io.LimitReader(new(places), largeSize),
		sif.OptPartitionMetadata(sif.FsExt3, sif.PartPrimSys, runtime.GOARCH))
	must(t, err)
	img, err := sif.CreateContainerAtPath(l.path, sif.OptCreateWithDescriptors(object))
	must(t, err)
	must(t, img.UnloadContainer())
	f, err := os.Open(l.path)
	must(t, err)
	defer f.Close()
	sha, sum := sha256.New(), md5.New()
	_, err = io.Copy(io.MultiWriter(sha, sum), f)
	must(t, err)
	l.sha256, l.md5 = hex.EncodeToString(sha.Sum(nil)), hex.EncodeToString(sum.Sum(nil))
	return l
}

// places is bytes that tell where they are, eight at a time: parts that are
// exchanged do not go unnoticed. It is the offset of the next one, a multiple of 8.
type places uint64

func (at *places) Read(p []byte) (int, error) {
	n := len(p) &^ 7
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], uint64(*at)+uint64(i))
	}
	*at += places(n)
	return n, nil
}

// A memoryCase is one kind of remote with the large image in it.
type memoryCase struct {
	start   func(t *testing.T, l large) (remote string)
	image   string // its path in the mount
	archive bool   // it is a layer of a container image
	pushed  bool   // it gets there by being copied in
}

// However large an image is, the daemon that fetches or pushes it stays small.
func TestMemory(t *testing.T) {
	l := newLarge(t)
	for name, c := range memoryCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "r="+c.start(t, l))
			m := w.mount()
			if c.pushed {
				w.ok("mkdir", "-p", filepath.Dir(m.path(c.image)))
				w.ok("cp", l.path, m.path(c.image))
				// It is in the cache now, but has to come from the registry.
				w.ok("sreg", "cache", "clean", "--all", "--yes")
			}
			if c.archive {
				w.ok("md5sum", m.path(c.image))
			} else {
				w.ok("cmp", m.path(c.image), l.path)
			}
			if peak := peakRSS(t, m.cmd.Process.Pid); peak > mostRSS {
				t.Errorf("the daemon had %d MiB in memory", peak>>20)
			} else {
				t.Logf("the daemon had %d MiB in memory at most", peak>>20)
			}
		})
	}
}

var memoryCases = map[string]memoryCase{
	"http": {image: "r/c/large:1.sif", start: func(t *testing.T, l large) string {
		srv := webtest.Nginx(t, webtest.Options{})
		serve(t, srv, l, "c/large:1.sif")
		must(t, os.WriteFile(filepath.Join(srv.Root, "c", "SHA256SUMS"), []byte(l.sha256+"  large:1.sif\n"), 0o644))
		return "http,url=" + srv.URL
	}},
	"hub": {image: "r/vsoch/large:latest.sif", start: func(t *testing.T, l large) string {
		srv := webtest.Nginx(t, webtest.Options{})
		file := "vsoch/large/latest/2021-04-19-3bac21df-" + l.md5[:8] + "/" + l.md5 + ".sif"
		serve(t, srv, l, "shub/"+file)
		info, err := os.Stat(l.path)
		must(t, err)
		index, err := json.Marshal(map[string]any{"collections": map[string]any{}, "images": map[string]any{"vsoch/large": []any{map[string]any{
			"id": 1, "branch": "master", "commit": "3bac21df631874e3cbb3f0cf6fc9af1898f4cc3d", "tag": "latest", "version": l.md5, "md5": l.md5,
			"build_date": "2021-04-19T23:13:56.202Z", "size": info.Size(), "size_mb": 2048, "file": file, "collection": 1,
		}}}})
		must(t, err)
		srv.Put("shub/_data_/images.json", index, time.Now())
		return "hub,url=" + srv.URL + ",data=" + srv.URL + "/shub"
	}},
	"oci": {image: "r/demo/large:1.sif", pushed: true, start: func(t *testing.T, _ large) string {
		return "oci,url=" + ocitest.Start(t, ocitest.Options{}).URL
	}},
	"dropbox": {image: "r/demo/large:1.sif", pushed: true, start: func(t *testing.T, _ large) string {
		return "dropbox,url=" + dropboxtest.Start(t, dropboxtest.Options{}).URL + ",token_command=echo " + dropboxtest.Token
	}},
	"google-storage": {image: "r/demo/large:1.sif", pushed: true, start: func(t *testing.T, _ large) string {
		return "google-storage,bucket=" + gcstest.Bucket + ",url=" + gcstest.Start(t, gcstest.Options{}).URL + ",token_command=echo " + gcstest.Token
	}},
	"library, raw":       libraryCase("raw", func(*testing.T) librarytest.Options { return librarytest.Options{} }),
	"library, single":    libraryCase("single", stored),
	"library, multipart": libraryCase("multipart", stored),
	"library, oci": libraryCase("oci", func(t *testing.T) librarytest.Options {
		return librarytest.Options{Registry: ocitest.Start(t, ocitest.Options{})}
	}),
	"sregistry, library": sregistryCase("library"),
	"sregistry, upload":  sregistryCase("upload"),
	"container image": {image: "r/demo/large+1.oci.tar", archive: true, start: func(t *testing.T, l large) string {
		reg := ocitest.Start(t, ocitest.Options{})
		f, err := os.Open(l.path)
		must(t, err)
		defer f.Close()
		info, err := f.Stat()
		must(t, err)
		digest := reg.PutLarge("demo/large", "sha256:"+l.sha256, f, info.Size())
		config := []byte(`{"architecture":"amd64","os":"linux"}`)
		reg.PutManifest("demo/large", "1", ocitest.OCIManifest, map[string]any{
			"schemaVersion": 2, "mediaType": ocitest.OCIManifest,
			"config": map[string]any{"mediaType": ocitest.OCIConfig, "digest": reg.PutBlob("demo/large", config), "size": len(config)},
			"layers": []any{map[string]any{"mediaType": ocitest.OCILayer, "digest": digest, "size": info.Size()}},
		})
		return "oci,show=oci.tar,url=" + reg.URL
	}},
}

// libraryCase is a library to which images are pushed in one of its ways.
func libraryCase(pushBy string, options func(t *testing.T) librarytest.Options) memoryCase {
	return memoryCase{image: "r/vanessa/tools/large:1.sif", pushed: true, start: func(t *testing.T, _ large) string {
		srv := librarytest.Start(t, options(t))
		return "library,url=" + srv.URL + ",push_by=" + pushBy + ",token_command=echo " + librarytest.Token
	}}
}

func stored(t *testing.T) librarytest.Options {
	t.Helper()
	return librarytest.Options{Store: librarytest.StartStore(t)}
}

// sregistryCase is a registry server, with the same.
func sregistryCase(pushBy string) memoryCase {
	return memoryCase{image: "r/tools/large:1.sif", pushed: true, start: func(t *testing.T, _ large) string {
		srv := sregistrytest.Start(t, sregistrytest.Options{})
		return "sregistry,url=" + srv.URL + ",push_by=" + pushBy + ",user=" + sregistrytest.User + ",token_command=echo " + sregistrytest.Token
	}}
}

// serve lets a web server have the image at a path.
func serve(t *testing.T, srv *webtest.Server, l large, path string) {
	t.Helper()
	at := filepath.Join(srv.Root, path)
	must(t, os.MkdirAll(filepath.Dir(at), 0o755))
	must(t, os.Link(l.path, at))
}

// peakRSS returns the most memory that a process has had, in bytes (proc(5)).
func peakRSS(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(after)
	if len(fields) < 2 {
		t.Fatalf("no VmHWM in %s", status)
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	must(t, err)
	return kib << 10
}
