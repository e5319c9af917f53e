// SPDX-License-Identifier: Apache-2.0

package google

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// An Error is a refusal of one of Google's APIs. It unwraps to the sentinel of its status.
type Error struct {
	Status int
	Reason string // of the first error in it, "rateLimitExceeded"; "" if it is none of Google's
	Err    error  // as httpx.Error makes it of the message
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Reason returns the reason of the Error in err; "" if there is none.
func Reason(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}

// Status returns the HTTP status of the Error in err; 0 if there is none.
func Status(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

// limits are the reasons of a 403 that means too many requests.
// https://cloud.google.com/storage/docs/json_api/v1/status-codes
var limits = map[string]bool{"rateLimitExceeded": true, "userRateLimitExceeded": true, "sharingRateLimitExceeded": true}

// Refusal is httpx.Error for an answer of Google's, whose message it takes out of its JSON;
// nil for 2xx. It closes the body if not nil.
func Refusal(resp *http.Response) error {
	if resp.StatusCode/100 == 2 {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxFile))
	resp.Body.Close()
	e := &Error{Status: resp.StatusCode}
	var v struct {
		Error struct {
			Message string
			Errors  []struct{ Reason string }
		}
	}
	if json.Unmarshal(text, &v) == nil && v.Error.Message != "" {
		text = []byte(strings.ReplaceAll(v.Error.Message, "\n", " "))
		if len(v.Error.Errors) > 0 {
			e.Reason = v.Error.Errors[0].Reason
		}
	}
	status := *resp
	status.Body = io.NopCloser(strings.NewReader(string(text)))
	if e.Err = httpx.Error(&status); resp.StatusCode == http.StatusForbidden && limits[e.Reason] {
		e.Err = backends.Saying(backends.ErrRateLimited, "%v: HTTP 403 %q", backends.ErrRateLimited, e.Reason)
	}
	return e
}
