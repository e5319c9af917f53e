// SPDX-License-Identifier: Apache-2.0

package badger

import (
	"sync"

	badgerdb "github.com/dgraph-io/badger/v4"
)

// A reader is a transaction of Badger's for all that is read between two
// changes. To begin and to end one wakes goroutines of Badger's, which takes
// about as long as to get a value. Badger does not say that several goroutines
// may read in one transaction; Txn.Get changes nothing in one that cannot write.
// The zero value is ready.
type reader struct {
	mu  sync.Mutex // guards now, and the counts of all snapshots
	now *snapshot
}

type snapshot struct {
	txn   *badgerdb.Txn
	users int // and one for being the reader's
}

// acquire returns a snapshot with all changes that were made, to be released.
func (r *reader) acquire(db *badgerdb.DB) *snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil {
		r.now = &snapshot{txn: db.NewTransaction(false), users: 1}
	}
	r.now.users++
	return r.now
}

func (r *reader) release(s *snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.users--; s.users == 0 {
		s.txn.Discard()
	}
}

// renew is called after each change: who comes now must see it. Old values are
// not kept for the sake of a snapshot that nobody reads.
func (r *reader) renew() {
	r.mu.Lock()
	s := r.now
	r.now = nil
	r.mu.Unlock()
	if s != nil {
		r.release(s)
	}
}
