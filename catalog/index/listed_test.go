// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
)

// FuzzListed compares what a listing reads of a value with what is in it.
func FuzzListed(f *testing.F) {
	ref := backends.Ref{Collection: "a", Name: "x", Tag: "1"}
	f.Add(Encode(Entry{Flags: InListing}, ref))
	for _, img := range []backends.Image{
		{Ref: ref, Digest: someDigest, Version: "v", Modified: time.Unix(1, 1), Labels: map[string]string{"a": "b"}, URL: "u", Format: "simg"},
		{Ref: ref, Digest: someDigest, Version: someDigest, Format: "sif"},
		{Ref: ref, Digest: someDigest}, {Ref: ref, Version: someDigest}, {Ref: ref},
		{Ref: backends.Ref{Collection: "b", Name: "y", Tag: "2"}, Digest: "md5:0"},
	} {
		f.Add(Encode(Entry{Flags: Full | ByName, Seen: time.Unix(1, 0), Image: img}, ref))
	}
	f.Add([]byte{codecVersion, byte(Full | InListing | otherRef), 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		want, ok := Decode(b, ref)
		l := Listed{Ref: ref}
		if got := l.unpack(b); got != (ok && want.Shown()) {
			t.Fatalf("unpack: %v, Decode: %v, %+v", got, ok, want)
		}
		if !ok || !want.Shown() {
			return
		}
		// A version has one spelling when it is we who wrote it.
		value := Encode(want, ref)
		l = Listed{Ref: ref}
		if !l.unpack(value) {
			t.Fatalf("%+v is not listed", want)
		}
		kept, _ := l.Keep(nil)
		clear(value)
		if d := gocmp.Diff(want.Image, kept.Image()); d != "" || kept.Ref != want.Image.Ref || kept.Format != want.Image.Format {
			t.Errorf("ref %+v, format %q, image (-want +got):\n%s", kept.Ref, kept.Format, d)
		}
		if got, want := kept.AppendVersion(nil), AppendVersion(nil, &want.Image); !bytes.Equal(got, want) {
			t.Errorf("version %q, want %q", got, want)
		}
	})
}
