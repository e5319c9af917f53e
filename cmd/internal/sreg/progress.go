// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

// A bar shows the progress of a transfer on a terminal. It appears with the first byte, so
// a transfer of nothing draws nothing.
type bar struct {
	label string
	app   *app
	mu    sync.Mutex // guards the fields below
	all   *mpb.Progress
	bar   *mpb.Bar
}

// bar returns the function that shows progress, nil if the output is no terminal, and the
// one that removes the bar.
func (a *app) bar(label string) (catalog.Progress, func()) {
	if a.quiet || !term.Is(a.err) {
		return nil, func() {}
	}
	b := &bar{label: backends.Printable(label), app: a}
	return b.set, b.end
}

func (b *bar) set(done, total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = mpb.New(mpb.WithOutput(b.app.err), mpb.WithAutoRefresh())
		b.bar = b.all.AddBar(max(total, 0), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(b.label+" ")),
			mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f ")))
	}
	if total > 0 {
		b.bar.SetTotal(total, false)
	}
	b.bar.SetCurrent(done)
}

// end removes the bar, whether the transfer succeeded or not.
func (b *bar) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		return
	}
	b.bar.Abort(true)
	b.all.Wait()
}
