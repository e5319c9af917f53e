// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"context"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/index"
)

// An image is stored under its version when its tag moves on, or when it was asked for by
// its version. That is useful while its bytes are here: it can be opened while the
// registry does not answer. Without its bytes, what a tag meant before is kept until the
// next tag of the image moves, and what was asked for by version for versionLife at
// least. The rest is dropped when the program starts.
const versionLife = time.Hour

// history returns the changes to store because a tag means now instead of old. They have no
// time, so that the version is asked for again, and dropped at the next move.
func (c *core) history(s *index.Index, remote string, ref backends.Ref, old, now index.Entry) []index.KV {
	if ref.Version != "" || !old.Is(index.Full) || old.Image.Version == "" || old.Image.Version == now.Image.Version {
		return nil
	}
	changes := c.useless(s, index.VersionPrefix(remote, ref))
	ref.Version = old.Image.Version
	return append(changes, index.KV{Key: index.VersionKey(remote, ref), Value: index.Encode(index.Entry{Flags: index.Full, Image: old.Image}, ref)})
}

// useless returns the changes that drop the versions below a prefix which are not useful.
func (c *core) useless(s *index.Index, prefix []byte) (changes []index.KV) {
	for kv, err := range s.Scan(prefix, nil) {
		if err != nil {
			return changes
		}
		if !c.useful(kv) {
			changes = append(changes, index.KV{Key: bytes.Clone(kv.Key)})
		}
	}
	return changes
}

func (c *core) useful(kv index.KV) bool {
	remote, ref, ok := index.CutVersionKey(kv.Key)
	e, good := index.Decode(kv.Value, ref)
	return ok && good && (c.fresh(e.Seen, versionLife) || c.BlobInfo(remote, e.Image).State != cache.Remote)
}

// sweepVersions drops all versions that are not useful.
func (c *core) sweepVersions(ctx context.Context, s *index.Index) {
	var changes []index.KV
	for kv, err := range index.Pages(s, index.VersionsPrefix(), nil) {
		if err != nil || ctx.Err() != nil {
			return
		}
		if !c.useful(kv) {
			changes = append(changes, index.KV{Key: bytes.Clone(kv.Key)})
		}
		if len(changes) < index.Batch {
			continue
		}
		if s.Apply(changes...) != nil {
			return // the next start tries again
		}
		changes = changes[:0]
	}
	_ = s.Apply(changes...)
}
