// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// A ledger has the uploads that this machine has begun, a file for each: what a push that was
// killed has stored costs money until it is removed, and the service does not tell whose it is.
// Without a directory nothing is noted.
type ledger struct{ dir string }

// A begun upload.
type begun struct {
	Bucket string    `json:"bucket"`
	Key    string    `json:"key"`
	ID     string    `json:"id"`
	Time   time.Time `json:"time"`
}

const ledgerDir = "uploads"

func (l ledger) file(id string) string {
	return filepath.Join(l.dir, ledgerDir, fmt.Sprintf("%x.json", sha256.Sum256([]byte(id))))
}

// note keeps that an upload was begun.
func (l ledger) note(bucket, key, id string) {
	if l.dir == "" || os.MkdirAll(filepath.Join(l.dir, ledgerDir), 0o700) != nil {
		return
	}
	text, err := json.Marshal(begun{bucket, key, id, time.Now()})
	if err != nil {
		return
	}
	temporary := l.file(id) + ".new"
	if os.WriteFile(temporary, text, 0o600) != nil || os.Rename(temporary, l.file(id)) != nil {
		_ = os.Remove(temporary)
	}
}

// forget drops an upload that has ended.
func (l ledger) forget(id string) {
	if l.dir != "" && id != "" {
		_ = os.Remove(l.file(id))
	}
}

// old returns the uploads to a bucket that nobody goes on with any more.
func (l ledger) old(bucket string) (all []begun) {
	if l.dir == "" {
		return nil
	}
	names, _ := filepath.Glob(filepath.Join(l.dir, ledgerDir, "*.json"))
	for _, name := range names {
		var u begun
		text, err := os.ReadFile(name)
		if err == nil && json.Unmarshal(text, &u) == nil && u.Bucket == bucket && time.Since(u.Time) > lifetime+24*time.Hour {
			all = append(all, u)
		}
	}
	return all
}

// sweep removes from the service what pushes of this machine have left there long ago.
func (b *bucket) sweep(ctx context.Context) {
	for _, u := range b.ledger.old(b.where()) {
		if err := b.abort(ctx, u.Key, u.ID); err != nil {
			b.log.Warn("an upload that was broken off stays at the service", "remote", b.remote, "key", u.Key, "err", err)
			continue
		}
		b.ledger.forget(u.ID)
	}
}

// where tells this bucket from all others.
func (b *bucket) where() string { return b.address("").String() }
