// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// A service may tell names apart less finely than we do: it has one case, fewer
// parts, shorter names, one tag for all collections. A push to a name that it takes
// for another one is refused before a byte is read, or gives an image of its own.
var foldedTests = []subtest{
	foldedTest("case", "seed/low:tag", "seed/LOW:tag", "seed/low:TAG", "Seed/low:tag", "SEED/LOW:TAG"),
	foldedTest("parts", "seed/low:1", "seed/other/low:1", "seed/low/low:1", "other/seed/low:1", "seed/a/b/c/low:1"),
	foldedTest("characters", "se-ed/low:1", "se_ed/low:1", "se.ed/low:1", "se--ed/low:1", "-se-ed-/low:1", "se-ed/low :1", "se-ed/low.:1", "se-ed/l_o.w:1"),
	foldedTest("extension", "seed/low:1", "seed/low.sif:1", "seed/low:1.simg", "seed/low.img:1", "seed/lo.simgw:1"),
	foldedTest("normalisation", "gr\u00f6\u00dfe/na\u00efve:1", "gro\u0308\u00dfe/na\u00efve:1", "gr\u00f6\u00dfe/nai\u0308ve:1", "GR\u00d6\u00dfE/na\u00efve:1"),
	foldedTest("length", "seed/"+strings.Repeat("n", 60)+":"+strings.Repeat("t", 60), "seed/"+strings.Repeat("n", 61)+":"+strings.Repeat("t", 60),
		"seed/"+strings.Repeat("n", 60)+":"+strings.Repeat("t", 61), "seed/"+strings.Repeat("n", 128)+":"+strings.Repeat("t", 128),
		"seed/"+strings.Repeat("n", 256)+":"+strings.Repeat("t", 60), strings.Repeat("s", 300)+"/low:1"),
	foldedTest("collections", "seed/low:1", "twin/low:1", "seed2/low:1"),
}

// foldedTest seeds one image and pushes to the other names, leave to replace given.
func foldedTest(name, seeded string, others ...string) subtest {
	return subtest{name: "Folded/" + name, needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		seed := image("any/name:1")
		seed.Ref = plain(seeded)
		r := s.openNamed(t, seed)
		var kept []SeedImage
		for i, other := range others {
			img := SeedImage{Ref: plain(other), Content: content(other, 900+i), Format: "sif"}
			if r.pushFolded(t, img) {
				kept = append(kept, img)
			}
			wantImage(t, r, seed)
		}
		for _, img := range kept {
			wantImage(t, r, img)
		}
	}}
}

// plain reads "collection/name:tag" without escapes and extensions.
func plain(spec string) backends.Ref {
	slash := strings.LastIndexByte(spec, '/')
	name, tag, _ := strings.Cut(spec[slash+1:], ":")
	return backends.Ref{Collection: spec[:slash], Name: name, Tag: tag}
}

// pushFolded reports whether img was stored.
func (r *remote) pushFolded(t *testing.T, img SeedImage) bool {
	t.Helper()
	refused := r.client.CheckPush(img.Ref)
	requests := r.wire.requests.Load()
	read := &counted{}
	src := source(img.Content)
	src.Replaces = backends.ReplaceAny
	read.ReaderAt, src.Content = src.Content, read
	stored, err := r.client.Push(t.Context(), img.Ref, src)
	switch {
	case err == nil && stored.Ref != img.Ref:
		t.Errorf("Push(%s) stored %s", img.Ref, stored.Ref)
	case err == nil:
		return true
	case !errors.Is(err, fs.ErrInvalid) && !errors.Is(err, fs.ErrPermission):
		t.Errorf("Push(%s): %v, want it stored or fs.ErrInvalid", img.Ref, err)
	case read.bytes.Load() > 0:
		t.Errorf("Push(%s): %v, after %d bytes were read", img.Ref, err, read.bytes.Load())
	case refused != nil && r.wire.requests.Load() != requests:
		t.Errorf("Push(%s): %d requests for what was to be refused without one", img.Ref, r.wire.requests.Load()-requests)
	}
	return false
}

// counted counts the bytes that are read.
type counted struct {
	io.ReaderAt
	bytes atomic.Int64
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.bytes.Add(int64(n))
	return n, err
}
