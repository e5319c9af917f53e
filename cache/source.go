// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"io"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
	"github.com/sregfs/sregfs/cache/fetch"
)

// A source is a place that a blob can be fetched from.
type source struct {
	client *backends.Client
	image  backends.Image
}

// Open implements fetch.Source.
func (s source) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	return s.client.Open(ctx, s.image, off, n)
}

// Scheduler implements fetch.Source.
func (s source) Scheduler() *sched.Scheduler { return s.client.Scheduler() }

// Timeout implements fetch.Source.
func (s source) Timeout() time.Duration { return s.client.Timeout() }

// Same implements fetch.Source.
func (s source) Same(other fetch.Source) bool {
	o, ok := other.(source)
	return ok && s.client == o.client && s.image.Ref == o.image.Ref && s.image.Version == o.image.Version
}

// String is for people.
func (s source) String() string { return s.client.Name() + "://" + s.image.Ref.String() }

// sourceNames returns where the blob comes from, for people.
func (d *data) sourceNames() []string {
	var names []string
	for _, src := range d.download.Sources() {
		names = append(names, src.(source).String())
	}
	return names
}
