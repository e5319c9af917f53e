// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// opener gives the blobs of img.
func opener(img ocitest.Image) archive.BlobOpener {
	return func(digest string, size, off, n int64) (io.ReadCloser, error) {
		blob, ok := img.Blobs[digest]
		if !ok || size != int64(len(blob)) {
			return nil, fs.ErrNotExist
		}
		return io.NopCloser(bytes.NewReader(blob[off : off+n])), nil
	}
}

func small(t *testing.T, docker bool) ocitest.Image {
	t.Helper()
	return ocitest.MakeImage(t, docker, map[string]any{"Cmd": []string{"sh"}},
		map[string]string{"etc/one": strings.Repeat("1", 5000)}, map[string]string{"etc/two": "2"},
		map[string]string{"etc/one": strings.Repeat("1", 5000)}) // a layer that is there twice
}

func read(t *testing.T, a *archive.Archive, img ocitest.Image, off, n int64) []byte {
	t.Helper()
	r, err := a.Open(off, n, opener(img))
	if err != nil {
		t.Fatalf("Open(%d, %d): %v", off, n, err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("Open(%d, %d): %v", off, n, err)
	}
	return text
}

func layOut(t *testing.T, manifest []byte) *archive.Archive {
	t.Helper()
	a, err := archive.New(manifest)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestTar(t *testing.T) {
	t.Parallel()
	for _, docker := range []bool{false, true} {
		img := small(t, docker)
		a := layOut(t, img.Manifest)
		whole := read(t, a, img, 0, -1)
		if int64(len(whole)) != a.Size() {
			t.Errorf("%d bytes, Size() is %d", len(whole), a.Size())
		}
		var index struct {
			Manifests []struct{ MediaType, Digest string }
		}
		blobs := map[string][]byte{}
		r := tar.NewReader(bytes.NewReader(whole))
		for h, err := r.Next(); !errors.Is(err, io.EOF); h, err = r.Next() {
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			switch sum, isBlob := strings.CutPrefix(h.Name, "blobs/sha256/"); {
			case h.Typeflag == tar.TypeDir:
			case isBlob:
				blobs["sha256:"+sum] = text
			case h.Name == "index.json":
				if err := json.Unmarshal(text, &index); err != nil {
					t.Fatal(err)
				}
			case h.Name != "oci-layout" || string(text) != `{"imageLayoutVersion":"1.0.0"}`:
				t.Errorf("%s: %s", h.Name, text)
			}
		}
		want := map[string][]byte{ocitest.Digest(img.Manifest): img.Manifest}
		for digest, blob := range img.Blobs {
			want[digest] = blob
		}
		if diff := cmp.Diff(want, blobs); diff != "" {
			t.Errorf("blobs (-want +got):\n%s", diff)
		}
		if len(index.Manifests) != 1 || index.Manifests[0].MediaType != img.MediaType || index.Manifests[0].Digest != ocitest.Digest(img.Manifest) {
			t.Errorf("index.json: %+v", index)
		}
	}
}

// What is in caches was laid out by an earlier release.
func TestLayoutNeverChanges(t *testing.T) {
	t.Parallel()
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	manifest := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":3},"layers":[{"mediaType":%q,"digest":%q,"size":512},{"mediaType":%[3]q,"digest":%[5]q,"size":9000000000}]}`,
		ocitest.OCIConfig, digest("c"), ocitest.OCILayer, digest("a"), digest("b"))
	a := layOut(t, []byte(manifest))
	// All that is no blob, and where the blobs are.
	h := sha256.New()
	var at []string
	for off := int64(0); off < a.Size(); {
		skip := int64(0)
		r, err := a.Open(off, -1, func(digest string, _, _, n int64) (io.ReadCloser, error) {
			at = append(at, fmt.Sprint(digest[7:8], n))
			skip = n
			return nil, io.ErrClosedPipe
		})
		if err == nil {
			var n int64
			n, err = io.Copy(h, r)
			off += n
		}
		if err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Fatal(err)
		}
		fmt.Fprintln(h, off)
		off += skip
	}
	if got, want := fmt.Sprint(at), "[c3 a512 b9000000000]"; got != want {
		t.Errorf("blobs %s, want %s", got, want)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != goldenLayout || a.Size() != goldenSize {
		t.Errorf("the layout is another one: %s, %d bytes", got, a.Size())
	}
}

const (
	goldenLayout = "03bf8e4eb39f81c00b61686ae1faf2244451aab39309b91f81130b11d6261240"
	goldenSize   = 9000008704
)

func TestRanges(t *testing.T) {
	t.Parallel()
	img := small(t, false)
	a := layOut(t, img.Manifest)
	whole := read(t, a, img, 0, -1)
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		off, n := random.Int64N(a.Size()+600), random.Int64N(3000)-1
		want := whole[min(off, a.Size()):]
		if n >= 0 {
			want = want[:min(n, int64(len(want)))]
		}
		if got := read(t, a, img, off, n); !bytes.Equal(got, want) {
			t.Fatalf("Open(%d, %d) gives %d bytes, want %d", off, n, len(got), len(want))
		}
	}
}

// A blob is asked for what is read of it, and one that is not touched not at all.
func TestOpensWhatIsRead(t *testing.T) {
	t.Parallel()
	img := small(t, false)
	a := layOut(t, img.Manifest)
	var asked []string
	open := func(digest string, size, off, n int64) (io.ReadCloser, error) {
		asked = append(asked, fmt.Sprint(off, "+", n))
		return opener(img)(digest, size, off, n)
	}
	r, err := a.Open(0, 100, open)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil || len(asked) != 0 {
		t.Errorf("reading the first header asked for %v, %v", asked, err)
	}
	config := int64(1536 + (len(img.Manifest)+511)/512*512 + 512)
	if r, err = a.Open(config+5, 10, open); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil || fmt.Sprint(asked) != "[5+10]" {
		t.Errorf("reading of the configuration asked for %v, %v", asked, err)
	}
}

func TestBlobErrors(t *testing.T) {
	t.Parallel()
	img := small(t, false)
	a := layOut(t, img.Manifest)
	gone := func(string, int64, int64, int64) (io.ReadCloser, error) { return nil, fs.ErrNotExist }
	r, err := a.Open(0, -1, gone)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing blob: %v", err)
	}
	if _, err := a.Open(int64(len(img.Manifest))/512*512+1536+512+600, -1, gone); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a range that begins in a missing blob: %v", err)
	}
	short := func(digest string, _, off, n int64) (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(bytes.NewReader(img.Blobs[digest][off:]), n-1)), nil
	}
	if r, err = a.Open(0, -1, short); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short blob: %v", err)
	}
}

func TestNew_refuses(t *testing.T) {
	t.Parallel()
	const ok = `{"schemaVersion":2,"config":{"mediaType":"` + ocitest.OCIConfig + `","digest":"sha256:DIGEST","size":3},"layers":[]}`
	good := strings.ReplaceAll(ok, "DIGEST", strings.Repeat("0", 64))
	if _, err := archive.New([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		manifest string
		want     error
	}{
		"nothing":           {"", backends.ErrBadAnswer},
		"html":              {"<html>", backends.ErrBadAnswer},
		"index":             {`{"mediaType":"` + ocitest.OCIIndex + `","manifests":[]}`, errors.ErrUnsupported},
		"schema 1":          {`{"schemaVersion":1,"fsLayers":[]}`, errors.ErrUnsupported},
		"chart":             {strings.Replace(good, ocitest.OCIConfig, "application/vnd.cncf.helm.config.v1+json", 1), errors.ErrUnsupported},
		"artifact":          {strings.Replace(good, `"config"`, `"artifactType":"a/b","config"`, 1), errors.ErrUnsupported},
		"digest":            {strings.ReplaceAll(ok, "DIGEST", "../../etc/passwd"), backends.ErrBadAnswer},
		"algorithm":         {strings.Replace(good, "sha256:", "sha384:"+strings.Repeat("0", 32), 1), backends.ErrBadAnswer},
		"negative":          {strings.Replace(good, `"size":3`, `"size":-3`, 1), backends.ErrBadAnswer},
		"huge":              {strings.Replace(good, `"size":3`, `"size":9223372036854775807`, 1), backends.ErrBadAnswer},
		"one blob, 2 sizes": {strings.Replace(good, `[]`, `[{"digest":"sha256:`+strings.Repeat("0", 64)+`","size":4}]`, 1), backends.ErrBadAnswer},
		"too long":          {good + strings.Repeat(" ", archive.MaxManifest), backends.ErrBadAnswer},
	} {
		if _, err := archive.New([]byte(c.manifest)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// A layer of more than 8 GiB does not fit the old header.
func TestLargeLayer(t *testing.T) {
	t.Parallel()
	const large = 20 << 30
	manifest := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":"sha256:%064d","size":0},"layers":[{"digest":"sha256:%064d","size":%d}]}`,
		ocitest.OCIConfig, 0, 1, int64(large))
	a := layOut(t, []byte(manifest))
	r, err := a.Open(0, a.Size()-large-1024, nil)
	if err != nil {
		t.Fatal(err)
	}
	files := tar.NewReader(r)
	var last *tar.Header
	for h, err := files.Next(); err == nil; h, err = files.Next() {
		if last = h; h.Size == large {
			break
		}
	}
	if last == nil || last.Size != large || !strings.HasSuffix(last.Name, "1") {
		t.Errorf("the last file is %+v", last)
	}
}

// A strict unpacker makes no directory of its own: each stands before what is in it.
func TestParentsComeFirst(t *testing.T) {
	t.Parallel()
	sha512 := `{"schemaVersion":2,"config":{"mediaType":"` + ocitest.OCIConfig + `","digest":"sha512:` + strings.Repeat("0", 128) + `","size":0},"layers":[]}`
	for name, manifest := range map[string][]byte{"sha256": small(t, false).Manifest, "sha512": []byte(sha512)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := small(t, false)
			img.Blobs["sha512:"+strings.Repeat("0", 128)] = nil
			dir := t.TempDir()
			r := tar.NewReader(bytes.NewReader(read(t, layOut(t, manifest), img, 0, -1)))
			for h, err := r.Next(); !errors.Is(err, io.EOF); h, err = r.Next() {
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, h.Name)
				if h.Typeflag == tar.TypeDir {
					err = os.Mkdir(path, h.FileInfo().Mode())
				} else {
					err = os.WriteFile(path, nil, h.FileInfo().Mode())
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Others read it: skopeo has the code of Podman, and of Singularity before 4.
func TestOtherPrograms(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "skopeo", "tar")
	for _, docker := range []bool{false, true} {
		img := ocitest.NewImage(t, docker)
		file := filepath.Join(t.TempDir(), "image.oci.tar")
		if err := os.WriteFile(file, read(t, layOut(t, img.Manifest), img, 0, -1), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "tar", "-tvf", file)
		if out := run(t, "skopeo", "inspect", "--format", "{{.Digest}} {{.Architecture}}", "oci-archive:"+file); strings.TrimSpace(out) != ocitest.Digest(img.Manifest)+" amd64" {
			t.Errorf("skopeo inspect: %s", out)
		}
		// It compares all digests while it copies.
		run(t, "skopeo", "copy", "--insecure-policy", "--preserve-digests", "oci-archive:"+file, "dir:"+filepath.Join(t.TempDir(), "copy"))
	}
}

// Root's directories can be written without any permission, which hides an unpacker's
// trouble: an ordinary user copies it, too.
func TestOtherPrograms_user(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "skopeo", "setpriv")
	if os.Getuid() != 0 {
		t.Skip("TestOtherPrograms ran as an ordinary user")
	}
	dir := t.TempDir()
	for path, mode := range map[string]os.FileMode{dir: 0o777, filepath.Dir(dir): 0o755} { // for others, too
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	img := ocitest.NewImage(t, false)
	file := filepath.Join(dir, "image.oci.tar")
	if err := os.WriteFile(file, read(t, layOut(t, img.Manifest), img, 0, -1), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "env", "HOME="+dir, "TMPDIR="+dir,
		"skopeo", "copy", "--insecure-policy", "--preserve-digests", "oci-archive:"+file, "dir:"+filepath.Join(dir, "copy"))
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
