// SPDX-License-Identifier: Apache-2.0

// Package metrics shows the state of a mount to Prometheus: by HTTP on the control socket,
// and as a file for node_exporter. The names and labels are documented in docs/admin.md, and
// stay. No label has the name of an image.
package metrics

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sregfs/sregfs/catalog/verbs"
)

// A StatusFunc tells how a mount stands.
type StatusFunc func(ctx context.Context) (verbs.Status, error)

// Metrics are those of one mount. Methods may be called from many goroutines at once.
type Metrics struct{ registry *prometheus.Registry }

// New returns the metrics of a mount that was started then.
func New(status StatusFunc, started time.Time) *Metrics {
	m := &Metrics{prometheus.NewRegistry()}
	m.registry.MustRegister(&collector{status, started},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Write replaces the file path, which everybody may read then, at once.
func (m *Metrics) Write(path string) error { return prometheus.WriteToTextfile(path, m.registry) }

// timeout bounds one look at the mount.
const timeout = 10 * time.Second

// A collector asks the mount for each scrape, so that nothing is counted twice.
type collector struct {
	status  StatusFunc
	started time.Time
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sregfs_"+name, help, labels, nil)
}

var ( // never changed
	up           = desc("up", "Whether the mount could say how it stands.")
	build        = desc("build_info", "The version of sregfs; always 1.", "version")
	started      = desc("start_time_seconds", "When the mount was started, in Unix time.")
	remoteUp     = desc("remote_up", "Whether the last answer of the remote was no error.", "remote", "type")
	remoteImages = desc("remote_images", "Images that are known of the remote.", "remote", "type")
	remoteSeen   = desc("remote_last_answer_timestamp_seconds", "When the remote last answered, in Unix time.", "remote", "type")
	cacheBytes   = desc("cache_bytes", "Bytes that the cache takes.")
	cacheLimit   = desc("cache_limit_bytes", "Most bytes that the cache may take; 0 means what min_free leaves.")
	cacheImages  = desc("cache_images", "Images in the cache.", "state")
	cachePinned  = desc("cache_pinned_images", "Images that are pinned, here or not.")
	cacheRefused = desc("cache_refused_images", "Images that are not given out, because their bytes did not match the digest.")
	transfers    = desc("transfers", "Images that are being fetched.")
	requests     = desc("transfer_requests", "Requests under way for images that are being fetched.")
	uploads      = desc("uploads", "Files in the spool.", "state")
	spoolBytes   = desc("spool_bytes", "Bytes that the spool takes.")
	pushes       = desc("pushes", "Files that sreg pushes at the moment.")
	opens        = desc("opens_total", "Images that were opened, by how they are read.", "kind")
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	gauge(started, float64(c.started.Unix()))
	st, err := c.status(ctx)
	if err != nil {
		gauge(up, 0)
		return
	}
	gauge(up, 1)
	gauge(build, 1, st.Version)
	for _, r := range st.Remotes {
		gauge(remoteUp, number(r.Error == ""), r.Name, r.Type)
		gauge(remoteImages, float64(r.Images), r.Name, r.Type)
		if !r.Seen.IsZero() {
			gauge(remoteSeen, float64(r.Seen.Unix()), r.Name, r.Type)
		}
	}
	gauge(cacheBytes, float64(st.Cache.Used))
	gauge(cacheLimit, float64(st.Cache.Limit))
	gauge(cacheImages, float64(st.Cache.Whole), "whole")
	gauge(cacheImages, float64(st.Cache.Partial), "partial")
	gauge(cachePinned, float64(st.Cache.Pinned))
	gauge(cacheRefused, float64(len(st.Cache.Refused)))
	gauge(transfers, float64(len(st.Cache.Transfers)))
	n := 0
	for _, t := range st.Cache.Transfers {
		n += t.Requests
	}
	gauge(requests, float64(n))
	states := map[string]int{}
	for _, d := range st.Uploads {
		states[string(d.State)]++
	}
	for state, n := range states {
		gauge(uploads, float64(n), state)
	}
	gauge(spoolBytes, float64(st.Spool.Used))
	gauge(pushes, float64(len(st.Pushes)))
	for key, value := range st.Details {
		kind, ok := strings.CutPrefix(key, "opens_")
		if n, err := strconv.ParseFloat(value, 64); ok && err == nil {
			ch <- prometheus.MustNewConstMetric(opens, prometheus.CounterValue, n, kind)
		}
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
