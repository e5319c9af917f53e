// SPDX-License-Identifier: Apache-2.0

package index

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// An Entry is what is stored of one image, or of a collection in its parent.
type Entry struct {
	Flags Flags
	Seen  time.Time // when the registry was last asked about this very image
	Image backends.Image
}

// Flags say how much is known of an entry, and from where.
type Flags byte

// The flags. Those that are not exported say how an entry is written.
const (
	InListing Flags = 1 << iota // the last listing had it
	ByName                      // no listing has it, but it was opened by its name
	Full                        // the facts are there, not only the name
	FromList                    // the facts came with the listing and are as fresh as that
	otherRef                    // the registry spells the name in another way
	hasTime                     // Modified is set
	hasGuess                    // only the name is known, and a guess of the format
	Emptied                     // a collection whose last image was deleted here, see IsEmptied
)

// Is reports whether all of the flags are set.
func (e Entry) Is(f Flags) bool { return e.Flags&f == f }

// NoImage is the format, of ours alone, of what was found to be no image.
const NoImage = "none"

// Shown reports whether the entry belongs into a listing.
func (e Entry) Shown() bool { return e.Flags&(InListing|ByName) != 0 && e.Image.Format != NoImage }

// The first byte of every value; others are from another program version and
// count as missing.
const codecVersion = 2

// The ways to write a digest.
const (
	digestText   = iota // as it is
	digestSHA256        // 32 bytes
	digestSame          // a version that is the digest
)

// refAfter returns the ref of what comes after another in a listing. Most names are those of
// the ref before, and share its memory.
func refAfter(before backends.Ref, name, tag []byte) backends.Ref {
	if string(name) != before.Name {
		before.Name = string(name)
	}
	before.Tag = string(tag)
	return before
}

// Encode writes e; ref is the one in its key.
func Encode(e Entry, ref backends.Ref) []byte {
	img := e.Image
	flags := e.Flags &^ (otherRef | hasTime | hasGuess)
	other := e.Is(Full) && (img.Ref.Collection != ref.Collection || img.Ref.Name != ref.Name || img.Ref.Tag != ref.Tag)
	if other {
		flags |= otherRef
	}
	if !img.Modified.IsZero() {
		flags |= hasTime
	}
	if flags&Full == 0 && backends.Ext(img.Format) != backends.Ext("") {
		return appendString([]byte{codecVersion, byte(flags | hasGuess)}, img.Format)
	}
	b := []byte{codecVersion, byte(flags)}
	if flags&Full == 0 {
		return b
	}
	var seen int64
	if !e.Seen.IsZero() {
		seen = e.Seen.UnixNano()
	}
	b = binary.AppendVarint(b, seen)
	b = binary.AppendVarint(b, img.Size)
	b = appendDigest(b, img.Digest)
	if img.Version == img.Digest {
		b = append(b, digestSame)
	} else {
		b = appendDigest(b, img.Version)
	}
	if flags&hasTime != 0 {
		b = binary.AppendVarint(b, img.Modified.Unix())
		b = binary.AppendUvarint(b, uint64(img.Modified.Nanosecond()))
	}
	b = appendString(appendString(b, img.Format), img.URL)
	b = appendLabels(b, img.Labels)
	if other {
		b = appendString(appendString(appendString(b, img.Ref.Collection), img.Ref.Name), img.Ref.Tag)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendDigest(b []byte, s string) []byte {
	if IsSHA256(s) {
		var raw [32]byte
		if _, err := hex.Decode(raw[:], []byte(s[len(SHA256Prefix):])); err == nil {
			return append(append(b, digestSHA256), raw[:]...)
		}
	}
	return appendString(append(b, digestText), s)
}

// appendLabels sorts them, so that equal facts have equal bytes.
func appendLabels(b []byte, labels map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(labels)))
	if len(labels) == 0 {
		return b
	}
	names := make([]string, 0, len(labels))
	for name := range labels {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b = appendString(appendString(b, name), labels[name])
	}
	return b
}

// SHA256Prefix begins a digest whose 64 digits are a SHA-256.
const SHA256Prefix = "sha256:"

// IsSHA256 reports whether s is a digest as it is always written: 64 lower-case
// hexadecimal digits.
func IsSHA256(s string) bool {
	return len(s) == len(SHA256Prefix)+64 && strings.HasPrefix(s, SHA256Prefix) &&
		strings.Trim(s[len(SHA256Prefix):], "0123456789abcdef") == ""
}

// Decode reads what Encode wrote; ok is false for anything else. It
// never panics, and what it allocates is bounded by len(b).
func Decode(b []byte, ref backends.Ref) (e Entry, ok bool) {
	d := decoder{b: b}
	if d.byte() != codecVersion {
		return Entry{}, false
	}
	e.Flags = Flags(d.byte())
	e.Image = backends.Image{Ref: ref, Size: -1}
	e.Image.Ref.Version = ""
	switch {
	case e.Is(Full):
		e.decodeFacts(&d)
	case e.Is(hasGuess):
		// A guess of the usual format is none, and is not written.
		if f := d.format(); backends.Ext(f) != backends.Ext("") {
			e.Image.Format = f
		}
	}
	e.Flags &^= otherRef | hasTime | hasGuess
	return e, !d.bad && len(d.b) == 0
}

func (e *Entry) decodeFacts(d *decoder) {
	img := &e.Image
	if seen := d.varint(); seen != 0 {
		e.Seen = time.Unix(0, seen)
	}
	img.Size = d.size()
	img.Digest, _ = d.digest()
	var same bool
	if img.Version, same = d.digest(); same {
		img.Version = img.Digest
	}
	if e.Is(hasTime) {
		img.Modified = time.Unix(d.varint(), int64(d.uvarint()%1e9)).UTC()
	}
	img.Format = d.format()
	img.URL = d.string()
	img.Labels = d.labels()
	if e.Is(otherRef) {
		img.Ref = backends.Ref{Collection: d.string(), Name: d.string(), Tag: d.string()}
	}
}

// A decoder reads a value. After the first error all reads return zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	d.take(uint64(max(n, 0)))
	d.bad = d.bad || n <= 0
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	d.take(uint64(max(n, 0)))
	d.bad = d.bad || n <= 0
	return v
}

// size reads the size of an image. An older release may have stored one that no image has.
func (d *decoder) size() int64 {
	v := d.varint()
	d.bad = d.bad || backends.CheckSize(v) != nil
	return v
}

func (d *decoder) string() string { return string(d.take(d.uvarint())) }

// format spares the allocation for the known ones.
func (d *decoder) format() string {
	s := d.take(d.uvarint())
	for _, known := range backends.Formats() {
		if string(s) == known {
			return known
		}
	}
	return string(s)
}

func (d *decoder) digest() (s string, same bool) {
	switch d.byte() {
	case digestText:
		return d.string(), false
	case digestSHA256:
		var text [len(SHA256Prefix) + 64]byte
		copy(text[:], SHA256Prefix)
		raw := d.take(32)
		hex.Encode(text[len(SHA256Prefix):], raw)
		if raw == nil {
			return "", false
		}
		return string(text[:]), false
	case digestSame:
		return "", true
	}
	d.bad = true
	return "", false
}

func (d *decoder) labels() map[string]string {
	n := d.uvarint()
	if n == 0 || n > uint64(len(d.b)) { // a label takes two bytes at least
		d.bad = d.bad || n != 0
		return nil
	}
	labels := make(map[string]string)
	for range n {
		name := d.string()
		labels[name] = d.string()
		if d.bad {
			return nil
		}
	}
	return labels
}

// What a registry may want stored beside the facts, in bytes.
const (
	maxURL    = 8 << 10
	maxLabels = 64 << 10
)

// Clean makes an answer of a registry fit to be stored and printed: one entry
// that no store takes would keep the others of its listing out, and a time
// outside the years that RFC 3339 can write would make JSON fail.
func Clean(img backends.Image) backends.Image {
	if len(img.URL) > maxURL {
		img.URL = ""
	}
	var labels int
	for name, value := range img.Labels {
		labels += len(name) + len(value)
	}
	if labels > maxLabels {
		img.Labels = nil
	}
	if y := img.Modified.UTC().Year(); y < 1 || y > 9999 {
		img.Modified = time.Time{}
	}
	img.Ref.Version = ""
	return img
}

// Merge adds to img what is known of the same version already: a listing has less than
// Stat, and our own SHA-256 is better than none.
func Merge(old Entry, img backends.Image) backends.Image {
	o := old.Image
	if !old.Is(Full) || o.Version != img.Version || img.Version == "" {
		return img
	}
	if img.Size < 0 {
		img.Size = o.Size
	}
	if img.Digest == "" || IsSHA256(o.Digest) && !IsSHA256(img.Digest) {
		img.Digest = o.Digest
	}
	if img.Modified.IsZero() {
		img.Modified = o.Modified
	}
	if img.Labels == nil {
		img.Labels = o.Labels
	}
	if img.URL == "" {
		img.URL = o.URL
	}
	if img.Format == "" || o.Format == NoImage {
		img.Format = o.Format
	}
	return img
}

// A Header says when a collection was listed, and with what result. It is written
// after the entries: without it the listing counts as never made.
type Header struct {
	Fetched   time.Time     // zero: must be made again
	Took      time.Duration // how long the registry needed
	Count     int           // images
	Truncated bool          // there were more than we take
}

// Encode returns the header as it is stored.
func (h Header) Encode() []byte {
	b := []byte{codecVersion, 0}
	if h.Truncated {
		b[1] |= 1
	}
	var fetched int64
	if !h.Fetched.IsZero() {
		fetched = h.Fetched.UnixNano()
	}
	b = binary.AppendVarint(b, fetched)
	b = binary.AppendVarint(b, int64(h.Took))
	return binary.AppendUvarint(b, uint64(h.Count))
}

func decodeHeader(b []byte) (h Header, ok bool) {
	d := decoder{b: b}
	if d.byte() != codecVersion {
		return Header{}, false
	}
	h.Truncated = d.byte()&1 != 0
	if fetched := d.varint(); fetched != 0 {
		h.Fetched = time.Unix(0, fetched)
	}
	h.Took = time.Duration(d.varint())
	h.Count = int(d.uvarint())
	return h, !d.bad && len(d.b) == 0
}

// appendTime writes zero, or the seconds after one byte.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	b = binary.AppendVarint(append(b, 1), t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond()))
}

func (d *decoder) moment() time.Time {
	if d.byte() == 0 {
		return time.Time{}
	}
	return time.Unix(d.varint(), int64(d.uvarint()%1e9)).UTC()
}
