// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
)

// A Key names a blob: "sha256:<hex>", or for a service without such digests
// "version:<hex of sha256(remote, ref, version)>".
type Key string

// valid reports whether k has the form of a key, which makes it safe as a path.
func (k Key) valid() bool {
	kind, sum, _ := strings.Cut(string(k), ":")
	return (kind == "sha256" || kind == "version") && len(sum) == 2*sha256.Size && strings.Trim(sum, "0123456789abcdef") == ""
}

// KeyOf returns the key of img on the remote of that name.
func KeyOf(remote string, img backends.Image) Key {
	if k := Key(img.Digest); strings.HasPrefix(img.Digest, "sha256:") && k.valid() {
		return k
	}
	if archive.IsDigest(img.Digest) {
		// Same manifest, same bytes, whatever names it, and wherever.
		sum := sha256.Sum256([]byte(img.Digest))
		return Key("version:" + hex.EncodeToString(sum[:]))
	}
	fields := []string{remote, img.Ref.Collection, img.Ref.Name, img.Ref.Tag, img.Version}
	if img.Version == "" {
		// Without a validator take all that might change with the bytes.
		fields = append(fields, img.Digest, img.Modified.UTC().String(), img.Ref.Version)
	}
	h := sha256.New()
	for _, f := range fields {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(f)))
		h.Write(n[:])
		h.Write([]byte(f))
	}
	return Key("version:" + hex.EncodeToString(h.Sum(nil)))
}

// An origin is who vouches for bytes that were not compared with their digest yet:
// the remote, and the size that it claims. Whoever runs a registry can name the
// digest of a good image and send something else: such bytes are nobody's but that
// registry's. Whole, verified blobs have the origin "".
type origin string

func (o origin) valid() bool {
	return len(o) == sha256.Size && strings.Trim(string(o), "0123456789abcdef") == ""
}

// State is how much of a blob is here.
type State string

// The states of a blob, as `user.sreg.state` shows them (Pinned comes on top).
const (
	Remote  State = "remote"  // nothing is here
	Partial State = "partial" // some ranges are here, or all but not yet verified
	Cached  State = "cached"  // whole and verified
)

func rank(s State) int { return slices.Index([]State{Remote, Partial, Cached}, s) }

// An Index remembers facts about blobs between runs. It may forget any of them
// at any time. Package catalog/index implements it.
type Index interface {
	Load() iter.Seq2[Record, error]
	Save(changed ...Record) error
	Remove(keys ...string) error
}

// A Record is what the index holds of a blob.
type Record struct {
	Key      Key
	Size     int64 // bytes; -1 if not known yet
	State    State
	OnDisk   int64 // bytes of the disk in use
	Used     time.Time
	Verified time.Time // when the digest last matched
	ModTime  time.Time // of the file, when it was verified: another one means "verify again"
}
