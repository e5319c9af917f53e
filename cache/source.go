// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
)

// schedulers are those of the clients that blobs are fetched from.
type schedulers struct {
	total sched.Total

	mu sync.Mutex // guards the field below
	by map[*backends.Client]*sched.Scheduler
}

// of returns the scheduler of a client.
func (s *schedulers) of(client *backends.Client) *sched.Scheduler {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.by[client]
	if one == nil {
		one = s.total.New(client.Throttled)
		if s.by == nil {
			s.by = map[*backends.Client]*sched.Scheduler{}
		}
		s.by[client] = one
	}
	return one
}
