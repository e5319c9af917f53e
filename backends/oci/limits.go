// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// limits is what a service said of how much it allows. The zero value was told
// nothing.
type limits struct {
	log *slog.Logger

	mu    sync.Mutex // guards the fields below
	pulls allowance  // from the registry
	calls allowance  // from its API
	low   bool       // logged that few pulls are left
}

// An allowance is what is left of so many requests in a time.
type allowance struct {
	of, left int
	window   time.Duration // in which of are allowed; 0 if not said
	reset    time.Time     // when all are there again; zero if not said
	whose    string        // the address or account that they are counted for; "" if not said
}

// see looks at an answer of the registry for "ratelimit-limit: 100;w=21600" and
// "ratelimit-remaining", which Docker Hub sends with each manifest
// (docs.docker.com/docker-hub/usage/pulls).
func (l *limits) see(h http.Header) {
	of, window, ok1 := quota(h.Get("RateLimit-Limit"))
	left, _, ok2 := quota(h.Get("RateLimit-Remaining"))
	if !ok1 || !ok2 {
		return
	}
	l.mu.Lock()
	l.pulls = allowance{of: of, left: left, window: window, whose: printable(h.Get("Docker-RateLimit-Source"))}
	was, text := l.low, l.pulls.text("pulls")
	l.low = left*10 < of
	warn := l.low && !was
	l.mu.Unlock()
	if warn && l.log != nil {
		l.log.Warn("the registry will soon allow no more pulls", "left", text)
	}
}

// quota reads a number and what follows as "w=SECONDS".
func quota(value string) (n int, window time.Duration, ok bool) {
	number, params, _ := strings.Cut(value, ";")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || n < 0 {
		return 0, 0, false
	}
	for param := range strings.SplitSeq(params, ";") {
		if w, found := strings.CutPrefix(strings.TrimSpace(param), "w="); found {
			if seconds, err := strconv.ParseUint(w, 10, 31); err == nil {
				window = time.Duration(seconds) * time.Second
			}
		}
	}
	return n, window, true
}

// printable returns a service's name for the requesting account or address, if it looks
// like one.
func printable(s string) string {
	if len(s) > 64 || strings.Trim(strings.ToLower(s), "0123456789abcdefghijklmnopqrstuvwxyz.:-_") != "" {
		return ""
	}
	return s
}

// seeAPI looks at an answer of the service's API: X-RateLimit-Limit,
// -Remaining and -Reset of GitHub and Docker Hub, RateLimit-… of GitLab.
func (l *limits) seeAPI(h http.Header) {
	for _, prefix := range []string{"X-RateLimit-", "RateLimit-"} {
		of, _, ok1 := quota(h.Get(prefix + "Limit"))
		left, _, ok2 := quota(h.Get(prefix + "Remaining"))
		if ok1 && ok2 {
			l.mu.Lock()
			l.calls = allowance{of: of, left: left, reset: unixTime(h.Get(prefix + "Reset"))}
			l.mu.Unlock()
			return
		}
	}
}

// text says what is left: "76 of 100 pulls left in 6 h".
func (a allowance) text(what string) string {
	text := fmt.Sprintf("%d of %d %s left", a.left, a.of, what)
	switch {
	case a.window > 0:
		text += " in " + span(a.window)
	case !a.reset.IsZero():
		text += " until " + a.reset.UTC().Format("15:04 UTC")
	}
	return text
}

// span writes a time as people say it: whole hours or minutes if it is that.
func span(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

// Limits returns what the service has said of how much it still allows, for
// people; "" if it has said nothing.
func (c *client) Limits() string {
	l := &c.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	if l.pulls.of > 0 {
		all = append(all, l.pulls.text("pulls"))
	}
	if l.calls.of > 0 {
		all = append(all, l.calls.text("requests to list"))
	}
	return strings.Join(all, ", ")
}

// refusal adds to a registry's "too many requests" what it allows, and to whom.
func (c *client) refusal(err error) error {
	c.limits.mu.Lock()
	a := c.limits.pulls
	c.limits.mu.Unlock()
	if a.of == 0 {
		return err
	}
	text := fmt.Sprintf("the limit is %d pulls", a.of)
	if a.window > 0 {
		text += " in " + span(a.window)
	}
	switch _, bad := netip.ParseAddr(a.whose); {
	case a.whose != "" && bad == nil:
		text += " for the address " + a.whose + "; logging in allows more"
	case c.login.secret != nil:
		text += fmt.Sprintf(" for the user %q", c.login.user)
	case a.whose != "":
		text += " for the account that is logged in"
	default:
		text += "; logging in can allow more"
	}
	err = fmt.Errorf("%w (%s)", err, text)
	if a.window > 0 && backends.RetryAfter(err) == 0 {
		// The window slides: one more comes free after this long, on average.
		// To ask again in a second only wears the limit down further.
		return &backends.DelayError{Err: err, After: a.window / time.Duration(a.of)}
	}
	return err
}

// limited turns an API's 403 or 429 into a sentinel. GitHub says 403 where
// others say 429, with nothing remaining or a Retry-After
// (docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api); the
// X-Retry-After of Docker Hub is a Unix time.
func limited(resp *http.Response) error {
	err := httpx.Error(resp)
	after := backends.RetryAfter(err)
	if errors.Is(err, fs.ErrPermission) {
		if resp.Header.Get("X-RateLimit-Remaining") != "0" && after == 0 {
			return err
		}
		err = fmt.Errorf("%w: HTTP %d of the API", backends.ErrRateLimited, resp.StatusCode)
	}
	for _, name := range []string{"X-Retry-After", "X-RateLimit-Reset", "RateLimit-Reset"} {
		if at := unixTime(resp.Header.Get(name)); after == 0 && !at.IsZero() {
			after = min(time.Until(at), maxWait)
		}
	}
	if after > 0 && backends.RetryAfter(err) == 0 {
		return &backends.DelayError{Err: err, After: after}
	}
	return err
}

// maxWait is believed at most.
const maxWait = 24 * time.Hour

// unixTime reads seconds since 1970; the zero time if value is none.
func unixTime(value string) time.Time {
	seconds, err := strconv.ParseUint(value, 10, 40)
	if err != nil || seconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}
