// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// An apiError is a refusal by a route (HTTP 409). Each route has a type of its
// own for it in the SDK, but all are tagged unions, and a tag means the same in
// all of them: what counts are the tags, from the outermost to the innermost.
type apiError struct{ tags []string }

// Error names the tags as Dropbox's documentation does: "path/not_found".
func (e *apiError) Error() string { return httpx.Word(e.sentinel()) + ": " + strings.Join(e.tags, "/") }

// Unwrap returns the sentinel of the innermost tag that has one.
func (e *apiError) Unwrap() error { return e.sentinel() }

func (e *apiError) sentinel() error {
	for _, tag := range slices.Backward(e.tags) {
		if s, ok := sentinels[tag]; ok {
			return s
		}
	}
	return backends.ErrBadAnswer // an answer that we do not know
}

var sentinels = map[string]error{
	"not_found":  fs.ErrNotExist,
	"not_file":   fs.ErrNotExist,
	"not_folder": fs.ErrNotExist,

	"malformed_path":  fs.ErrInvalid,
	"disallowed_name": fs.ErrInvalid,

	"conflict": fs.ErrExist,

	"restricted_content":               fs.ErrPermission,
	"unsupported_content_type":         fs.ErrPermission,
	"unsupported_file":                 fs.ErrPermission,
	"locked":                           fs.ErrPermission,
	"no_write_permission":              fs.ErrPermission,
	"access_denied":                    fs.ErrPermission,
	"access_restricted":                fs.ErrPermission,
	"team_folder":                      fs.ErrPermission,
	"operation_suppressed":             fs.ErrPermission,
	"email_not_verified":               fs.ErrPermission,
	"banned_member":                    fs.ErrPermission,
	"settings_error":                   fs.ErrPermission,
	"insufficient_space":               errFull,
	"team_folder_insufficient_space":   errFull,
	"member_folder_insufficient_space": errFull,
	"upload_traffic_limit_reached":     errFull,

	"too_many_write_operations": backends.ErrRateLimited,
	"too_many_requests":         backends.ErrRateLimited,

	// What was sent was damaged on its way: sending it again can help.
	"content_hash_mismatch": backends.ErrUnavailable,
	"internal_error":        backends.ErrUnavailable,
	"other":                 backends.ErrUnavailable,
}

var errFull = fmt.Errorf("%w: the Dropbox has no room for it", syscall.EDQUOT)

// parseAPIError reads the body of a 409.
func parseAPIError(text []byte) error {
	var answer struct {
		Error json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("%w: HTTP 409 that is not Dropbox's", backends.ErrBadAnswer)
	}
	e := &apiError{}
	for union := answer.Error; len(union) > 0 && len(e.tags) < 8; {
		var fields map[string]json.RawMessage
		var tag string
		if json.Unmarshal(union, &fields) != nil || json.Unmarshal(fields[".tag"], &tag) != nil {
			break
		}
		e.tags = append(e.tags, fmt.Sprintf("%.60s", tag))
		// A union in a field has the field's name; one in a struct that the tag
		// stands for (UploadWriteFailed) is its "reason".
		if union = fields[tag]; union == nil {
			union = fields["reason"]
		}
	}
	if len(e.tags) == 0 {
		return fmt.Errorf("%w: HTTP 409 without an error", backends.ErrBadAnswer)
	}
	return e
}

// has reports whether err is a refusal with one of tags.
func has(err error, tags ...string) bool {
	e, ok := errors.AsType[*apiError](err)
	return ok && slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(e.tags, tag) })
}

// translate turns an error of the SDK into one of ours.
func translate(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	inner := err
	if u, ok := errors.AsType[*url.Error](err); ok {
		inner = u.Err
	}
	_, syntax := errors.AsType[*json.SyntaxError](inner)
	_, kind := errors.AsType[*json.UnmarshalTypeError](inner)
	_, date := errors.AsType[*time.ParseError](inner)
	switch {
	case isOurs(inner):
		return inner
	case syntax || kind || date:
		return fmt.Errorf("%w: not an answer of Dropbox: %v", backends.ErrBadAnswer, inner)
	case errors.Is(inner, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %v", backends.ErrUnavailable, inner)
	}
	return backends.TransportError(inner)
}

// isOurs reports whether the transport made err.
func isOurs(err error) bool {
	if _, ok := errors.AsType[*apiError](err); ok {
		return true
	}
	for _, s := range []error{
		backends.ErrUnauthorized, backends.ErrRateLimited, backends.ErrUnavailable, backends.ErrCorrupt, backends.ErrBadAnswer,
		backends.ErrChanged, errors.ErrUnsupported,
	} {
		if errors.Is(err, s) {
			return true
		}
	}
	_, refusal := errors.AsType[*refusalError](err)
	return refusal
}

// A refusalError is the sentinel of a status, told apart from the same
// sentinel of this machine: a refused connection can be an fs.ErrPermission.
type refusalError struct{ error }

// Unwrap returns what the status means.
func (e *refusalError) Unwrap() error { return e.error }
