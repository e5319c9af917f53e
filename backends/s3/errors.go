// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"syscall"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// A refusal is an error that the service told, with the code that its documentation lists.
type refusal struct {
	Code string // "" if only the status tells
	err  error
}

// Error implements error.
func (r *refusal) Error() string { return r.err.Error() }

// Unwrap returns the sentinel, with its detail.
func (r *refusal) Unwrap() error { return r.err }

// code returns the code of a refusal; "" if there is none.
func code(err error) string {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.Code
	}
	return ""
}

const noSuchUpload = "NoSuchUpload"

// A meaning is what a code says, and what to do about it.
type meaning struct {
	sentinel error
	remedy   string // of %[1]s the bucket, %[2]s the host and %[3]s the remote; "" if the code says enough
}

const (
	loginAgain = "run \"sreg login %[3]s\", or renew what gave the login"
	otherPlace = "set url, or region, of the remote %[3]s to where the bucket %[1]s is"
)

// meanings are those that a status does not tell.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
var meanings = map[string]meaning{
	"InvalidAccessKeyId":    {backends.ErrUnauthorized, "%[2]s does not know the access key: " + loginAgain},
	"SignatureDoesNotMatch": {backends.ErrUnauthorized, "the secret key does not belong to the access key: " + loginAgain},
	"XAdminUserNotFound":    {backends.ErrUnauthorized, "%[2]s does not know the access key: " + loginAgain}, // versitygw
	"ExpiredToken":          {backends.ErrUnauthorized, "the login has expired: " + loginAgain},
	"TokenRefreshRequired":  {backends.ErrUnauthorized, "the login has expired: " + loginAgain},
	"InvalidToken":          {backends.ErrUnauthorized, "%[2]s does not take the session token: " + loginAgain},
	"InvalidTokenId":        {backends.ErrUnauthorized, "%[2]s does not take the session token: " + loginAgain},
	"RequestTimeTooSkewed":  {fs.ErrPermission, "the clock of this machine and that of %[2]s differ by more than 15 minutes: set it"},
	"RequestExpired":        {fs.ErrPermission, "the clock of this machine and that of %[2]s differ by more than 15 minutes: set it"},
	"AccountProblem":        {fs.ErrPermission, ""},
	"AllAccessDisabled":     {fs.ErrPermission, ""},
	"InvalidObjectState":    {fs.ErrPermission, "it is archived: have it restored first"},
	"InvalidBucketState":    {fs.ErrPermission, ""},

	"NoSuchBucket":      {fs.ErrInvalid, "there is no bucket %[1]s at %[2]s: create it, or correct bucket of the remote %[3]s"},
	"NoSuchKey":         {fs.ErrNotExist, ""},
	"NoSuchVersion":     {fs.ErrNotExist, ""},
	"InvalidBucketName": {fs.ErrInvalid, "correct bucket of the remote %[3]s"},
	"KeyTooLongError":   {fs.ErrInvalid, ""},

	"PermanentRedirect":                  {fs.ErrInvalid, otherPlace},
	"TemporaryRedirect":                  {backends.ErrUnavailable, otherPlace},
	"Redirect":                           {backends.ErrUnavailable, otherPlace},
	"AuthorizationHeaderMalformed":       {fs.ErrInvalid, otherPlace},
	"AuthorizationQueryParametersError":  {fs.ErrInvalid, otherPlace},
	"IllegalLocationConstraintException": {fs.ErrInvalid, otherPlace},

	// What was sent was damaged on its way, or another request won: sending it again can help.
	"BadDigest":                  {backends.ErrUnavailable, ""},
	"XAmzContentSHA256Mismatch":  {backends.ErrUnavailable, ""},
	"RequestTimeout":             {backends.ErrUnavailable, ""},
	"ConditionalRequestConflict": {backends.ErrUnavailable, ""},
	"OperationAborted":           {backends.ErrUnavailable, ""},
	noSuchUpload:                 {backends.ErrUnavailable, "the upload is gone, and begins anew"},
	"SlowDown":                   {backends.ErrRateLimited, ""},
	"RequestLimitExceeded":       {backends.ErrRateLimited, ""},

	"EntityTooLarge":                 {syscall.EFBIG, ""},
	"QuotaExceeded":                  {syscall.EDQUOT, ""},
	"XMinioStorageFull":              {syscall.EDQUOT, ""},
	"XMinioAdminBucketQuotaExceeded": {syscall.EDQUOT, ""},
	"NotImplemented":                 {errors.ErrUnsupported, ""},
	"MethodNotAllowed":               {errors.ErrUnsupported, ""},
}

// An errorBody is what a refusal tells.
type errorBody struct {
	XMLName  xml.Name `xml:"Error"`
	Code     string
	Message  string
	Region   string
	Endpoint string
}

const maxRefusal = 64 << 10 // bytes that are read of one

// refusal returns what an answer says that is no success, and closes its body. Without a login
// one is what is missing.
func (b *bucket) refusal(resp *http.Response, anonymous bool) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	resp.Body.Close()
	var told errorBody
	if xml.Unmarshal(text, &told) == nil && told.Code != "" {
		text = []byte(told.Code + ": " + told.Message)
	}
	resp.Body = io.NopCloser(bytes.NewReader(text))
	plain := httpx.Error(resp)
	m, known := meanings[told.Code]
	switch {
	case known:
	case anonymous && resp.StatusCode == http.StatusForbidden:
		m = meaning{backends.ErrUnauthorized, "there is no login, and not everybody may: run \"sreg login %[3]s\""}
	case resp.StatusCode/100 == 3:
		m = meanings["PermanentRedirect"]
	default:
		return &refusal{told.Code, plain}
	}
	detail := cmp.Or(told.Code, fmt.Sprintf("HTTP %d", resp.StatusCode))
	if m.remedy != "" {
		detail = fmt.Sprintf(m.remedy+" (%[4]s)", b.name, b.home.Host, b.remote, detail)
	}
	if m.remedy == otherPlace {
		if region := cmp.Or(told.Region, resp.Header.Get("X-Amz-Bucket-Region")); region != "" {
			detail += fmt.Sprintf("; its region is %.40q", region)
		}
		if told.Endpoint != "" {
			detail += fmt.Sprintf("; its endpoint is %.200q", told.Endpoint)
		}
	}
	err := backends.Saying(m.sentinel, "%s: %s", httpx.Word(m.sentinel), detail)
	if after := backends.RetryAfter(plain); after > 0 {
		err = &backends.DelayError{Err: err, After: after}
	}
	return &refusal{told.Code, err}
}
