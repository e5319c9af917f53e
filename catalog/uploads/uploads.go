// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"log/slog"
	"sync/atomic"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
)

// Uploads publish the drafts of a catalogue's spool. Make them with New. All methods may
// be called from many goroutines at once.
type Uploads struct {
	cat       *catalog.Catalog
	log       *slog.Logger
	runs      *runs
	queue     queue
	turns     backends.Locks // by name: one push to a name at a time
	published atomic.Int64   // counts what was published, before rebase looks for drafts that follow
}
