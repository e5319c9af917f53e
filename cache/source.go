// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
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
func (s source) Open(ctx context.Context, opts backends.TransferOptions) *backends.Transfer {
	return s.client.Transfer(ctx, s.image, opts)
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
