// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"context"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
)

// What is stored under a version is what a moved tag meant before, or what was
// asked for by it. It is of use while its bytes are here, because it can be opened
// then though the registry does not answer. Without them what a tag meant before is
// kept until the next tag of the image moves, and what was asked for by its version
// for versionLife at least. All that is of no more use goes when the program starts.
const versionLife = time.Hour

// history is what must be stored because a tag means now and not old any more.
// There is no time in it, so that it is asked for again, and goes with the next move.
func (c *Catalog) history(s Store, remote string, ref backends.Ref, old, now entry) []KV {
	if ref.Version != "" || !old.is(full) || old.image.Version == "" || old.image.Version == now.image.Version {
		return nil
	}
	changes := c.useless(s, versionPrefix(remote, ref))
	ref.Version = old.image.Version
	return append(changes, KV{versionKey(remote, ref), encodeEntry(entry{flags: full, image: old.image}, ref)})
}

// useless drops the versions below a prefix that are of no more use.
func (c *Catalog) useless(s Store, prefix []byte) (changes []KV) {
	for kv, err := range s.Scan(prefix, nil) {
		if err != nil {
			return changes
		}
		if !c.useful(kv) {
			changes = append(changes, KV{Key: bytes.Clone(kv.Key)})
		}
	}
	return changes
}

func (c *Catalog) useful(kv KV) bool {
	remote, ref, ok := cutVersionKey(kv.Key)
	e, good := decodeEntry(kv.Value, ref)
	return ok && good && (c.fresh(e.seen, versionLife) || c.BlobInfo(remote, e.image).State != cache.Remote)
}

// sweepVersions drops all that are of no more use.
func (c *Catalog) sweepVersions(ctx context.Context, s Store) {
	var changes []KV
	for kv, err := range pages(s, []byte{kindVersion}, nil) {
		if err != nil || ctx.Err() != nil {
			return
		}
		if !c.useful(kv) {
			changes = append(changes, KV{Key: bytes.Clone(kv.Key)})
		}
		if len(changes) < listingBatch {
			continue
		}
		if s.Apply(changes...) != nil {
			return // the next start tries again
		}
		changes = changes[:0]
	}
	_ = s.Apply(changes...)
}
