// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"context"
	"iter"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// An error of the store counts as "not there" in what only looks: everything can be
// asked for again.

// Entry returns what is stored of ref. A version without a tag is that of the one tag of
// which it is stored.
func (m *Index) Entry(remote string, ref backends.Ref) (Entry, bool) {
	v, err := m.Get(RefKey(remote, ref))
	if err == nil {
		return Decode(v, ref)
	}
	if ref.Version == "" || ref.Tag != "" {
		return Entry{}, false
	}
	var found []Entry
	for kv, err := range m.Scan(versionPrefix(remote, ref), nil) {
		if e, ok := Decode(kv.Value, ref); err == nil && ok {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		return Entry{}, false
	}
	return found[0], true
}

// Tags returns what is stored of each tag of one image.
func (m *Index) Tags(remote string, ref backends.Ref) (all []Entry) {
	prefix := appendPart(append(ListPrefix(remote, ref.Collection), KindImage), ref.Name)
	for kv, err := range m.Scan(prefix, nil) {
		if err != nil {
			return all
		}
		tag, _, ok := cutPart(kv.Key[len(prefix):])
		if !ok {
			continue
		}
		ref.Tag, ref.Version = string(tag), ""
		if e, ok := Decode(kv.Value, ref); ok && e.Shown() {
			all = append(all, e)
		}
	}
	return all
}

// Shown is Entry where only one thing of it counts: whether the image is listed.
func (m *Index) Shown(remote string, ref backends.Ref) bool {
	b, err := m.Get(RefKey(remote, ref))
	return err == nil && len(b) >= 2 && b[0] == codecVersion && Entry{Flags: Flags(b[1])}.Shown()
}

// Header returns the header of a collection that has been listed.
func (m *Index) Header(remote, collection string) (Header, bool) {
	v, err := m.Get(HeaderKey(remote, collection))
	if err != nil {
		return Header{}, false
	}
	return decodeHeader(v)
}

// Headers yields the headers of a remote, by collection.
func (m *Index) Headers(remote string) iter.Seq2[string, Header] {
	return func(yield func(string, Header) bool) {
		prefix := appendPart([]byte{kindHeader}, remote)
		for kv, err := range m.Scan(prefix, nil) {
			if err != nil {
				return
			}
			collection, _, ok := cutPart(kv.Key[len(prefix):])
			h, good := decodeHeader(kv.Value)
			if ok && good && !yield(string(collection), h) {
				return
			}
		}
	}
}

// IsEmptied reports whether the value of a collection says that it lost its last image
// here.
func IsEmptied(v []byte) bool {
	return len(v) >= 2 && v[0] == codecVersion && Flags(v[1])&Emptied != 0
}

// IsName reports whether a value says no more than that a listing of names had the
// image.
func IsName(v []byte) bool {
	return len(v) == 2 && v[0] == codecVersion && Flags(v[1]) == InListing
}

// Emptied reports whether a collection lost its last image here.
func (m *Index) Emptied(remote, collection string) bool {
	if collection == "" {
		return false
	}
	v, err := m.Get(ChildKey(remote, collection))
	return err == nil && IsEmptied(v)
}

// Known reports whether a collection appears in its parent.
func (m *Index) Known(remote, collection string) bool {
	if collection == "" {
		return true
	}
	v, err := m.Get(ChildKey(remote, collection))
	return err == nil && !IsEmptied(v)
}

// HasEntries reports whether anything that is there is stored directly in a
// collection.
func (m *Index) HasEntries(remote, collection string) bool {
	for kv, err := range m.Scan(ListPrefix(remote, collection), nil) {
		if err != nil {
			return false
		}
		if !IsEmptied(kv.Value) {
			return true
		}
	}
	return false
}

// HasCollection reports whether a collection is known: it was listed, its parent's
// listing has it, or an image in it is shown.
func (m *Index) HasCollection(remote, collection string) bool {
	if m.Emptied(remote, collection) {
		return false
	}
	for _, key := range [][]byte{HeaderKey(remote, collection), ChildKey(remote, collection)} {
		if _, err := m.Get(key); err == nil {
			return true
		}
	}
	for kv, err := range m.Scan(append(ListPrefix(remote, collection), KindImage), nil) {
		e, ok := Decode(kv.Value, backends.Ref{})
		if err == nil && ok && e.Shown() {
			return true
		}
	}
	return false
}

// Children returns the full names of the stored child collections.
func (m *Index) Children(remote, collection string) []string {
	var children []string
	prefix := append(ListPrefix(remote, collection), KindCollection)
	for kv, err := range m.Scan(prefix, nil) {
		if err != nil {
			break
		}
		if _, name, _, ok := CutEntry(kv.Key[len(prefix)-1:]); ok {
			children = append(children, Join(collection, string(name)))
		}
	}
	return children
}

// Ancestors returns the changes that make a collection appear in its parent, and
// that one in its own, and so on: because the next listing will have them (InListing),
// or although no listing has them (ByName), as some services list only a part.
func (m *Index) Ancestors(remote, collection string, why Flags) []KV {
	var changes []KV
	for collection != "" {
		if m.Known(remote, collection) {
			break
		}
		changes = append(changes, KV{ChildKey(remote, collection), Encode(Entry{Flags: why}, backends.Ref{})})
		collection, _ = Parent(collection)
	}
	return changes
}

// DropTree forgets the listings of a collection that is no more, and of all below it, in
// batches, the headers first. What was opened by its name stays. It returns how
// many keys it dropped.
func (m *Index) DropTree(remote, collection string) (n int, err error) {
	tree := appendOpen(appendPart([]byte{kindEntry}, remote), collection+"/")
	headers := appendOpen(appendPart([]byte{kindHeader}, remote), collection+"/")
	for _, prefix := range [][]byte{HeaderKey(remote, collection), headers, ListPrefix(remote, collection), tree} {
		some, err := m.dropAll(prefix)
		if n += some; err != nil {
			return n, err
		}
	}
	return n, nil
}

// Batch is how many changes are made at once where there may be any number.
const Batch = 512

func (m *Index) dropAll(prefix []byte) (n int, err error) {
	var changes []KV
	drop := func() error {
		if len(changes) == 0 {
			return nil
		}
		n += len(changes)
		defer func() { changes = changes[:0] }()
		return m.Apply(changes...)
	}
	for kv, err := range Pages(m, prefix, nil) {
		if err != nil {
			return n, err
		}
		if e, ok := Decode(kv.Value, backends.Ref{}); prefix[0] == kindEntry && ok && e.Is(ByName) {
			continue
		}
		if changes = append(changes, KV{Key: bytes.Clone(kv.Key)}); len(changes) < Batch {
			continue
		}
		if err := drop(); err != nil {
			return n, err
		}
	}
	return n, drop()
}

// Below reports whether collection lies in parent, at any depth.
func Below(collection, parent string) bool {
	return parent == "" && collection != "" ||
		len(collection) > len(parent) && collection[len(parent)] == '/' && strings.HasPrefix(collection, parent)
}

// Versions calls fn with every stored image of a remote of which a version is known,
// whether a listing shows it or not. Errors: ctx's; the store's.
func (m *Index) Versions(ctx context.Context, remote string, fn func(backends.Image)) error {
	for one, err := range m.eachImage(remote) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		e, ok := Decode(one.value, one.refOf())
		if ok && (e.Image.Digest != "" || e.Image.Version != "") {
			fn(e.Image)
		}
	}
	return nil
}
