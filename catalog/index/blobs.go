// SPDX-License-Identifier: Apache-2.0

package index

import (
	"encoding/binary"
	"iter"
	"time"

	"github.com/sregfs/sregfs/cache"
)

// Blobs makes a store the cache's memory of its blobs. The cache does not
// depend on it; both may use the store at once with the catalogue.
func Blobs(s Store) cache.Index { return blobIndex{s} }

type blobIndex struct{ store Store }

func blobKey(key cache.Key) []byte { return appendPart([]byte{kindBlob}, string(key)) }

// Load yields the records that can be read.
func (x blobIndex) Load() iter.Seq2[cache.Record, error] {
	return func(yield func(cache.Record, error) bool) {
		for kv, err := range x.store.Scan([]byte{kindBlob}, nil) {
			if err != nil {
				yield(cache.Record{}, err)
				return
			}
			key, _, ok := cutPart(kv.Key[1:])
			rec, good := decodeBlob(kv.Value)
			rec.Key = cache.Key(key)
			if ok && good && !yield(rec, nil) {
				return
			}
		}
	}
}

// Save stores records in place of those with the same keys.
func (x blobIndex) Save(records ...cache.Record) error {
	changes := make([]KV, 0, len(records))
	for _, r := range records {
		changes = append(changes, KV{blobKey(r.Key), appendBlob(nil, r)})
	}
	return x.store.Apply(changes...)
}

// Remove drops the records of the keys.
func (x blobIndex) Remove(keys ...string) error {
	changes := make([]KV, 0, len(keys))
	for _, key := range keys {
		changes = append(changes, KV{Key: blobKey(cache.Key(key))})
	}
	return x.store.Apply(changes...)
}

func appendBlob(b []byte, r cache.Record) []byte {
	b = append(b, codecVersion)
	b = binary.AppendVarint(b, r.Size)
	b = binary.AppendVarint(b, r.OnDisk)
	b = appendString(b, string(r.State))
	for _, t := range []time.Time{r.Used, r.Verified, r.ModTime} {
		b = appendTime(b, t)
	}
	return b
}

func decodeBlob(b []byte) (cache.Record, bool) {
	d := decoder{b: b}
	if d.byte() != codecVersion {
		return cache.Record{}, false
	}
	r := cache.Record{Size: d.varint(), OnDisk: d.varint(), State: cache.State(d.string())}
	r.Used, r.Verified, r.ModTime = d.moment(), d.moment(), d.moment()
	return r, !d.bad && len(d.b) == 0
}
