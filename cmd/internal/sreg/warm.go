// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/exit"
)

const warmHelp = `Download all of many images, and check them against their digests, before they
are needed. What is here already is not downloaded again; if it is interrupted,
run it again and it goes on. One image that fails does not keep the others from
coming: the failures are listed at the end, and the exit code is that of the worst.

An image is meant by its URI, by a pattern with * ? [ as "sreg images" takes it,
or by its collection: lab://vsoch/ is all of that, lab:// all of a registry. A
list of them, one a line and with # comments, is read with --from.

With --to, copies are kept in a tree of plain files, for machines without FUSE:
DIR/lab/vsoch/hello:2.0.sif, the names of the mount. They share their blocks with
the cache where the filesystem can. A copy whose tag has moved is replaced by the
new image, all at once; a file that is something else is left alone without
--force; nothing is deleted.

With -o json: one line of JSON for each event: {event: "progress", uri, done,
total} now and then, {event: "image", uri, image, here_before} or {event:
"failed", uri, error, code} for each image, and at last {event: "end", images,
images_here_before, images_failed}.`

// A warmRun is one run of sreg warm. Its workers share the fields below mu and the display.
type warmRun struct {
	*app
	client  *control.Client
	opts    verbs.WarmOptions // To is set for each image
	to      string            // directory of the copies, absolute; "" for none
	workers int
	force   bool

	mu     sync.Mutex // guards the fields below
	show   warmDisplay
	here   int
	done   int
	errs   []error
	failed []string // the texts of errs
}

func (a *app) warmCmd() *cobra.Command {
	var from, to string
	w := &warmRun{app: a}
	cmd := &cobra.Command{
		Use:     "warm URI...",
		Aliases: []string{"warmup", "prefetch"},
		Short:   "Bring many images to this machine before they are needed",
		Long:    warmHelp,
		Example: `  sreg warm lab://vsoch/hello:2.0 'lab://bio/*' lab://genomics/
  sreg warm --from images.txt -j 8 --pin
  sreg warm --from images.txt --to /scratch/images`,
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			patterns, err := a.readPatterns(cmd.Context(), args, from)
			if err != nil {
				return err
			}
			if len(patterns) == 0 {
				return usagef("usage: %s: name images, or a list with --from", cmd.UseLine())
			}
			if a.format == asJSON && (a.encoding == inCSV || a.encoding == inNames) {
				return usagef("warm -o %s: it prints events: -o json or yaml", a.encoding)
			}
			if w.workers < 1 || w.workers > maxWarmWorkers {
				return usagef("warm --jobs %d: from 1 to %d", w.workers, maxWarmWorkers)
			}
			if w.to = to; to != "" {
				if w.to, err = absolute(to); err != nil {
					return err
				}
			}
			return a.with(cmd.Context(), func(c *control.Client) error {
				run := warmRun{app: a, client: c, opts: w.opts, to: w.to, workers: w.workers, force: w.opts.Force}
				return run.run(cmd.Context(), patterns)
			})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&from, "from", "", "read what to bring from `FILE`, one a line; - is the standard input")
	fs.StringVar(&to, "to", "", "keep copies below `DIR`")
	fs.IntVarP(&w.workers, "jobs", "j", 3, "how many images to bring at once")
	fs.BoolVar(&w.opts.Pin, "pin", false, "pin them too: the cache keeps them")
	fs.BoolVar(&w.opts.Verify, "verify", false, "with --to: read the copies back and compare their digests")
	fs.BoolVarP(&w.opts.Force, "force", "f", false, "begin even if there is too little space; with --to, replace other files")
	_ = cmd.MarkFlagFilename("from")
	_ = cmd.MarkFlagDirname("to")
	return cmd
}

// maxWarmWorkers is more than any registry allows.
const maxWarmWorkers = 64

// run fetches the images that match the patterns.
func (w *warmRun) run(ctx context.Context, patterns []string) error {
	if err := w.checkTo(); err != nil {
		return err
	}
	targets, err := w.plan(ctx, patterns)
	if err != nil {
		return err
	}
	if err := w.checkSpace(ctx, targets); err != nil {
		return err
	}
	w.show = w.newDisplay(targets)
	var g errgroup.Group
	g.SetLimit(w.workers)
	for _, t := range targets {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			return backends.Guard(nil, func() error { w.fetch(ctx, t); return nil })
		})
	}
	_ = backends.Raise(g.Wait()) // the errors are kept in w
	w.show.end()
	return w.report(ctx, len(targets))
}

// checkTo refuses a directory that copies cannot be written to, so that the error comes
// once and not for each image. A directory in the mount would publish the copies.
func (w *warmRun) checkTo() error {
	if w.to == "" {
		return nil
	}
	if _, ok := insideMount(w.mount, w.to); w.mount != "" && (ok || w.to == w.mount) {
		return usagef("warm --to %s: that is in the mount: name a directory outside of it", w.to)
	}
	at := existing(w.to)
	if info, err := os.Stat(at); err == nil && !info.IsDir() {
		return usagef("warm --to %s: %s is not a directory", w.to, at)
	}
	if err := unix.Access(at, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("warm --to %s: write to %s: %w", w.to, at, err)
	}
	return nil
}

// fetch fetches one image. An interrupted one counts as neither done nor failed.
func (w *warmRun) fetch(ctx context.Context, t warmTarget) {
	if ctx.Err() != nil {
		return
	}
	opts := w.opts
	opts.To = t.to
	got, err := w.client.Warm(ctx, t.uri, opts, w.show.begin(t))
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		w.show.finish(t, nil, nil)
	case err != nil:
		w.fail(t.uri, err)
		w.show.finish(t, nil, err)
	default:
		w.done++
		if got.Here {
			w.here++
		}
		w.show.finish(t, &got, nil)
	}
}

// fail notes an error. Call with mu held, or before the workers start.
func (w *warmRun) fail(what string, err error) {
	w.errs = append(w.errs, err)
	text := backends.Printable(exit.Text(err))
	if name := backends.Printable(what); !strings.Contains(text, name) { // most errors name the image
		text = name + ": " + text
	}
	w.failed = append(w.failed, text)
}

// report prints the totals and the errors. The exit code is that of the worst error.
func (w *warmRun) report(ctx context.Context, wanted int) error {
	if ctx.Err() != nil {
		w.notice(fmt.Sprintf("interrupted: %d of %d images are here whole; run it again and it goes on", w.done, wanted))
		return ctx.Err()
	}
	if w.format == asJSON {
		w.event(warmEvent{Event: "end", Images: &w.done, HereCount: &w.here, Failed: new(len(w.failed))})
	}
	for _, text := range w.failed {
		if w.format != asJSON {
			fmt.Fprintln(w.err, "sreg: "+text)
		}
	}
	if len(w.failed) == 0 {
		w.notice(fmt.Sprintf("%s here, %d of them before", imagesAre(w.done), w.here))
		return nil
	}
	return exit.WithCode(exit.Code(errors.Join(w.errs...)), fmt.Errorf("%s here, %d failed", imagesAre(w.done), len(w.failed)))
}
