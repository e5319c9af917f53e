// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"errors"
	"io/fs"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
)

// A Text is what a search finds within an image that was looked into.
type Text struct {
	Key        cache.Key // of the bytes that it is from
	Labels     map[string]string
	Help       string
	Definition string
}

// maxText is how much is kept of each text, in bytes: what is longer is no text for people.
const maxText = 64 << 10

// SaveText stores what an image says of itself, in place of what it said before.
func (m *Index) SaveText(remote string, ref backends.Ref, t Text) error {
	b := appendString([]byte{codecVersion}, string(t.Key))
	for _, s := range []string{t.Help, t.Definition} {
		b = appendString(b, s[:min(len(s), maxText)])
	}
	labels := Clean(backends.Image{Labels: t.Labels}).Labels // none, if they are too many
	b = appendLabels(b, labels)
	image := ImageKey(remote, ref)
	return m.Apply(append(labelChanges(image, labels), KV{textKey(image), b})...)
}

// Text returns what is stored of the bytes of an image.
func (m *Index) Text(remote string, ref backends.Ref) (Text, bool) {
	v, err := m.Get(textKey(ImageKey(remote, ref)))
	if err != nil {
		return Text{}, false
	}
	return decodeText(v)
}

func decodeText(v []byte) (t Text, ok bool) {
	d := decoder{b: v}
	if d.byte() != codecVersion {
		return t, false
	}
	t.Key = cache.Key(d.string())
	t.Help, t.Definition = d.string(), d.string()
	t.Labels = d.labels()
	return t, !d.bad && len(d.b) == 0
}

// Texts yields what is stored of the images of a remote that have text, whatever its case,
// in their texts or labels.
func (m *Index) Texts(remote, text string) iter.Seq2[backends.Ref, Text] {
	want := []byte(strings.ToLower(text))
	return func(yield func(backends.Ref, Text) bool) {
		prefix := textKey(appendPart([]byte{kindEntry}, remote))
		for kv, err := range Pages(m, prefix, nil) {
			if err != nil {
				return
			}
			if !bytes.Contains(bytes.ToLower(kv.Value), want) {
				continue
			}
			_, collection, name, tag, ok := cutImageKey(imageOfText(kv.Key))
			t, good := decodeText(kv.Value)
			ref := backends.Ref{Collection: string(collection), Name: string(name), Tag: string(tag)}
			if ok && good && !yield(ref, t) {
				return
			}
		}
	}
}

// textKey is the key of an image's text, or the beginning of such keys: that of the image, with
// another kind.
func textKey(image []byte) []byte {
	k := bytes.Clone(image)
	k[0] = kindText
	return k
}

func imageOfText(key []byte) []byte {
	k := bytes.Clone(key)
	k[0] = kindEntry
	return k
}

// MarkRead notes that the texts of some blobs of the cache are stored.
func (m *Index) MarkRead(keys ...cache.Key) error {
	changes := make([]KV, 0, len(keys))
	for _, key := range keys {
		changes = append(changes, KV{readKey(key), []byte{codecVersion}})
	}
	return m.Apply(changes...)
}

// IsRead reports whether MarkRead had the blob.
func (m *Index) IsRead(key cache.Key) bool {
	_, err := m.Get(readKey(key))
	return err == nil
}

func readKey(key cache.Key) []byte { return appendPart([]byte{kindRead}, string(key)) }

// maxLabelKey is how much of a label is in a key, in bytes. What is longer is found by its
// beginning, and compared where it is stored whole.
const maxLabelKey = 256

func cutLabel(s string) string { return strings.ToLower(s[:min(len(s), maxLabelKey)]) }

// maxIndexed is how many labels of an image it is found by.
const maxIndexed = 200

// labelChanges are those that make an image be found by its labels.
func labelChanges(image []byte, labels map[string]string) []KV {
	var changes []KV
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		k := appendPart(appendPart([]byte{kindLabel}, cutLabel(name)), cutLabel(labels[name]))
		if k = append(k, image...); len(k) <= MaxKey && len(changes) < maxIndexed {
			changes = append(changes, KV{k, []byte{codecVersion}})
		}
	}
	return changes
}

// withLabels adds to changes of listings those of the labels in them.
func withLabels(changes []KV) []KV {
	all := changes
	for _, kv := range changes {
		if len(kv.Key) == 0 || kv.Key[0] != kindEntry || !hasLabels(kv.Value) {
			continue
		}
		if e, ok := Decode(kv.Value, backends.Ref{}); ok {
			all = append(slices.Clip(all), labelChanges(kv.Key, e.Image.Labels)...)
		}
	}
	return all
}

// hasLabels reports whether an entry has labels. It is for the many that have none.
func hasLabels(value []byte) bool {
	d := decoder{b: value}
	if d.byte() != codecVersion {
		return false
	}
	e := Entry{Flags: Flags(d.byte())}
	if !e.Is(Full) {
		return false
	}
	d.varint()
	d.varint()
	for range 2 {
		switch d.byte() {
		case digestText:
			d.take(d.uvarint())
		case digestSHA256:
			d.take(32)
		}
	}
	if e.Is(hasTime) {
		d.varint()
		d.uvarint()
	}
	d.take(d.uvarint())
	d.take(d.uvarint())
	return d.uvarint() > 0 && !d.bad
}

// A LabelQuery asks for images by a label.
type LabelQuery struct {
	Key   string // all of it, without regard to case
	Value string // likewise, or a glob; "" means any
}

func (q LabelQuery) has(value string) bool {
	pattern := strings.ToLower(q.Value)
	if pattern == "" || pattern == strings.ToLower(value) {
		return true
	}
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", noSlash), strings.ReplaceAll(strings.ToLower(value), "/", noSlash))
	return ok && err == nil
}

// In returns the label that q asks for.
func (q LabelQuery) In(labels map[string]string) (key, value string, ok bool) {
	for key, value := range labels {
		if strings.EqualFold(key, q.Key) && q.has(value) {
			return key, value, true
		}
	}
	return "", "", false
}

// Labelled yields the images of a remote that once had such a label in a listing, or in their
// text, once each. Whether they still have is for the caller to see.
func (m *Index) Labelled(remote string, q LabelQuery) iter.Seq2[backends.Ref, error] {
	return func(yield func(backends.Ref, error) bool) {
		if err := m.indexLabels(); err != nil {
			yield(backends.Ref{}, err)
			return
		}
		prefix := appendPart([]byte{kindLabel}, cutLabel(q.Key))
		if literal := strings.ToLower(q.Value); q.Value != "" && !strings.ContainsAny(literal, "*?[\\") && len(literal) < maxLabelKey {
			prefix = appendPart(prefix, literal)
		}
		seen := make(map[backends.Ref]bool)
		for kv, err := range Pages(m, prefix, nil) {
			if err != nil {
				yield(backends.Ref{}, storeError(err))
				return
			}
			_, rest, _ := cutPart(kv.Key[1:])
			value, image, ok := cutPart(rest)
			if !ok || len(value) < maxLabelKey && !q.has(string(value)) {
				continue
			}
			at, collection, name, tag, ok := cutImageKey(image)
			ref := backends.Ref{Collection: string(collection), Name: string(name), Tag: string(tag)}
			if !ok || string(at) != remote || seen[ref] {
				continue
			}
			seen[ref] = true
			if !yield(ref, nil) {
				return
			}
		}
	}
}

// labelsReady is there once the labels in all listings are indexed.
var labelsReady = []byte{kindLabel}

// indexLabels indexes the labels in the listings that were stored before labels were.
func (m *Index) indexLabels() error {
	_, err := m.Get(labelsReady)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var changes []KV
	for kv, err := range Pages(m, []byte{kindEntry}, nil) {
		if err != nil {
			return storeError(err)
		}
		if !hasLabels(kv.Value) {
			continue
		}
		if e, ok := Decode(kv.Value, backends.Ref{}); ok {
			changes = append(changes, labelChanges(bytes.Clone(kv.Key), e.Image.Labels)...)
		}
		if len(changes) >= Batch {
			if err := m.Apply(changes...); err != nil {
				return err
			}
			changes = nil
		}
	}
	return m.Apply(append(changes, KV{labelsReady, []byte{codecVersion}})...)
}
