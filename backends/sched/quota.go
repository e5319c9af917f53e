// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"sync"
	"time"
)

// A Quota is until when a service does not want to be asked questions of one kind. Many
// count requests by the day: looking must not spend what reading needs. The zero value
// limits nothing. For concurrent use.
type Quota struct {
	mu    sync.Mutex // guards the fields below
	until time.Time
	said  error
}

// Spent notes that the service wants to be left alone for so long, and what it said.
func (q *Quota) Spent(said error, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if until := time.Now().Add(wait); until.After(q.until) {
		q.until, q.said = until, said
	}
}

// Until returns when the service may be asked again, and what it said; the zero time if
// it never refused.
func (q *Quota) Until() (until time.Time, said error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.until, q.said
}
