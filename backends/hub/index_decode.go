// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// What an index may be at most. The real one has 6,200 images in some 5 MB.
const (
	maxIndex   = 32 << 20  // bytes
	maxRecord  = 1 << 20   // bytes of one record
	maxRecords = 1_000_000 // images, and as many collections
)

// A record is one image as images.json has it. Its other fields are an id, the
// file's former path, and size_mb, which is a size of something else, as a
// number, a text or null.
type record struct {
	Tag        string          `json:"tag"`
	Branch     string          `json:"branch"`
	Commit     string          `json:"commit"`
	Version    string          `json:"version"` // null for a few, though it is part of the file's name
	BuildDate  string          `json:"build_date"`
	File       string          `json:"file"`
	Size       int64           `json:"size"`
	MD5        string          `json:"md5"`        // of the file
	Collection json.RawMessage `json:"collection"` // a number; its name below "collections" is a string
}

// A collection is a repository of GitHub as images.json has it.
type collection struct {
	License *struct {
		Name string `json:"name"`
		SPDX string `json:"spdx_id"`
	} `json:"license"`
}

// decode reads images.json, record by record, up to most bytes. Of what it reads
// it holds one record and the index.
//
// Errors: backends.ErrBadAnswer for what is no index, or too large for one;
// those of src; io.ErrUnexpectedEOF if it ends too early.
func decode(src io.Reader, most int64) (*index, error) {
	d := &decoder{
		limitedReader: limitedReader{src: src, most: most}, words: map[string]string{},
		ix: &index{repos: map[string]*repo{}, orgs: map[string][]*repo{}, licenses: map[string]string{}},
	}
	d.dec = json.NewDecoder(&d.limitedReader)
	err := d.top()
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case errors.As(err, &syntax):
		return nil, fmt.Errorf("%w: not the index of the archive: %v", backends.ErrBadAnswer, err)
	case err != nil:
		return nil, err
	}
	d.ix.sort()
	return d.ix, nil
}

type decoder struct {
	limitedReader
	ix          *index
	collections int

	words map[string]string // one copy of each that occurs often
}

// limitedReader ends a source that gives more than an index can be: in all, or before
// the decoder has come to the end of a record.
type limitedReader struct {
	src  io.Reader
	most int64
	dec  *json.Decoder
	read int64
}

// Read implements io.Reader.
func (b *limitedReader) Read(p []byte) (int, error) {
	switch {
	case b.read > b.most:
		return 0, fmt.Errorf("%w: an index of more than %d bytes", backends.ErrBadAnswer, b.most)
	case b.read-b.dec.InputOffset() > maxRecord:
		return 0, fmt.Errorf("%w: a record of more than %d bytes", backends.ErrBadAnswer, maxRecord)
	}
	n, err := b.src.Read(p)
	b.read += int64(n)
	return n, err
}

// top reads the whole: an object of "images" and "collections", no more (the
// archive's service insists on that too).
func (d *decoder) top() error {
	seen := map[string]bool{}
	err := d.object(func(key string) error {
		seen[key] = true
		switch key {
		case "images":
			return d.object(d.repository)
		case "collections":
			return d.object(d.collection)
		}
		return fmt.Errorf("%w: not the index of the archive: %.80q in it", backends.ErrBadAnswer, key)
	})
	if err == nil && len(seen) != 2 {
		err = fmt.Errorf("%w: not the index of the archive: no images or no collections in it", backends.ErrBadAnswer)
	}
	if err != nil {
		return err
	}
	switch _, err := d.dec.Token(); {
	case err == nil:
		return fmt.Errorf("%w: more after the end of the index", backends.ErrBadAnswer)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// object reads an object; value must read that of each key.
func (d *decoder) object(value func(key string) error) error {
	if err := d.delim('{'); err != nil {
		return err
	}
	for d.dec.More() {
		key, err := d.dec.Token()
		if err != nil {
			return err
		}
		if err := value(key.(string)); err != nil { // JSON has no other keys
			return err
		}
	}
	return d.delim('}')
}

func (d *decoder) delim(want json.Delim) error {
	got, err := d.dec.Token()
	if err == nil && got != want {
		err = fmt.Errorf("%w: not the index of the archive: %.80q for %q", backends.ErrBadAnswer, fmt.Sprint(got), want)
	}
	return err
}

// repository reads the array of a repository's builds.
func (d *decoder) repository(name string) error {
	if err := d.delim('['); err != nil {
		return err
	}
	for d.dec.More() {
		var r record
		ok, err := d.value(&r)
		if err != nil {
			return err
		}
		if d.ix.count+d.ix.left >= maxRecords {
			return fmt.Errorf("%w: more than %d images in the index", backends.ErrBadAnswer, maxRecords)
		}
		b, why := r.build(d.word)
		if !ok {
			why = "a field of another type"
		}
		if why != "" {
			d.ix.leave("%.200q: %s", name+":"+r.Tag, why)
			continue
		}
		d.ix.add(name, b)
	}
	return d.delim(']')
}

func (d *decoder) collection(id string) error {
	var c collection
	if _, err := d.value(&c); err != nil {
		return err
	}
	if d.collections++; d.collections > maxRecords {
		return fmt.Errorf("%w: more than %d collections in the index", backends.ErrBadAnswer, maxRecords)
	}
	if c.License == nil {
		return nil
	}
	// GitHub says NOASSERTION for one that it does not recognise.
	if name := c.License.SPDX; name != "" && name != "NOASSERTION" {
		d.ix.licenses[id] = d.word(name)
	} else if c.License.Name != "" {
		d.ix.licenses[id] = d.word(c.License.Name)
	}
	return nil
}

// value reads one value. That some of it has another type than v is no error,
// but not ok.
func (d *decoder) value(v any) (ok bool, err error) {
	err = d.dec.Decode(v)
	var mistyped *json.UnmarshalTypeError
	if errors.As(err, &mistyped) {
		return false, nil
	}
	return err == nil, err
}

// word returns s, in one copy however often it occurs.
func (d *decoder) word(s string) string {
	if known, ok := d.words[s]; ok {
		return known
	}
	s = strings.Clone(s)
	d.words[s] = s
	return s
}

// build checks a record, and says what is wrong with it.
func (r *record) build(word func(string) string) (b build, why string) {
	_, format := backends.CutExt(r.File)
	version, md5 := parseVersion(r.Version), parseVersion(r.MD5)
	if r.Version == "" {
		version = stemOf(r.File)
	}
	switch {
	case !isPath(r.File):
		return b, "its file cannot be"
	case format == "" || format == backends.FormatArchive:
		return b, "its file is no image"
	case version == "":
		return b, "no version"
	case r.Size <= 0:
		return b, "no size"
	}
	b = build{
		tag: within(r.File, r.Tag), branch: word(r.Branch), commit: r.Commit, collection: word(string(r.Collection)),
		version: within(r.File, version), file: r.File, size: r.Size,
	}
	if at, err := time.Parse(time.RFC3339Nano, r.BuildDate); err == nil {
		b.built = at.UnixMilli()
	}
	// The version of a compressed image is the MD5 of what is in it. Of all others
	// it is the digest of the file (_tools_/verify_md5.sh of con/shub).
	compressed := format == backends.FormatIMGGz
	if compressed && len(md5) == 32 {
		b.md5 = md5
	}
	if !compressed && len(version) == 32 && md5 != "" && md5 != version {
		return b, "version and md5 differ"
	}
	return b, ""
}

// stemOf returns the version that a file is called by.
func stemOf(file string) string {
	stem, _ := backends.CutExt(file[strings.LastIndexByte(file, '/')+1:])
	return parseVersion(stem)
}

// within returns s as a part of text if it is one, so that it takes no room of
// its own.
func within(text, s string) string {
	if i := strings.Index(text, s); i >= 0 {
		return text[i : i+len(s)]
	}
	return s
}
