// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"cmp"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
)

const someDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestEntry_roundTrip(t *testing.T) {
	t.Parallel()
	ref := backends.Ref{Collection: "a/b", Name: "x", Tag: "1"}
	for name, e := range map[string]Entry{
		"name only": {Flags: InListing, Image: backends.Image{Ref: ref, Size: -1}},
		"all": {Flags: InListing | Full | FromList, Seen: time.Unix(0, 12345), Image: backends.Image{
			Ref: ref, Size: 1 << 40, Digest: someDigest, Version: someDigest, Modified: time.Unix(1_700_000_000, 5).UTC(),
			Labels: map[string]string{"b": "2", "a": "1"}, URL: "https://example.org/x", Format: "sif",
		}},
		"no digest":   {Flags: Full, Image: backends.Image{Ref: ref, Size: -1, Version: "rev1", Format: "other"}},
		"md5":         {Flags: Full | ByName, Image: backends.Image{Ref: ref, Digest: "md5:00", Version: someDigest}},
		"upper case":  {Flags: Full, Image: backends.Image{Ref: ref, Digest: strings.ToUpper(someDigest)}},
		"other name":  {Flags: Full, Image: backends.Image{Ref: backends.Ref{Collection: "A/b", Name: "X", Tag: "1"}, Version: "1"}},
		"before 1970": {Flags: Full, Image: backends.Image{Ref: ref, Modified: time.Unix(-5_000_000_000, 999).UTC()}},
	} {
		got, ok := Decode(Encode(e, ref), ref)
		if d := gocmp.Diff(e, got, gocmp.AllowUnexported(Entry{})); !ok || d != "" {
			t.Errorf("%s: ok %v, (-want +got):\n%s", name, ok, d)
		}
	}
}

func TestHeader_roundTrip(t *testing.T) {
	t.Parallel()
	for _, h := range []Header{{}, {Fetched: time.Unix(0, 99), Took: time.Hour, Count: 100_000, Truncated: true}} {
		got, ok := decodeHeader(h.Encode())
		if d := gocmp.Diff(h, got, gocmp.AllowUnexported(Header{})); !ok || d != "" {
			t.Errorf("ok %v, (-want +got):\n%s", ok, d)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	ref := backends.Ref{Collection: "a", Name: "x", Tag: "1"}
	f.Add(Encode(Entry{Flags: InListing}, ref))
	f.Add(Encode(Entry{Flags: Full | InListing, Seen: time.Unix(1, 0), Image: backends.Image{
		Ref: ref, Digest: someDigest, Version: "v", Modified: time.Unix(1, 1), Labels: map[string]string{"a": "b"}, URL: "u"}}, ref))
	f.Add([]byte{codecVersion, byte(Full | otherRef), 0xff, 0xff, 0xff})
	f.Add(Encode(Entry{Flags: Full | InListing, Image: backends.Image{Ref: ref, Size: backends.MaxSize + 1}}, ref))
	f.Add([]byte{codecVersion, byte(InListing | hasGuess), 1, '0'}) // a format that nobody knows
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := Decode(b, ref)
		if !ok {
			return
		}
		if err := backends.CheckSize(e.Image.Size); err != nil {
			t.Errorf("decoded: %v", err)
		}
		// What was understood is written so that it is understood the same way.
		again, ok := Decode(Encode(e, ref), ref)
		if d := gocmp.Diff(e, again, gocmp.AllowUnexported(Entry{})); !ok || d != "" {
			t.Errorf("ok %v, (-first +again):\n%s", ok, d)
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(Header{Fetched: time.Unix(1, 0), Count: 3}.Encode())
	f.Add([]byte{codecVersion, 1, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, ok := decodeHeader(b); ok {
			if again, ok := decodeHeader(h.Encode()); !ok || again != h {
				t.Errorf("%+v became %+v, %v", h, again, ok)
			}
		}
	})
}

func FuzzDecodeBlob(f *testing.F) {
	f.Add(appendBlob(nil, cache.Record{Size: -1, State: cache.Partial, OnDisk: 5, Used: time.Unix(1, 2), ModTime: time.Unix(3, 4)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, ok := decodeBlob(b); ok {
			if again, ok := decodeBlob(appendBlob(nil, r)); !ok || again != r {
				t.Errorf("%+v became %+v, %v", r, again, ok)
			}
		}
	})
}

// Keys sort as their parts do, and give them back.
func FuzzKey(f *testing.F) {
	f.Add("a", "x", "1", "a/b", "x", "1")
	f.Add("a", "x\x00", "1", "a", "x\x01", "1")
	f.Add("a", "", "\x01", "a", "\x00", "")
	f.Fuzz(func(t *testing.T, c1, n1, t1, c2, n2, t2 string) {
		refs := []backends.Ref{{Collection: c1, Name: n1, Tag: t1}, {Collection: c2, Name: n2, Tag: t2}}
		var keys [][]byte
		for _, ref := range refs {
			key := ImageKey("lab", ref)
			keys = append(keys, key)
			part, rest, ok := cutPart(key[len(appendPart([]byte{kindEntry}, "lab")):])
			kind, name, tag, ok2 := CutEntry(rest)
			if !ok || !ok2 || kind != KindImage || string(part) != ref.Collection || string(name) != ref.Name || string(tag) != ref.Tag {
				t.Fatalf("%q became %q %q %q", ref, part, name, tag)
			}
			if !bytes.HasPrefix(key, ListPrefix("lab", ref.Collection)) {
				t.Fatalf("%q is not below its collection", key)
			}
		}
		want := cmp.Or(cmp.Compare(c1, c2), cmp.Compare(n1, n2), cmp.Compare(t1, t2))
		if got := bytes.Compare(keys[0], keys[1]); got != want {
			t.Errorf("%q and %q compare as %d, their keys as %d", refs[0], refs[1], want, got)
		}
	})
}

func FuzzCutEntry(f *testing.F) {
	f.Add([]byte("ix\x001\x00"))
	f.Add([]byte("cx\x01\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, name, tag, ok := CutEntry(b)
		if ok && kind == KindImage && len(name)+len(tag) > len(b) {
			t.Errorf("%q holds more than it has", b)
		}
	})
}

func TestMerge(t *testing.T) {
	t.Parallel()
	old := Entry{Flags: Full, Image: backends.Image{Size: 5, Digest: someDigest, Version: "1", URL: "u", Format: "sif", Labels: map[string]string{"a": "b"}}}
	got := Merge(old, backends.Image{Size: -1, Version: "1", Digest: "md5:00"})
	if d := gocmp.Diff(old.Image, got); d != "" {
		t.Errorf("the same version (-want +got):\n%s", d)
	}
	other := backends.Image{Size: -1, Version: "2"}
	if d := gocmp.Diff(other, Merge(old, other)); d != "" {
		t.Errorf("another version (-want +got):\n%s", d)
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	img := Clean(backends.Image{
		Ref: backends.Ref{Version: "x"}, Modified: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC),
		URL: strings.Repeat("u", maxURL+1), Labels: map[string]string{"big": strings.Repeat("x", maxLabels)},
	})
	if d := gocmp.Diff(backends.Image{}, img); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestBelow(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		collection, parent string
		want               bool
	}{
		{"a", "", true}, {"", "", false}, {"a/b", "a", true}, {"ab", "a", false}, {"a", "a", false}, {"a/b/c", "a", true},
	} {
		if got := Below(tc.collection, tc.parent); got != tc.want {
			t.Errorf("below(%q, %q) = %v", tc.collection, tc.parent, got)
		}
	}
}
