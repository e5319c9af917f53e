// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

// A warmDisplay shows the progress of a warmRun. begin may be called by several workers at
// once; finish is called with warmRun.mu held.
type warmDisplay interface {
	begin(t warmTarget) catalog.Progress
	// finish shows the result of an image: got, or err, or neither if it was interrupted.
	finish(t warmTarget, got *verbs.Warmed, err error)
	end()
}

func (w *warmRun) newDisplay(targets []warmTarget) warmDisplay {
	switch {
	case w.format == asJSON:
		return eventDisplay{w}
	case w.quiet || !term.Is(w.err):
		return lineDisplay{w}
	}
	return newBarDisplay(w, targets)
}

// line describes the result of an image; "" if it was interrupted.
func (w *warmRun) line(t warmTarget, got *verbs.Warmed, err error) string {
	how, bytes := "fetched", t.rec.Size
	if got != nil {
		bytes = got.Image.Size
	}
	switch {
	case err != nil:
		how = "failed"
	case got == nil:
		return ""
	case got.Here:
		how = "here already"
	case w.to != "":
		how = "copied"
	}
	return fmt.Sprintf("%-12s  %9s  %s\n", how, size(bytes), backends.Printable(t.uri))
}

// A lineDisplay prints a line for each image, and no progress.
type lineDisplay struct{ *warmRun }

func (d lineDisplay) begin(warmTarget) catalog.Progress { return nil }
func (d lineDisplay) end()                              {}

func (d lineDisplay) finish(t warmTarget, got *verbs.Warmed, err error) {
	if !d.quiet {
		fmt.Fprint(d.out, d.line(t, got, err))
	}
}

// A barDisplay shows a bar for each image under way, and one for all. The lines of finished
// images scroll above the bars.
type barDisplay struct {
	*warmRun
	all   *mpb.Progress
	total *mpb.Bar
	meter meter // of the total
	// The counts in the label of the total. They are atomic because mpb calls the label
	// while it draws, and a worker that changes them under a lock may wait for the drawing:
	// with a lock both would wait for ever.
	nDone, nFailed atomic.Int64

	mu   sync.Mutex // guards the fields below
	bars map[string]*warmBar
	came int64 // bytes that were fetched
}

type warmBar struct {
	bar  *mpb.Bar // nil before the first byte
	want int64    // its share of the total
	done int64    // how much of that the total shows
	meter
	last int64 // what the transfer said last
}

func newBarDisplay(w *warmRun, targets []warmTarget) *barDisplay {
	d := &barDisplay{warmRun: w, bars: map[string]*warmBar{}}
	d.nFailed.Store(int64(len(w.failed)))
	d.all = mpb.New(mpb.WithOutput(w.err), mpb.WithAutoRefresh())
	var sum int64
	for _, t := range targets {
		sum = addCapped(sum, t.rec.Size)
	}
	d.meter.begin(0)
	d.total = d.all.AddBar(sum, mpb.BarPriority(len(targets)+1), mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return d.label(len(targets)) }, decor.WC{W: labelWidth + 1, C: decor.DindentRight})),
		appended(&d.meter))
	return d
}

func (d *barDisplay) label(of int) string {
	text := fmt.Sprintf("%d of %d images", d.nDone.Load(), of)
	if n := d.nFailed.Load(); n > 0 {
		text += fmt.Sprintf(", %d failed", n)
	}
	return text
}

func (d *barDisplay) begin(t warmTarget) catalog.Progress {
	b := &warmBar{want: max(t.rec.Size, 0)}
	d.mu.Lock()
	d.bars[t.uri] = b
	d.mu.Unlock()
	return func(done, total int64) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.bars[t.uri] != b {
			return
		}
		if b.bar == nil {
			b.begin(done)
			b.bar = addBar(d.all, t.uri, total, &b.meter)
		}
		b.last = done
		b.bar.SetCurrent(done)
		d.advance(b, min(done, b.want))
	}
}

// advance adds an image's progress to the total. It needs mu.
func (d *barDisplay) advance(b *warmBar, done int64) {
	d.total.IncrInt64(done - b.done)
	b.done = done
}

// removeBar removes an image's bar. A failed image counts as done, so that the total
// reaches its end.
func (d *barDisplay) removeBar(t warmTarget) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.bars[t.uri]
	delete(d.bars, t.uri)
	d.advance(b, b.want)
	d.came += b.last - b.first
	if b.bar != nil {
		b.bar.Abort(true)
	}
}

func (d *barDisplay) finish(t warmTarget, got *verbs.Warmed, err error) {
	switch {
	case err != nil:
		d.nFailed.Add(1)
	case got != nil:
		d.nDone.Add(1)
	}
	d.removeBar(t)
	if line := d.line(t, got, err); term.Is(d.out) {
		_, _ = d.all.Write([]byte(line)) // above the bars
	} else {
		fmt.Fprint(d.out, line)
	}
}

// end removes the bars; the report follows.
func (d *barDisplay) end() {
	d.total.Abort(true)
	d.all.Wait()
	if d.came > 0 {
		took := time.Since(d.meter.start)
		d.notice(fmt.Sprintf("fetched %s in %s, %s/s", size(d.came), brief(took), size(int64(float64(d.came)/took.Seconds()))))
	}
}

// An eventDisplay prints a line of JSON for each event.
type eventDisplay struct{ *warmRun }

// A warmEvent is one line of -o json. Which fields there are depends on Event.
type warmEvent struct {
	Event     string        `json:"event"` // progress, image, failed, end
	URI       string        `json:"uri,omitempty"`
	Done      *int64        `json:"done,omitempty"`
	Total     *int64        `json:"total,omitempty"`
	Here      *bool         `json:"here_before,omitempty"`
	Image     *verbs.Record `json:"image,omitempty"`
	Error     string        `json:"error,omitempty"`
	Code      int           `json:"code,omitempty"`
	Images    *int          `json:"images,omitempty"`
	HereCount *int          `json:"images_here_before,omitempty"`
	Failed    *int          `json:"images_failed,omitempty"`
}

func failedEvent(what string, err error) warmEvent {
	return warmEvent{Event: "failed", URI: what, Error: exit.Text(err), Code: exit.Code(err)}
}

func (w *warmRun) event(e warmEvent) {
	switch w.encoding { // out keeps its error for the end
	case inYAML:
		fmt.Fprintln(w.out, "---")
		_ = writeYAML(w.out, e)
	case inTemplate:
		_ = w.execute(e)
	default:
		_ = writeJSON(w.out, e, "")
	}
}

const eventEvery = time.Second // progress of one image

func (d eventDisplay) begin(t warmTarget) catalog.Progress {
	var last time.Time
	return func(done, total int64) {
		if time.Since(last) < eventEvery {
			return
		}
		last = time.Now()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.event(warmEvent{Event: "progress", URI: t.uri, Done: &done, Total: &total})
	}
}

func (d eventDisplay) finish(t warmTarget, got *verbs.Warmed, err error) {
	switch {
	case err != nil:
		d.event(failedEvent(t.uri, err))
	case got != nil:
		d.event(warmEvent{Event: "image", URI: t.uri, Here: &got.Here, Image: &got.Image})
	}
}

func (d eventDisplay) end() {}
