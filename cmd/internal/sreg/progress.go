// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

// A transfer is what a bar and its last line say.
type transfer struct {
	done string // "pulled"
	what string // the image
	kept string // what an interrupt leaves, a sentence; "" says nothing
}

// A bar shows the progress of a transfer on a terminal. It appears with the first byte, so
// a transfer of nothing draws nothing.
type bar struct {
	transfer
	app   *app
	begun time.Time
	meter *meter
	mu    sync.Mutex // guards the fields below
	all   *mpb.Progress
	bar   *mpb.Bar
	last  int64
}

// bar returns the function that shows progress, nil if the output is no terminal, and the
// one that removes the bar. Most commands want transfer.
func (a *app) bar(label string) (catalog.Progress, func()) {
	progress, end := a.transfer(transfer{what: label})
	return progress, func() { end(context.Background(), nil) }
}

// transfer is bar for what moves an image: on a terminal a last line says how much came, and
// how fast. The function that ends it takes the error of the transfer, which it does not
// print; if ctx was ended it says what stays.
func (a *app) transfer(t transfer) (catalog.Progress, func(ctx context.Context, err error)) {
	interrupted := func(ctx context.Context) {
		if ctx.Err() != nil && t.kept != "" {
			a.notice("interrupted: " + t.kept)
		}
	}
	if a.quiet || !term.Is(a.err) {
		return nil, func(ctx context.Context, _ error) { interrupted(ctx) }
	}
	b := &bar{transfer: t, app: a, begun: time.Now(), meter: &meter{}}
	return b.set, func(ctx context.Context, err error) {
		b.end()
		if last := b.lastLine(); err == nil && t.done != "" && last != "" {
			a.notice(last)
		}
		interrupted(ctx)
	}
}

func (b *bar) set(done, total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.meter.begin(done)
		b.all = mpb.New(mpb.WithOutput(b.app.err), mpb.WithAutoRefresh())
		b.bar = addBar(b.all, b.what, total, b.meter)
	}
	if total > 0 {
		b.bar.SetTotal(total, false)
	}
	b.bar.SetCurrent(done)
	b.last = done
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

// lastLine says how much there is now, and how fast it came; "" if nothing moved.
func (b *bar) lastLine() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		return ""
	}
	rate := b.meter.rate(b.last)
	if rate != "" {
		rate = ", " + rate
	}
	return fmt.Sprintf("%s %s: %s in %s%s", b.done, b.what, size(b.last), brief(time.Since(b.begun)), rate)
}

// brief is a duration for people.
func brief(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	if d < 2*time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// A meter measures a transfer from its first call on: what was there before it began tells
// nothing of the line.
type meter struct {
	first int64
	start time.Time
}

func (m *meter) begin(done int64) { m.first, m.start = done, time.Now() }

// perSecond is 0 until there is something to measure.
func (m *meter) perSecond(done int64) float64 {
	elapsed := time.Since(m.start).Seconds()
	if elapsed < 0.1 || done <= m.first {
		return 0
	}
	return float64(done-m.first) / elapsed
}

func (m *meter) rate(done int64) string {
	if n := m.perSecond(done); n > 0 {
		return size(int64(n)) + "/s"
	}
	return ""
}

// left is how long the rest takes at this rate, as minutes and seconds.
func (m *meter) left(done, total int64) string {
	n := m.perSecond(done)
	if n == 0 || total <= done {
		return ""
	}
	d := time.Duration(float64(total-done) / n * float64(time.Second)).Round(time.Second)
	if d >= 24*time.Hour {
		return ""
	}
	text := fmt.Sprintf("%d:%02d", int(d.Minutes())%60, int(d.Seconds())%60)
	if d >= time.Hour {
		text = fmt.Sprintf("%d:%02d:%02d", int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
	}
	return text
}

const labelWidth = 26 // of a bar's label; all of a line are 80 columns

// addBar adds a bar in the one style of all commands: what, how much of it, how fast, and
// how long it will take.
func addBar(all *mpb.Progress, label string, total int64, m *meter, options ...mpb.BarOption) *mpb.Bar {
	name := middleCut(backends.Printable(label), labelWidth)
	return all.AddBar(max(total, 0), append(options, mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(name, decor.WC{W: labelWidth + 1, C: decor.DindentRight})),
		appended(m))...)
}

func appended(m *meter) mpb.BarOption {
	rate := func(s decor.Statistics) string {
		if n := m.perSecond(s.Current); n > 0 {
			return size(int64(n)) + "/s"
		}
		return ""
	}
	return mpb.AppendDecorators(
		decor.Percentage(decor.WC{W: 5}),
		decor.Any(func(s decor.Statistics) string { return size(s.Current) + "/" + size(s.Total) }, decor.WC{W: 18}),
		decor.Any(rate, decor.WC{W: 11}),
		decor.Any(func(s decor.Statistics) string { return m.left(s.Current, s.Total) }, decor.WC{W: 7}))
}
