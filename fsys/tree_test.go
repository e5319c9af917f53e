// SPDX-License-Identifier: Apache-2.0

package fsys_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestTree(t *testing.T) {
	t.Parallel()
	const golden = "testdata/tree.txtar"
	ar, err := txtar.ParseFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	w := fsystest.New(t, fsystest.Options{})
	content := fsystest.Image(4096, 1)
	for name := range strings.Lines(string(ar.Files[0].Data)) {
		w.Service.Put(strings.TrimSuffix(name, "\n"), content)
	}
	for name := range strings.Lines(string(ar.Files[1].Data)) {
		collection, image, _ := strings.Cut(strings.TrimSuffix(name, "\n"), "/")
		copyIn(t, mustLookup(t, w.FS.Root(), "local").(*fsys.Dir), collection, image+".sif", content)
	}
	var got strings.Builder
	show(t, &got, w.FS.Root(), "")
	if *update {
		ar.Files[2].Data = []byte(got.String())
		if err := os.WriteFile(golden, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(ar.Files[2].Data), got.String()); diff != "" {
		t.Errorf("the tree: -want +got\n%s", diff)
	}
	if n := w.Service.Bytes.Load(); n != 0 {
		t.Errorf("looking at the tree fetched %d bytes", n)
	}
}

// show writes all that is below dir, and checks that names lead where the
// listing says.
func show(t *testing.T, out *strings.Builder, dir *fsys.Dir, path string) {
	t.Helper()
	var entries []fsys.Entry
	for e, err := range dir.List(t.Context()) {
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b fsys.Entry) int { return strings.Compare(a.Name, b.Name) })
	for _, e := range entries {
		node := mustLookup(t, dir, e.Name)
		a := node.Attr()
		fmt.Fprintf(out, "%v %6d %s%s\n", a.Mode, a.Size, path, e.Name)
		child, isDir := node.(*fsys.Dir)
		if isDir != e.Dir || isDir && a.Ino != e.Ino || e.Node() != nil && e.Node().Attr().Ino != a.Ino {
			t.Errorf("%s%s is listed as %+v, but is %+v", path, e.Name, e, a)
		}
		if !isDir && path != "" {
			remote, ref, format, err := fsys.ParsePath(path + e.Name)
			if err != nil || fsys.PathOf("", remote, ref, format) != path+e.Name {
				t.Errorf("%s%s is the path of %s %+v, %v", path, e.Name, remote, ref, err)
			}
			continue
		}
		show(t, out, child, path+e.Name+"/")
	}
}

func mustLookup(t *testing.T, dir *fsys.Dir, name string) fsys.Node {
	t.Helper()
	node, err := dir.Lookup(t.Context(), name, fsys.Caller{})
	if err != nil {
		t.Fatalf("lookup of %q in %s/%s: %v", name, dir.Remote(), dir.Collection(), err)
	}
	return node
}

var copier = fsys.Caller{Thread: 11, Process: 10}

// copyIn does what cp does.
func copyIn(t *testing.T, top *fsys.Dir, collection, name string, content []byte) {
	t.Helper()
	if err := tryCopy(t.Context(), top, collection, name, content); err != nil {
		t.Fatalf("copying to %s/%s: %v", collection, name, err)
	}
}

func tryCopy(ctx context.Context, top *fsys.Dir, collection, name string, content []byte) error {
	dir := top
	for part := range strings.SplitSeq(collection, "/") {
		node, err := dir.Lookup(ctx, part, copier)
		if err != nil {
			node, err = dir.Mkdir(ctx, part)
		}
		if err != nil {
			return err
		}
		dir = node.(*fsys.Dir)
	}
	_, file, err := dir.Create(ctx, name, 0o644, copier, fsys.Exclusive)
	if err != nil {
		return err
	}
	defer file.Close(ctx)
	if _, err := file.WriteAt(ctx, content, 0); err != nil {
		return err
	}
	return file.Flush(ctx, copier)
}

// What a listing tells of an image without making a node is what the node tells.
func TestListing_sameInode(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	const n = 100
	for i := range n {
		w.Service.Put(fmt.Sprintf("c/img:%d", i), []byte("content"))
	}
	dir := mustLookup(t, mustLookup(t, w.FS.Root(), "web").(*fsys.Dir), "c").(*fsys.Dir)
	want := make(map[string]fsys.Attr)
	for e, err := range dir.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		want[e.Name] = mustLookup(t, dir, e.Name).Attr()
	}
	l := dir.OpenListing()
	defer l.Close()
	for range n {
		e, err := l.Next(t.Context())
		if err != nil || e == nil {
			t.Fatal(e, err)
		}
		node := e.Node()
		if node == nil {
			t.Fatalf("%s: facts are not known", e.Name)
		}
		if d := cmp.Diff(want[e.Name], node.Attr()); d != "" || e.Ino != want[e.Name].Ino {
			t.Errorf("%s: inode %d, attributes (-looked up +listed):\n%s", e.Name, e.Ino, d)
		}
	}
}

// A listing read in pieces, with steps back and jumps, is the listing.
func TestListing(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	for i := range 200 {
		w.Service.Put(fmt.Sprintf("c/img:%d", i), nil)
	}
	dir := mustLookup(t, mustLookup(t, w.FS.Root(), "web").(*fsys.Dir), "c").(*fsys.Dir)
	var want []string
	for e, err := range dir.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, e.Name)
	}
	l := dir.OpenListing()
	defer l.Close()
	offsets := []uint64{0} // after so many entries
	for e, err := l.Next(t.Context()); e != nil; e, err = l.Next(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		offsets = append(offsets, l.Offset())
	}
	for _, at := range []int{0, 10, 5, 150, 0, 199, 200, 3} {
		if err := l.Seek(t.Context(), offsets[at]); err != nil {
			t.Fatal(err)
		}
		for i := at; i < min(at+20, len(want)); i++ {
			if e, err := l.Next(t.Context()); err != nil || e == nil || e.Name != want[i] || l.Offset() != offsets[i+1] {
				t.Fatalf("entry %d = %+v, %v, offset %d, want %q, %d", i, e, err, l.Offset(), want[i], offsets[i+1])
			}
		}
	}
	if err := l.Seek(t.Context(), offsets[200]); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if e, err := l.Next(t.Context()); e != nil || err != nil {
			t.Errorf("after the end: %+v, %v", e, err)
		}
	}
	// A reader who is interrupted before anything came can ask again.
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	fresh := dir.OpenListing()
	defer fresh.Close()
	if e, err := fresh.Next(interrupted); e != nil && err == nil {
		t.Log("the listing came at once")
	}
	if err := fresh.Seek(t.Context(), offsets[200]); err != nil || fresh.Offset() != offsets[200] {
		t.Errorf("after an interruption: offset %d, %v", fresh.Offset(), err)
	}
}
