// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
)

// A Source is a place that the blob can be fetched from.
type Source interface {
	// Open returns a range, or all, as backends.Client.Transfer.
	Open(ctx context.Context, opts backends.TransferOptions) Transfer
	// Scheduler gives out the slots of the service.
	Scheduler() *sched.Scheduler
	// Timeout is for how long a body may be asked for again and again without
	// bringing anything.
	Timeout() time.Duration
	// Same reports whether both are the same place.
	Same(other Source) bool
}

// A Divided source is one of a blob that does not come in any ranges.
type Divided interface {
	Source
	// Prepare returns once the other methods may be called. It may ask the registry; ctx ends
	// the wait only. Errors: those of Open.
	Prepare(ctx context.Context) error
	// Cold returns the ranges that must come in before any of the blob can be used, each from
	// its start to its end.
	Cold() [][2]int64
	// Unit returns what is best fetched together with [from, to), in whole chunks: a range that
	// holds from, and may end before to. It is called with the download's lock held.
	Unit(from, to int64) (first, last int64)
}

// A Transfer is a range on its way, as *backends.Transfer is one.
type Transfer interface {
	io.Reader
	Close()
	Priority
	Pace
}

// Priority is told whether a reader waits.
type Priority interface {
	Promote()
	Demote()
}

// Pace tells how a transfer comes on, see backends.Transfer.
type Pace interface {
	Speed() (n int64, took time.Duration, yielded bool)
	Ending()
	Surplus() bool
}

// A Sparse transfer knows of holes, which need not be written.
type Sparse interface {
	Transfer
	// Hole returns how many of the next bytes are zeros: whole chunks.
	Hole() int64
	// Skip leaves out n bytes.
	Skip(n int64)
}

func isDivided(s Source) bool {
	_, ok := s.(Divided)
	return ok
}

// divided returns the first choice if it is a Divided one.
func (s *sources) divided() (Divided, bool) {
	d, ok := s.best().(Divided)
	return d, ok
}

// minSample is how many bytes tell how fast a stream is, for a first guess.
const minSample = 64 << 10

// maxSources bounds how many places of one blob are remembered.
const maxSources = 8

// sources are the places where a blob can be fetched, the best first.
type sources struct {
	mu  sync.Mutex // guards the fields below
	all []Source   // one at least, once a download has begun
	// speed is that of one stream in the background, in bytes a second, smoothed; 0
	// while it is not known.
	speed    float64
	measured bool // one stream at least has ended
}

// offer adds a place, as the first choice, and reports whether there are others.
func (s *sources) offer(one Source) (others bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, one.Same)
	s.all = slices.Insert(s.all, 0, one)
	s.all = s.all[:min(len(s.all), maxSources)]
	return len(s.all) > 1
}

// best returns the first choice.
func (s *sources) best() Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[0]
}

// list returns all places.
func (s *sources) list() []Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// demote drops a place that cannot serve the blob any more (deleted there, access
// withdrawn), if there is another one.
func (s *sources) demote(one Source) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 1 {
		return false
	}
	if s.all[0].Same(one) {
		s.all = slices.Clone(s.all[1:])
	}
	return true
}

// known returns the speed of one stream, 0 if it is not known. It is no more than what
// all bring together: a body that lay in a buffer seems to be faster.
func (s *sources) known() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if all := s.all[0].Scheduler().Rate(); all > 0 {
		return min(s.speed, all)
	}
	return s.speed
}

// inTransit is how many bytes of one stream come in while a request travels.
func (s *sources) inTransit() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.speed * s.all[0].Scheduler().Latency.Usual().Seconds())
}

// guess is measure for a stream under way, as long as none has ended: the next ones are
// asked for before that. It returns inTransit.
func (s *sources) guess(n int64, took time.Duration) int64 {
	s.mu.Lock()
	if !s.measured {
		s.speed = float64(n) / max(took.Seconds(), 1e-6)
	}
	s.mu.Unlock()
	return s.inTransit()
}

// measure notes how fast a stream was, see fillSize.
func (s *sources) measure(n int64, took time.Duration) {
	if n < minPiece/2 {
		return
	}
	speed := float64(n) / max(took.Seconds(), 1e-6)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.measured {
		s.measured, s.speed = true, speed
	}
	s.speed += (speed - s.speed) / 4
}
