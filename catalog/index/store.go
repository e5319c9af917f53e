// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"io/fs"
	"iter"
)

// A Store is a small ordered key-value store, which may forget everything
// between two runs but not during one. All methods may be called from many
// goroutines at once. catalogtest has its conformance suite; catalog/badger and
// catalog/mem implement it.
//
// A key is any bytes up to MaxKey, in the order of bytes.Compare. After Close
// every method but Close gives fs.ErrClosed.
type Store interface {
	// Get returns the value of key. The caller owns it.
	// Errors: fs.ErrNotExist if there is none, or only a damaged one.
	Get(key []byte) ([]byte, error)

	// Scan yields the pairs whose key begins with prefix and is not less than
	// from (nil: all), in the order of the keys, as of one moment. Key and value are
	// valid until the next step only. Damaged values are left out. After a
	// non-nil error the sequence ends; breaking out releases all resources.
	// The sequence may be ranged over again; each time it has a moment of its own.
	// The loop may call Get, Scan and Apply, but not Close.
	Scan(prefix, from []byte) iter.Seq2[KV, error]

	// Apply makes all changes, in their order, or none where they fit one
	// transaction (some 10,000 small ones); more are made in several. The
	// slices stay the caller's. Deleting what is not there is no error.
	// Errors: fs.ErrInvalid, with nothing changed, for a key or value beyond the
	// limits; ENOSPC when the store keeps clear of a full disk.
	Apply(changes ...KV) error

	// Close waits for the calls under way and makes all that was applied
	// durable. A second Close does nothing.
	Close() error
}

// The limits of every Store, in bytes.
const (
	MaxKey   = 60_000
	MaxValue = 1_000_000
)

// A KV is a key and its value. As a change, a nil Value deletes the key; an
// empty one that is not nil is a value like any other.
type KV struct{ Key, Value []byte }

// Check reports whether a Store takes the pair as a change. Stores call it.
// Errors: fs.ErrInvalid.
func (kv KV) Check() error {
	if len(kv.Key) > MaxKey {
		return fmt.Errorf("%w: key of %d bytes, of which %d are allowed", fs.ErrInvalid, len(kv.Key), MaxKey)
	}
	if len(kv.Value) > MaxValue {
		return fmt.Errorf("%w: value of %d bytes, of which %d are allowed", fs.ErrInvalid, len(kv.Value), MaxValue)
	}
	return nil
}
