// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"io"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
)

// Whole brings an image of unknown size: it calls begin and writes all bytes in order
// to the writer that begin returns. A body that breaks off begins anew, with begin:
// without a size nothing tells whether the rest would fit.
//
// Errors: those of src.Open; of the writer; ErrClosed when ctx ends.
func Whole(ctx context.Context, src Source, begin func() io.Writer) error {
	began := time.Now()
	for tries := 0; ; tries++ {
		err := wholeOnce(ctx, src, begin())
		switch {
		case ctx.Err() != nil:
			return ErrClosed
		case err == nil:
			return nil
		case !resumable(err) || tries >= maxRetries && time.Since(began) > src.Timeout():
			return outward(gaveUp(err))
		}
		if sleep(ctx, retryWait(tries)) != nil {
			return ErrClosed
		}
	}
}

func wholeOnce(ctx context.Context, src Source, w io.Writer) error {
	slot := src.Scheduler().Ask(sched.Demanded)
	if err := slot.Wait(ctx); err != nil {
		return err
	}
	defer slot.Release()
	body, err := src.Open(sched.With(backends.Demanded(ctx, nil), slot), 0, -1)
	if err != nil {
		return &finalError{err}
	}
	defer body.Close()
	_, err = io.Copy(localWriter{w}, body)
	return err
}

// A localWriter marks the errors of the local disk: asking again would not mend them.
type localWriter struct{ io.Writer }

func (w localWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		err = &finalError{err}
	}
	return n, err
}
