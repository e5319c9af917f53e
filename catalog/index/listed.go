// SPDX-License-Identifier: Apache-2.0

package index

import (
	"github.com/sregfs/sregfs/backends"
)

// A Listed is what a listing has of one name: a collection, or an image whose
// facts are still as they were stored. A million of them are read in the time
// that making a million backends.Images would take.
type Listed struct {
	Collection string          // full name, if it is a collection
	Ref        backends.Ref    // of the image
	Format     string          // as backends.Image has it
	value      []byte          // as stored
	version    span            // of value: the version, as appendDigest writes it
	image      *backends.Image // instead of value
}

// Directly returns what a registry lists now, without a store. image stays the caller's.
func Directly(collection string, image *backends.Image) *Listed {
	return &Listed{Collection: collection, Ref: image.Ref, Format: image.Format, image: image}
}

// A span is some bytes of a slice. The zero value is none.
type span struct{ begin, end int }

// AppendVersion appends bytes to b that are the same for the same version of an
// image, and others for another, as the function of that name does.
func (l *Listed) AppendVersion(b []byte) []byte {
	switch {
	case l.image != nil:
		return AppendVersion(b, l.image)
	case l.version.end == 0:
		return appendDigest(b, "")
	}
	return append(b, l.value[l.version.begin:l.version.end]...)
}

// AppendVersion appends the image's version, else its digest, in few bytes.
func AppendVersion(b []byte, img *backends.Image) []byte {
	if img.Version != "" {
		return appendDigest(b, img.Version)
	}
	return appendDigest(b, img.Digest)
}

// Image returns what is known of the image; without a Version, only its name.
func (l *Listed) Image() backends.Image {
	if l.image != nil {
		return *l.image
	}
	e, _ := Decode(l.value, l.Ref) // it was when it was read
	return e.Image
}

// Keep returns a copy that stays valid when the iteration goes on; its bytes
// are appended to b.
func (l *Listed) Keep(b []byte) (kept Listed, _ []byte) {
	kept = *l
	if l.image != nil {
		img := *l.image
		kept.image = &img
		return kept, b
	}
	start := len(b)
	b = append(b, l.value...)
	kept.value = b[start:len(b):len(b)]
	return kept, b
}

// Entry returns the entry as backends.Lister would yield it.
func (l *Listed) Entry() backends.Entry {
	if l.Collection != "" {
		return backends.Entry{Collection: l.Collection}
	}
	return backends.Entry{Image: l.Image()}
}

// Read takes in the entry of that key and value, and reports whether it belongs
// into a listing; n is the length of the key's part that is the collection's.
// l.Ref is that of the image before.
func (l *Listed) Read(kv KV, n int, collection string) bool {
	kind, name, tag, ok := CutEntry(kv.Key[n:])
	if !ok {
		return false
	}
	if kind == KindCollection {
		if IsEmptied(kv.Value) {
			return false
		}
		*l = Listed{Ref: l.Ref, Collection: Join(collection, string(name))}
		return true
	}
	l.Collection = ""
	if l.Ref.Collection != collection { // the image before was of another spelling
		l.Ref = backends.Ref{Collection: collection}
	}
	l.Ref = refAfter(l.Ref, name, tag)
	return l.unpack(kv.Value)
}

// unpack finds in a value what a listing needs, and checks the rest, as
// Decode does.
func (l *Listed) unpack(value []byte) bool {
	d := decoder{b: value}
	if d.byte() != codecVersion {
		return false
	}
	e := Entry{Flags: Flags(d.byte())}
	l.value, l.version, l.Format = value, span{}, ""
	if !e.Is(Full) && e.Is(hasGuess) {
		l.Format = d.format()
	}
	if e.Is(Full) {
		d.varint() // seen
		d.size()
		begin := len(value) - len(d.b)
		d.skipDigest()
		middle := len(value) - len(d.b)
		d.skipDigest()
		l.version = span{middle, len(value) - len(d.b)}
		if l.version.end <= middle+len(noVersion) {
			l.version = span{begin, middle} // it is the same, or there is none
		}
		if e.Is(hasTime) {
			d.varint()
			d.uvarint()
		}
		l.Format = d.format()
		d.take(d.uvarint()) // URL
		d.skipLabels()
	}
	if e.Is(Full | otherRef) {
		l.Ref = backends.Ref{Collection: d.string(), Name: d.string(), Tag: d.string()}
	}
	return !d.bad && len(d.b) == 0 && e.Shown() && l.Format != NoImage
}

// noVersion is what appendDigest writes of "".
var noVersion = [...]byte{digestText, 0}

func (d *decoder) skipDigest() {
	switch d.byte() {
	case digestText:
		d.take(d.uvarint())
	case digestSHA256:
		d.take(32)
	case digestSame:
	default:
		d.bad = true
	}
}

func (d *decoder) skipLabels() {
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		d.take(d.uvarint())
		d.take(d.uvarint())
	}
}
