// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/sregfs/sregfs/catalog/verbs"
)

// metricsTime is how often the file is written: node_exporter is mostly asked as often.
const metricsTime = 15 * time.Second

// status is what the metrics are made of.
func (s *server) status(ctx context.Context) (verbs.Status, error) {
	st, err := s.engine.Verbs.Status(ctx)
	st.Details = s.details()
	return st, err
}

// writeMetrics keeps the file of the metrics up to date until the returned function is
// called, which removes it: old numbers look like a mount that runs.
func (s *server) writeMetrics(ctx context.Context) (stop func()) {
	path := s.settings.MetricsFile
	if path == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(metricsTime)
		defer tick.Stop()
		failing := false
		for {
			err := s.metrics.Write(path)
			if err != nil && !failing {
				s.opts.Log.Warn("the metrics cannot be written", "file", path, "err", err)
			}
			failing = err != nil
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		cancel()
		<-done
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.opts.Log.Warn("the metrics of a mount that is over stay", "file", path, "err", err)
		}
	}
}
