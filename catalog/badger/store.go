// SPDX-License-Identifier: Apache-2.0

package badger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"syscall"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/sregfs/sregfs/catalog/index"
)

// Get implements index.Store.
func (d *DB) Get(key []byte) ([]byte, error) {
	db, err := d.acquire()
	if errors.Is(err, syscall.EIO) {
		return nil, fs.ErrNotExist // whatever was there is as good as lost
	}
	if err != nil {
		return nil, err
	}
	defer d.release()
	if db == nil {
		return nil, fs.ErrNotExist
	}
	var value []byte
	err = d.contain(func() error {
		r := d.reader.acquire(db)
		defer d.reader.release(r)
		item, err := r.txn.Get(spaced(key))
		if err != nil {
			return err
		}
		return item.Value(func(v []byte) error {
			content, ok := content(key, v)
			if !ok {
				return errDamaged
			}
			value = append([]byte{}, content...)
			return nil
		})
	})
	switch {
	case err == nil:
		return value, nil
	case errors.Is(err, badgerdb.ErrDBClosed):
		return nil, fs.ErrClosed
	case !errors.Is(err, badgerdb.ErrKeyNotFound):
		d.log.Warn("damaged value in the index", "dir", d.dir, "key", key, "err", err)
	}
	return nil, fs.ErrNotExist
}

var errDamaged = errors.New("checksum does not match")

// contain is contained that remembers a panic.
func (d *DB) contain(fn func() error) error {
	err := contained(fn)
	if p, ok := errors.AsType[*panicError](err); ok {
		return d.fail(p)
	}
	return err
}

// Scan implements index.Store.
func (d *DB) Scan(prefix, from []byte) iter.Seq2[index.KV, error] {
	start := prefix
	if bytes.Compare(from, prefix) > 0 {
		start = from
	}
	prefix, start = spaced(prefix), spaced(start)
	return func(yield func(index.KV, error) bool) {
		db, err := d.acquire()
		if err != nil {
			yield(index.KV{}, err)
			return
		}
		defer d.release()
		if db == nil {
			return
		}
		s := &scan{d: d, db: db, prefix: prefix, start: start}
		defer s.close()
		for s.step() && yield(s.kv, nil) {
		}
		if s.err != nil {
			yield(index.KV{}, s.err)
		}
	}
}

// A scan is one walk over the pairs. Only Badger's part of each step is
// contained: a panic of the caller's loop is not ours to catch. Containing costs
// as much as a step, so pairs are copied in batches, the first ones small for
// those who want one pair only.
type scan struct {
	d             *DB
	db            *badgerdb.DB
	prefix, start []byte

	txn *badgerdb.Txn
	it  *badgerdb.Iterator
	err error

	kv    index.KV
	size  int    // pairs of the next batch
	bytes []byte // of the batch: keys and values, one after the other
	ends  []int  // of each key and each value
	next  int    // index in ends of the pair that comes next
}

const (
	firstBatch = 4
	maxBatch   = 128
	// Values may be large: a batch ends beyond this many bytes.
	maxBatchBytes = 64 << 10
)

// step sets kv to the next pair, and reports whether there is one.
func (s *scan) step() bool {
	if s.next == len(s.ends) && !s.fill() {
		return false
	}
	begin := 0
	if s.next > 0 {
		begin = s.ends[s.next-1]
	}
	key, value := s.ends[s.next], s.ends[s.next+1]
	s.kv = index.KV{Key: s.bytes[begin:key:key], Value: s.bytes[key:value:value]}
	s.next += 2
	return true
}

// fill reads a batch, and reports whether there is anything in it.
func (s *scan) fill() bool {
	s.bytes, s.ends, s.next = s.bytes[:0], s.ends[:0], 0
	s.size = min(max(firstBatch, 2*s.size), maxBatch)
	s.err = s.d.contain(func() error {
		s.seek()
		for ; s.it.Valid() && len(s.ends) < 2*s.size && len(s.bytes) < maxBatchBytes; s.it.Next() {
			s.take(s.it.Item())
		}
		return nil
	})
	return len(s.ends) > 0 && s.err == nil
}

func (s *scan) seek() {
	if s.it != nil {
		return
	}
	s.txn = s.db.NewTransaction(false)
	// Values lie beside their keys. Fetching them ahead would start a goroutine
	// for each.
	s.it = s.txn.NewIterator(badgerdb.IteratorOptions{Prefix: s.prefix})
	s.it.Seek(s.start)
}

func (s *scan) take(item *badgerdb.Item) {
	key := item.Key()[1:]
	err := item.Value(func(v []byte) error {
		value, ok := content(key, v)
		if !ok {
			return errDamaged
		}
		s.bytes = append(s.bytes, key...)
		s.ends = append(s.ends, len(s.bytes))
		s.bytes = append(s.bytes, value...)
		s.ends = append(s.ends, len(s.bytes))
		return nil
	})
	if err != nil {
		s.d.log.Warn("damaged value in the index", "dir", s.d.dir, "key", key, "err", err)
	}
}

func (s *scan) close() {
	err := s.d.contain(func() error {
		if s.it != nil {
			s.it.Close()
		}
		if s.txn != nil {
			s.txn.Discard()
		}
		return nil
	})
	if s.err == nil && err != nil {
		s.d.log.Warn("end of a scan", "err", err)
	}
}

// Apply implements index.Store.
func (d *DB) Apply(changes ...index.KV) error {
	var size int64
	for _, c := range changes {
		if err := c.Check(); err != nil {
			return err
		}
		size += int64(len(c.Key) + len(c.Value))
	}
	db, err := d.acquire()
	if err != nil {
		return err
	}
	defer d.release()
	if db == nil {
		return fmt.Errorf("index %s: too little room to open it: %w", d.dir, syscall.ENOSPC)
	}
	for len(changes) > 0 {
		if err := d.guard.admit(size); err != nil {
			return err
		}
		var n int
		err := d.contain(func() (err error) {
			defer d.reader.renew()
			n, err = commit(db, changes)
			return err
		})
		if err != nil {
			return fmt.Errorf("write index %s: %w", d.dir, portable(err))
		}
		changes = changes[n:]
	}
	d.written.Add(size)
	return nil
}

// commit makes as many of the changes as fit one transaction, and returns how
// many these were.
func commit(db *badgerdb.DB, changes []index.KV) (int, error) {
	txn := db.NewTransaction(true)
	defer txn.Discard()
	n := 0
	for _, c := range changes {
		err := stage(txn, c)
		if errors.Is(err, badgerdb.ErrTxnTooBig) && n > 0 {
			break
		}
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, txn.Commit()
}

func stage(txn *badgerdb.Txn, c index.KV) error {
	key, value := entry(c.Key, c.Value)
	if c.Value == nil {
		return txn.Delete(key)
	}
	return txn.Set(key, value)
}
