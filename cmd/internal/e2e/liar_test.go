// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// An asked is one request for bytes of a blob: those of [from, to), and how many
// requests for bytes of this blob there were before.
type asked struct {
	from, to, size int64
	ranged         bool
	before         int64
}

// A liar answers a request for bytes of content as it likes.
type liar func(w http.ResponseWriter, a asked, content []byte)

// lies lets a liar serve the blobs of one repository.
func lies(repo string, content []byte, answer liar) ocitest.Middleware {
	var before atomic.Int64
	blob := "/v2/" + repo + "/blobs/" + ocitest.Digest(content)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method != http.MethodGet || req.URL.Path != blob {
				next.ServeHTTP(w, req)
				return
			}
			a := asked{size: int64(len(content)), before: before.Add(1) - 1}
			a.to = a.size
			if n, _ := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-%d", &a.from, &a.to); n == 2 {
				a.ranged, a.to = true, min(a.to+1, a.size)
			}
			if a.from >= a.to {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			answer(w, a, content)
		})
	}
}

// partial begins an answer that claims to be the bytes [from, to) of total.
func partial(w http.ResponseWriter, from, to, total int64) {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, total))
	w.Header().Set("Content-Length", strconv.FormatInt(to-from, 10))
	w.WriteHeader(http.StatusPartialContent)
}

func honest(w http.ResponseWriter, a asked, content []byte) {
	partial(w, a.from, a.to, a.size)
	_, _ = w.Write(content[a.from:a.to])
}

// other returns the bytes [from, to) of content with a bit changed at an offset
// that a reader of the whole comes to late.
func other(content []byte, from, to int64) []byte {
	b := bytes.Clone(content[from:to])
	if at := int64(len(content) / 4 * 3); from <= at && at < to {
		b[at-from] ^= 1
	}
	return b
}

// dishonest is as honest, but for a bit.
func dishonest(w http.ResponseWriter, a asked, content []byte) {
	partial(w, a.from, a.to, a.size)
	_, _ = w.Write(other(content, a.from, a.to))
}

// All liars. Whoever reads a whole image gets the right bytes or an error.
var liars = map[string]struct {
	answer  liar
	claims  int64 // by how much the manifest's size is wrong
	succeed bool  // the lie does no harm: reading must work
}{
	"honest":                   {answer: honest, succeed: true},
	"manifest says larger":     {answer: honest, claims: 1000},
	"manifest says a lot more": {answer: honest, claims: 5 << 20},
	"manifest says smaller":    {answer: honest, claims: -1000},
	"header shifted": {answer: func(w http.ResponseWriter, a asked, content []byte) {
		partial(w, a.from+1, a.to+1, a.size)
		_, _ = w.Write(content[a.from:a.to])
	}},
	"bytes shifted": {answer: func(w http.ResponseWriter, a asked, content []byte) {
		from := min(a.from+1, a.size-(a.to-a.from))
		partial(w, a.from, a.to, a.size)
		_, _ = w.Write(content[from : from+a.to-a.from])
	}},
	"other total": {answer: func(w http.ResponseWriter, a asked, content []byte) {
		partial(w, a.from, a.to, a.size+1)
		_, _ = w.Write(content[a.from:a.to])
	}},
	"more than asked": {answer: func(w http.ResponseWriter, a asked, content []byte) {
		to := min(a.to+4096, a.size)
		partial(w, a.from, to, a.size)
		_, _ = w.Write(content[a.from:to])
	}},
	"no header": {answer: func(w http.ResponseWriter, a asked, content []byte) {
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(content[a.from:a.to])
	}},
	"longer body": {succeed: true, answer: func(w http.ResponseWriter, a asked, content []byte) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", a.from, a.to-1, a.size))
		w.WriteHeader(http.StatusPartialContent) // no length: in chunks
		_, _ = w.Write(content[a.from:a.to])
		_, _ = w.Write(content[:4096])
	}},
	"broken off": {succeed: true, answer: func(w http.ResponseWriter, a asked, content []byte) {
		partial(w, a.from, a.to, a.size)
		_, _ = w.Write(content[a.from:min(a.to, a.from+700_000)])
		if a.to > a.from+700_000 {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}},
	"ends politely too early": {succeed: true, answer: func(w http.ResponseWriter, a asked, content []byte) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", a.from, a.to-1, a.size))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(content[a.from:min(a.to, a.from+700_000)])
	}},
	"other file, other ETag": {answer: func(w http.ResponseWriter, a asked, content []byte) {
		if a.before == 0 {
			w.Header().Set("ETag", `"one"`)
			honest(w, a, content)
			return
		}
		w.Header().Set("ETag", `"two"`)
		dishonest(w, a, content)
	}},
	"other file, same ETag": {answer: func(w http.ResponseWriter, a asked, content []byte) {
		w.Header().Set("ETag", `"one"`)
		if a.before == 0 {
			honest(w, a, content)
			return
		}
		dishonest(w, a, content)
	}},
	"200 to a range": {succeed: true, answer: func(w http.ResponseWriter, a asked, content []byte) {
		w.Header().Set("Content-Length", strconv.FormatInt(a.size, 10))
		_, _ = w.Write(content)
	}},
	"200 with the range": {answer: func(w http.ResponseWriter, a asked, content []byte) {
		_, _ = w.Write(content[a.from:a.to])
	}},
	"200 with another file": {answer: func(w http.ResponseWriter, a asked, content []byte) {
		_, _ = w.Write(other(content, 0, a.size))
	}},
	"a bit, once": {answer: func(w http.ResponseWriter, a asked, content []byte) {
		if a.before < 2 {
			dishonest(w, a, content)
			return
		}
		honest(w, a, content)
	}},
	"a bit, always": {answer: dishonest},
	"zeros": {answer: func(w http.ResponseWriter, a asked, _ []byte) {
		partial(w, a.from, a.to, a.size)
		_, _ = w.Write(make([]byte, a.to-a.from))
	}},
	"compressed": {answer: func(w http.ResponseWriter, a asked, content []byte) {
		w.Header().Set("Content-Encoding", "gzip")
		honest(w, a, content)
	}},
}

// However a registry lies about sizes, ranges and bytes: who reads a whole image
// gets the right bytes or an error, and no file of the cache is wrong.
func TestLyingRegistry(t *testing.T) {
	t.Parallel()
	for _, passthrough := range []string{"auto", "off"} {
		t.Run("passthrough "+passthrough, func(t *testing.T) {
			t.Parallel()
			reg := ocitest.Start(t, ocitest.Options{})
			for name := range liars {
				seedLiar(reg, name)
			}
			w := newWorld(t, "lab=oci,url="+reg.URL)
			m := w.mount("--passthrough=" + passthrough)
			t.Run("group", func(t *testing.T) {
				for name := range liars {
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						checkLiar(t, m.path("lab/"+liarRepo(name)+":1.sif"), name, liarImage(name))
					})
				}
			})
			m.stop()
			checkCache(t, w.path("cache"))
		})
	}
}

// The same of a layer of a container image, of whose file nobody has a digest.
func TestLyingRegistry_containerImages(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	files := map[string]func() []byte{}
	for name := range liars {
		files[name] = seedLayer(t, reg, name)
	}
	m := newWorld(t, "lab=oci,show=oci.tar,url="+reg.URL).mount()
	for name := range liars {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkLiar(t, m.path("lab/"+liarRepo(name)+"+1.oci.tar"), name, files[name]())
		})
	}
}

// seedLayer publishes a container image with a layer that the liar serves, and
// returns what builds the file that it must be.
func seedLayer(t *testing.T, reg *ocitest.Registry, name string) (build func() []byte) {
	t.Helper()
	repo, layer, config := liarRepo(name), liarImage(name), []byte(`{"os":"linux"}`)
	describe := func(mediaType string, blob []byte, claims int64) map[string]any {
		return map[string]any{"mediaType": mediaType, "digest": reg.PutBlob(repo, blob), "size": int64(len(blob)) + claims}
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": ocitest.OCIManifest, "config": describe(ocitest.OCIConfig, config, 0),
		"layers": []any{describe(ocitest.OCILayer, layer, liars[name].claims)},
	})
	must(t, err)
	reg.PutManifest(repo, "1", ocitest.OCIManifest, manifest)
	reg.Use(lies(repo, layer, liars[name].answer))
	a, err := archive.New(manifest)
	must(t, err)
	return func() []byte {
		r, err := a.Open(0, -1, func(digest string, size, off, n int64) (io.ReadCloser, error) {
			blob := config
			if digest != ocitest.Digest(config) {
				blob = append(bytes.Clone(layer), make([]byte, max(size-int64(len(layer)), 0))...)
			}
			return io.NopCloser(bytes.NewReader(blob[off : off+n])), nil
		})
		must(t, err)
		file, err := io.ReadAll(r)
		must(t, err)
		return file
	}
}

func liarRepo(name string) string {
	return "demo/" + strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(name))
}

// liarImage returns the true bytes, more than are always verified first; no two
// liars have the same. They lie in one piece of memory: a page further on for
// each of the others whose name comes before.
func liarImage(name string) []byte {
	const size, page = 17<<20 + 777, 4096
	from := page * slices.Index(slices.Sorted(maps.Keys(liars)), name)
	return liarBytes()[from:][:size:size]
}

var liarBytes = sync.OnceValue(func() []byte { return randomBytes(18 << 20) })

// seedLiar publishes an image and puts its liar before it.
func seedLiar(reg *ocitest.Registry, name string) {
	repo, content, l := liarRepo(name), liarImage(name), liars[name]
	reg.PushSIF(repo, "1", content, nil)
	if l.claims != 0 {
		reg.PutManifest(repo, "1", ocitest.OCIManifest, map[string]any{
			"schemaVersion": 2, "mediaType": ocitest.OCIManifest,
			"config": map[string]any{"mediaType": ocitest.SIFConfig, "digest": reg.PutBlob(repo, []byte("{}")), "size": 2},
			"layers": []any{map[string]any{
				"mediaType": ocitest.SIFLayer, "digest": ocitest.Digest(content), "size": int64(len(content)) + l.claims,
				"annotations": map[string]string{"org.opencontainers.image.title": "x.sif"},
			}},
		})
	}
	reg.Use(lies(repo, content, l.answer))
}

// checkLiar reads what a liar serves; content is the truth.
func checkLiar(t *testing.T, path, name string, content []byte) {
	t.Helper()
	// Somebody looks into it first, so that the kernel has pages of the lie; and a
	// second reader comes when the first may have found out.
	if f, err := os.Open(path); err == nil {
		_, _ = f.ReadAt(make([]byte, 4096), int64(len(content))/4*3)
		defer f.Close()
	}
	for range 2 {
		same, err := holds(path, content)
		switch {
		case err == nil && !same:
			t.Error("wrong bytes were read without an error")
		case err != nil && liars[name].succeed:
			t.Errorf("reading fails: %v", err)
		case err != nil:
			t.Log(err)
		}
	}
}

// holds reads a whole file and reports whether it is content.
func holds(path string, content []byte) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	same, off, piece := true, 0, make([]byte, 1<<20)
	for {
		n, err := f.Read(piece)
		same = same && off+n <= len(content) && bytes.Equal(piece[:n], content[off:off+n])
		off += n
		if errors.Is(err, io.EOF) {
			return same && off == len(content), nil
		}
		if err != nil {
			return false, err
		}
	}
}

// checkCache compares each whole file of a cache with its name.
func checkCache(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(filepath.Join(dir, "blobs", "sha256"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != "" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != filepath.Base(path) {
			t.Errorf("the cache holds %s with other bytes", filepath.Base(path))
		}
		return nil
	})
	must(t, err)
	if files == 0 {
		t.Error("the cache is empty: nothing was shown")
	}
}
