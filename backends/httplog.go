// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// told are the headers whose values a log may have. Of any other there is the name: it may
// be a token, or a cookie, whatever it is called.
var told = []string{
	"Accept", "Accept-Ranges", "Cache-Control", "Content-Length", "Content-Range", "Content-Type", "Date", "Docker-Content-Digest",
	"Docker-Distribution-Api-Version", "Etag", "If-Match", "If-None-Match", "Last-Modified", "Range", "Ratelimit-Limit", "Ratelimit-Remaining",
	"Retry-After", "Server", "User-Agent",
}

// toldRedacted are those whose values hold addresses: Redact takes what is secret out of them.
var toldRedacted = []string{"Link", "Location", "Www-Authenticate"}

// exchange sends a request and logs it with its answer, at slog.LevelDebug. Neither bodies
// nor anything that lets somebody in are logged.
func (rt *roundTripper) exchange(transport *http.Transport, req *http.Request) (*http.Response, error) {
	log := rt.opts.Log
	if log == nil || !log.Enabled(req.Context(), slog.LevelDebug) {
		return transport.RoundTrip(req)
	}
	start := time.Now()
	resp, err := transport.RoundTrip(req)
	attrs := []any{"method", req.Method, "url", Printable(Redact(req.URL.String())), "took", time.Since(start).Round(time.Millisecond), headers("sent", req.Header)}
	if err != nil {
		log.DebugContext(req.Context(), "http", append(attrs, "err", Printable(Redact(err.Error())))...)
		return nil, err
	}
	log.DebugContext(req.Context(), "http", append(attrs, "status", strconv.Itoa(resp.StatusCode), headers("answered", resp.Header))...)
	return resp, nil
}

func headers(name string, h http.Header) slog.Attr {
	var attrs []any
	names := make([]string, 0, len(h))
	for key := range h {
		names = append(names, key)
	}
	slices.Sort(names)
	for _, key := range names {
		value := "…"
		switch {
		case slices.Contains(told, key):
			value = Printable(h.Get(key))
		case slices.Contains(toldRedacted, key):
			value = Printable(Redact(h.Get(key)))
		}
		attrs = append(attrs, slog.String(Printable(key), value))
	}
	return slog.Group(name, attrs...)
}
