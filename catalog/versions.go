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

// What is stored under a version is what a moved tag meant before, or what was
// asked for by it. It is of use while its bytes are here, because it can be opened
// then though the registry does not answer. Without them what a tag meant before is
// kept until the next tag of the image moves, and what was asked for by its version
// for versionLife at least. All that is of no more use goes when the program starts.
const versionLife = time.Hour

// history is what must be stored because a tag means now and not old any more.
// There is no time in it, so that it is asked for again, and goes with the next move.
func (c *Catalog) history(s *index.Index, remote string, ref backends.Ref, old, now index.Entry) []index.KV {
	if ref.Version != "" || !old.Is(index.Full) || old.Image.Version == "" || old.Image.Version == now.Image.Version {
		return nil
	}
	changes := c.useless(s, index.VersionPrefix(remote, ref))
	ref.Version = old.Image.Version
	return append(changes, index.KV{Key: index.VersionKey(remote, ref), Value: index.Encode(index.Entry{Flags: index.Full, Image: old.Image}, ref)})
}

// useless drops the versions below a prefix that are of no more use.
func (c *Catalog) useless(s *index.Index, prefix []byte) (changes []index.KV) {
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

func (c *Catalog) useful(kv index.KV) bool {
	remote, ref, ok := index.CutVersionKey(kv.Key)
	e, good := index.Decode(kv.Value, ref)
	return ok && good && (c.fresh(e.Seen, versionLife) || c.BlobInfo(remote, e.Image).State != cache.Remote)
}

// sweepVersions drops all that are of no more use.
func (c *Catalog) sweepVersions(ctx context.Context, s *index.Index) {
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
