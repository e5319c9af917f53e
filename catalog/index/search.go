// SPDX-License-Identifier: Apache-2.0

package index

import (
	"errors"
	"io/fs"
	"iter"

	"github.com/sregfs/sregfs/backends"
)

// Images calls yield with the images of a remote that a listing shows and match means,
// in the order of their keys, until it returns false. Errors: those of the store.
func (m *Index) Images(remote string, match *Matcher, yield func(backends.Image) bool) error {
	if len(match.query) == 0 {
		return m.scanImages(remote, match, nil, yield)
	}
	if keys, ok := m.names.find(remote, match); ok {
		return m.getImages(keys, yield)
	}
	table := m.names.begin(remote)
	whole := false
	defer func() { m.names.finish(table, whole) }()
	err := m.scanImages(remote, match, table, func(img backends.Image) bool {
		more := yield(img)
		whole = whole || !more
		return more
	})
	whole = !whole && err == nil // nobody stopped it
	return err
}

// getImages calls yield with those of the images that are still there.
func (m *Index) getImages(keys [][]byte, yield func(backends.Image) bool) error {
	for _, key := range keys {
		value, err := m.Get(key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, collection, name, tag, _ := cutImageKey(key)
		e, ok := Decode(value, backends.Ref{Collection: string(collection), Name: string(name), Tag: string(tag)})
		if ok && e.Shown() && !yield(e.Image) {
			return nil
		}
	}
	return nil
}

// scanImages reads the keys first: most names do not match a query, and their
// values need not be decoded. All names go into table, unless that is nil.
func (m *Index) scanImages(remote string, match *Matcher, table *nameTable, yield func(backends.Image) bool) error {
	for one, err := range m.eachImage(remote) {
		if err != nil {
			return err
		}
		table.add(one.key, one.collection, one.name, one.tag)
		if !match.matchParts(remote, one.collection, one.name, one.tag) {
			continue
		}
		e, ok := Decode(one.value, one.refOf())
		if ok && e.Shown() && !yield(e.Image) {
			return nil
		}
	}
	return nil
}

// A storedImage is the pair of an image, with the parts of its key. It is valid until
// the next step only.
type storedImage struct {
	key, value            []byte
	collection, name, tag []byte
	last                  backends.Ref // the last one that refOf returned
}

// refOf returns the image's ref. Parts that are those of the one before take no memory of
// their own.
func (i *storedImage) refOf() backends.Ref {
	if string(i.collection) != i.last.Collection {
		i.last.Collection = string(i.collection)
	}
	i.last = refAfter(i.last, i.name, i.tag)
	return i.last
}

// eachImage yields the pairs of all images of a remote.
func (m *Index) eachImage(remote string) iter.Seq2[*storedImage, error] {
	return func(yield func(*storedImage, error) bool) {
		prefix := appendPart([]byte{kindEntry}, remote)
		var one storedImage
		for kv, err := range Pages(m, prefix, nil) {
			if err != nil {
				yield(nil, err)
				return
			}
			collection, rest, ok := cutPart(kv.Key[len(prefix):])
			if !ok || len(rest) == 0 || rest[0] != KindImage {
				continue
			}
			_, name, tag, ok := CutEntry(rest)
			if !ok {
				continue
			}
			one.key, one.value, one.collection, one.name, one.tag = kv.Key, kv.Value, collection, name, tag
			if !yield(&one, nil) {
				return
			}
		}
	}
}
