// SPDX-License-Identifier: Apache-2.0

package vsif

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// TestUmoci unpacks layers with umoci, as Apptainer does, and compares the trees.
func TestUmoci(t *testing.T) {
	for name, layers := range tortures() {
		t.Run(name, func(t *testing.T) { compareWithUmoci(t, layers) })
	}
}

// FuzzUmoci does so with random layers.
func FuzzUmoci(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { compareWithUmoci(t, randomLayers(seed)) })
}

func tortures() map[string][][]member {
	return map[string][][]member{
		"opaque before and after": {
			{dir("d"), file("d/low", "1"), dir("d/sub"), file("d/sub/low", "2")},
			{dir("d"), file("d/new", "3"), file("d/.wh..wh..opq", ""), file("d/sub/new", "4")},
		},
		"opaque first": {
			{dir("d"), file("d/low", "1")},
			{file("d/.wh..wh..opq", ""), file("d/new", "3")},
		},
		"whiteout of the own layer": {
			{file("a", "1"), file("b", "1")},
			{file("a", "2"), file(".wh.a", ""), file(".wh.b", ""), file("b", "3")},
		},
		"kinds replace kinds": {
			{dir("d"), file("d/x", "1"), file("f", "2"), symlink("l", "d"), dir("e"), file("e/y", "3")},
			{file("d", "4"), dir("f"), file("f/z", "5"), dir("l"), file("l/q", "6"), symlink("e", "f")},
		},
		"through links": {
			{dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib"), symlink("abs", "/usr"), symlink("up", "../../usr"), symlink("chain", "abs/lib")},
			{file("lib/a", "1"), file("abs/b", "2"), file("up/c", "3"), file("chain/d", "4"), file("./lib/../e", "5"), file("/f", "6"), file("../../g", "7")},
			{file("lib/.wh.a", ""), file("chain/.wh.d", ""), file("dangling/x", "8"), symlink("to", "nowhere"), file("to/x", "9")},
		},
		"hard links": {
			{file("a", "1"), hardlink("b", "a"), symlink("s", "a"), hardlink("hs", "s")},
			{hardlink("c", "a"), file("a", "2"), hardlink("d", "b"), file(".wh.b", "")},
			{dir("x"), hardlink("x/e", "/c"), hardlink("x/f", "x/../c"), hardlink("c", "d")},
		},
		"modes": {
			{
				{tar.Header{Name: "suid", Typeflag: tar.TypeReg, Mode: 0o4755, ModTime: day}, "x"},
				{tar.Header{Name: "sticky", Typeflag: tar.TypeDir, Mode: 0o1777, ModTime: day}, ""},
				{tar.Header{Name: "none", Typeflag: tar.TypeReg, Mode: 0, ModTime: day}, "secret"},
				{tar.Header{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: day}, ""},
				{tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600, ModTime: day}, ""},
				{tar.Header{Name: "owned", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 4_000_000_000, Gid: 70_000, ModTime: day, Format: tar.FormatPAX}, "x"},
				{tar.Header{Name: "old", Typeflag: tar.TypeReg, Mode: 0o640, ModTime: time.Unix(1, 500_000_000), Format: tar.FormatPAX}, "x"},
				{tar.Header{Name: "attr", Typeflag: tar.TypeReg, Mode: 0o640, ModTime: day, PAXRecords: map[string]string{"SCHILY.xattr.user.one": "1", "SCHILY.xattr.user.two": strings.Repeat("v", 3000)}}, "x"},
			},
			{dir("sticky"), {tar.Header{Name: "attr", Typeflag: tar.TypeReg, Mode: 0o600, ModTime: day, PAXRecords: map[string]string{"SCHILY.xattr.user.one": "2"}}, "y"}},
		},
		"sizes": {{
			file("0", ""), file("1", "a"), file("block-1", strings.Repeat("b", BlockSize-1)), file("block", strings.Repeat("c", BlockSize)),
			file("block+1", strings.Repeat("d", BlockSize+1)), file("3", strings.Repeat("e", 3*BlockSize)), file(strings.Repeat("n", maxName), "long"),
		}},
		"many": {manyFiles()},
	}
}

// manyFiles has directories whose listings have an index, cross metadata blocks, and
// inode numbers that are far from each other.
func manyFiles() (all []member) {
	all = append(all, dir("big"), dir("wide"), dir("empty"))
	for i := range 3000 {
		all = append(all, file(fmt.Sprintf("big/a-file-with-some-name-%05d", i), fmt.Sprint(i)))
		if i%100 == 0 {
			all = append(all, file(fmt.Sprintf("wide/%03d/x", i), "x"), dir(fmt.Sprintf("wide/%03d", i)))
		}
	}
	return all
}

// randomLayers makes layers of few names, so that they meet. Of what cannot be unpacked
// there is something in one of eight.
func randomLayers(seed uint64) (layers [][]member) {
	r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // repeatable on purpose
	names := []string{"a", "b", "c", "d"}
	path := func() string {
		p := names[r.IntN(len(names))]
		for r.IntN(2) == 0 {
			p += "/" + names[r.IntN(len(names))]
		}
		return p
	}
	tree, strict := NewTree(), r.IntN(8) > 0
	for range 2 + r.IntN(3) {
		var layer []member
		for i := range 3 + r.IntN(20) {
			p := path()
			switch r.IntN(10) {
			case 0, 1, 2:
				layer = append(layer, file(p, fmt.Sprint(seed, len(layers), i)))
			case 3, 4:
				layer = append(layer, dir(p))
			case 5:
				layer = append(layer, symlink(p, strings.Repeat("../", r.IntN(3))+path()))
			case 6:
				layer = append(layer, symlink(p, "/"+path()))
			case 7:
				layer = append(layer, hardlink(p, path()))
			case 8:
				dir, name := filepath.Split(p)
				layer = append(layer, file(dir+whiteout+name, ""))
			default:
				layer = append(layer, file(p+"/"+opaque, ""))
			}
			last := layer[len(layer)-1].Header
			if e, _, err := FromHeader(&last, 0); strict && (err != nil || tree.add(&e) != nil) {
				layer = layer[:len(layer)-1]
			}
		}
		tree.layer++
		layers = append(layers, layer)
	}
	return layers
}

func compareWithUmoci(t *testing.T, layers [][]member) {
	t.Helper()
	ocitest.Need(t, "umoci", "unsquashfs")
	tars := make([][]byte, len(layers))
	named := make(map[string]bool)
	for i, layer := range layers {
		tars[i] = tarOf(t, layer...)
		for _, m := range layer {
			if m.Typeflag == tar.TypeDir {
				named[clean(m.Name)] = true
			}
		}
	}
	theirs, err := umoci(t, tars)
	whole, ours := build(t, plainConfig, tars...)
	switch {
	case err != nil && ours != nil:
		return // nobody can unpack them
	case err != nil:
		t.Fatal("we do what umoci cannot:", err)
	case ours != nil:
		t.Fatal(ours)
	}
	got, want := facts(t, unpack(t, whole), named), facts(t, theirs, named)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s:\n got %s\nwant %s", name, got[name], want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name] == "" {
			t.Errorf("%s: %s, and umoci has none", name, got[name])
		}
	}
}

// facts returns what a tree has, without what is added for Singularity.
func facts(t *testing.T, root string, named map[string]bool) map[string]string {
	t.Helper()
	all := make(map[string]string)
	inodes := make(map[uint64]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if slices.Contains([]string{"dev", "etc", "home", "proc", "root", "sys", "tmp", "var", ownDirectory}, rel) {
			return fs.SkipDir
		}
		if rel == "." {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fact := fmt.Sprintf("%v", info.Mode().Type())
		if !d.IsDir() || named[rel] {
			fact += fmt.Sprintf(" %04o", st.Mode&0o7777)
		}
		if !d.IsDir() { // umoci changes theirs when it adds what no tar names, and when it hides
			fact += fmt.Sprintf(" %d", info.ModTime().Unix())
		}
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fact += fmt.Sprintf(" %d %x", len(data), sha256.Sum256(data))
		case info.Mode()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fact += " " + link
		}
		if first, ok := inodes[st.Ino]; ok && !d.IsDir() {
			fact += " = " + first
		} else {
			inodes[st.Ino] = rel
		}
		all[rel] = fact + userAttributes(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func userAttributes(t *testing.T, path string) string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := syscall.Listxattr(path, buf)
	if info, lerr := os.Lstat(path); lerr == nil && !info.Mode().IsRegular() || err != nil {
		return ""
	}
	var out []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, "user.") || name == "user.rootlesscontainers" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := syscall.Getxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf(" %s=%x", name, sha256.Sum256(value[:n])))
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

// umoci returns the tree that umoci makes of tars.
func umoci(t *testing.T, tars [][]byte) (root string, err error) {
	t.Helper()
	layout := t.TempDir()
	blob := func(mediaType string, data []byte) ocispec.Descriptor {
		sum := digest.FromBytes(data)
		path := filepath.Join(layout, "blobs", "sha256", sum.Encoded())
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return ocispec.Descriptor{MediaType: mediaType, Digest: sum, Size: int64(len(data))}
	}
	marshal := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	config := ocispec.Image{Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"}, RootFS: ocispec.RootFS{Type: "layers"}}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, data := range tars {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(data))
		config.History = append(config.History, ocispec.History{})
		manifest.Layers = append(manifest.Layers, blob(ocispec.MediaTypeImageLayer, data))
	}
	manifest.Config = blob(ocispec.MediaTypeImageConfig, marshal(config))
	top := blob(ocispec.MediaTypeImageManifest, marshal(manifest))
	top.Annotations = map[string]string{ocispec.AnnotationRefName: "x"}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{top}}
	for name, data := range map[string][]byte{"index.json": marshal(index), "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)} {
		if err := os.WriteFile(filepath.Join(layout, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bundle := filepath.Join(t.TempDir(), "bundle")
	out, err := exec.Command("umoci", "unpack", "--rootless", "--image", layout+":x", bundle).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%v: %s", err, out)
	}
	return filepath.Join(bundle, "rootfs"), nil
}
