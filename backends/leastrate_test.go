// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// dripping is a body of a piece in each interval.
type dripping struct {
	ctx      context.Context //nolint:containedctx // of the request, as the transport has it
	interval time.Duration
	piece    int
}

func (d dripping) Read(p []byte) (int, error) {
	if !Pause(d.ctx, d.interval, nil) {
		return 0, d.ctx.Err()
	}
	return min(d.piece, len(p)), nil
}

func (dripping) Close() error { return nil }

// A registry that sends a byte now and then is not heard for ever; a slow line is,
// also where many streams share it.
func TestLeastRate_download(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		pieces []int // bytes a second, of each stream
		cut    func(i int) bool
	}{
		"a byte a second":                   {[]int{1}, all},
		"100 bytes":                         {[]int{100}, all},
		"a slow line":                       {[]int{1000}, none},
		"a slow line for sixteen":           {same(16, 64), none},
		"nothing worth mentioning, sixteen": {same(16, 16), all},
		"a drip beside others":              {[]int{1, 3000, 3000, 3000}, func(i int) bool { return i == 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				to, release := new(hosts).take("host")
				defer release()
				var streams sync.WaitGroup
				for i, piece := range tt.pieces {
					ctx, dog := watch(t.Context(), time.Minute, func() {})
					dog.answered()
					body := &watchedBody{ReadCloser: dripping{ctx, time.Second, piece}, ctx: ctx, dog: dog, rate: newRateWatch(to, DefaultMinRate, time.Minute, dog.cancel)}
					streams.Go(func() {
						defer body.Close()
						start := time.Now()
						n, err := io.Copy(io.Discard, io.LimitReader(body, int64(300*piece)))
						if (err != nil) != tt.cut(i) || err != nil && (!errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Minute) {
							t.Errorf("stream %d: %d bytes and %v after %v", i, n, err, time.Since(start))
						}
					})
				}
				streams.Wait()
			})
		})
	}
}

func all(int) bool  { return true }
func none(int) bool { return false }

func same(n, v int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = v
	}
	return s
}

// The same of what a registry takes of an upload.
func TestLeastRate_upload(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		rate   int // bytes a second that are taken
		window time.Duration
		cut    bool
	}{
		"10 bytes":          {10, time.Minute, true},
		"a slow line":       {700, time.Minute, false},
		"10 bytes, shorter": {10, 8 * time.Second, true},
		"slow, shorter":     {700, 8 * time.Second, false},
		"a fast line":       {10 << 20, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, dog := watch(t.Context(), time.Minute, func() {})
				to, release := new(hosts).take("host")
				defer release()
				up := &watchedUpload{ReadCloser: io.NopCloser(zeros{}), dog: dog, rate: newRateWatch(to, DefaultMinRate, tt.window, dog.cancel)}
				buf := make([]byte, 32<<10)
				start := time.Now()
				for time.Since(start) < 10*time.Minute && ctx.Err() == nil {
					n, _ := up.Read(buf)
					Pause(ctx, time.Duration(n)*time.Second/time.Duration(tt.rate), nil)
				}
				if cut := errors.Is(context.Cause(ctx), errIdle); cut != tt.cut {
					t.Errorf("ended: %v, want %v", cut, tt.cut)
				}
				up.Close()
				dog.end()
			})
		})
	}
}
