// SPDX-License-Identifier: Apache-2.0

// Package httpx is what the backends' HTTP code has in common: statuses become
// sentinels in exactly one function, and answers are read with a limit. It is
// not a REST framework. Start at [Error].
package httpx

import (
	"io"
	"net/http"
)

// MaxMetadata is the size in bytes above which an answer that is not an
// image is refused with backends.ErrCorrupt (oras-go's default).
const MaxMetadata = 4 << 20

// Do sends req with hc. An error of the transport is backends.ErrUnavailable
// with detail (but a context's error stays what it is); a status that is
// neither 2xx nor in ok becomes Error(resp), with the body closed.
func Do(hc *http.Client, req *http.Request, ok ...int) (*http.Response, error) { panic("TODO") }

// Error returns the sentinel for resp.StatusCode with a line of resp.Body as
// detail (quoted: it is the service's word), a *backends.DelayError where a
// Retry-After header says so; nil for 2xx. It closes the body if not nil.
//
//	401 ErrUnauthorized   403 fs.ErrPermission   404 410 fs.ErrNotExist
//	409 412 fs.ErrExist   405 501 errors.ErrUnsupported   416 fs.ErrInvalid
//	429 ErrRateLimited    5xx ErrUnavailable     others ErrCorrupt
func Error(resp *http.Response) error { panic("TODO") }

// JSON decodes body, at most MaxMetadata bytes of it, into v.
// Errors: backends.ErrCorrupt if it is larger, not JSON, or nested too deep.
func JSON(body io.Reader, v any) error { panic("TODO") }
