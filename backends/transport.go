// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/cenkalti/backoff/v4"
)

// TransportError says in our sentinels what an error of an *http.Client, or of
// reading a body, means. It drops the chain (a refused connection is no
// fs.ErrPermission, whatever its errno) and what is secret in URLs.
//
//   - A context's own end stays context.Canceled or DeadlineExceeded.
//   - ErrUnavailable, ErrCorrupt, ErrBadAnswer and DeadlineExceeded of NewHTTPClient stay,
//     and ErrUnauthorized and ErrNoFile of what it was configured with.
//   - A server that wants another client certificate is ErrUnauthorized.
//   - Silence is context.DeadlineExceeded.
//   - EMFILE, ENFILE and ENOMEM stay: the service was not asked.
//   - Anything else is ErrUnavailable; permanently so where asking again cannot
//     help: a certificate, TLS spoken to something else.
func TransportError(err error) error {
	if err == nil {
		return nil
	}
	text := Redact(err.Error())
	if e, ok := Shortage(err); ok {
		return saying(e, text)
	}
	if wantsCertificate(err) {
		return saying(ErrUnauthorized, text+" (the server wants a certificate of its clients: client_cert, client_key)")
	}
	for _, s := range []error{context.Canceled, ErrNoFile, ErrUnauthorized, ErrUnavailable, ErrCorrupt, ErrBadAnswer, ErrNotAllowed} {
		if errors.Is(err, s) {
			return keepPermanent(err, saying(s, text))
		}
	}
	var op *net.OpError
	dialing := errors.As(err, &op) && op.Op == "dial"
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) && !dialing || errors.As(err, &timeout) && timeout.Timeout() && !dialing {
		return saying(context.DeadlineExceeded, text)
	}
	unavailable := saying(ErrUnavailable, text)
	if hopeless(err) {
		return backoff.Permanent(unavailable)
	}
	return unavailable
}

// isNetwork reports whether err comes from the network unsaid.
func isNetwork(err error) bool {
	if _, ok := errors.AsType[*url.Error](err); ok {
		return true
	}
	_, ok := errors.AsType[*net.OpError](err)
	return ok
}

// wantsCertificate reports whether a server has refused our certificate, or that there
// was none. Package crypto/tls has no other way to tell an alert than its text; these
// are of RFC 8446, 6.2, and sent by who verifies the other side's certificate.
func wantsCertificate(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return false
	}
	switch op.Err.Error() {
	case "tls: certificate required", "tls: bad certificate", "tls: unsupported certificate", "tls: revoked certificate",
		"tls: expired certificate", "tls: unknown certificate", "tls: unknown certificate authority":
		return true
	}
	return false
}

// hopeless reports whether the very next try must end the same way.
func hopeless(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	return errors.Is(err, http.ErrSchemeMismatch)
}

// saying is an error that is sentinel and reads as text, without saying the
// sentinel's words twice.
func saying(sentinel error, text string) error {
	if strings.Contains(text, sentinel.Error()) {
		return Saying(sentinel, "%s", text)
	}
	return fmt.Errorf("%w: %s", sentinel, text)
}

func keepPermanent(from, err error) error {
	if _, ok := errors.AsType[*backoff.PermanentError](from); ok {
		return backoff.Permanent(err)
	}
	return err
}

var (
	urlUser  = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s"'@?#]*@`)
	urlQuery = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'?#]+)\?[^\s"'#]*`)
	// The word after it has to look like a token: "basic authentication" does not.
	credential = regexp.MustCompile(`\b([Bb]earer|[Bb]asic)(:?\s+)[\w.~+/-]*(?:[0-9+/~]|[a-z][A-Z])[\w.~+/-]*=*`)
	jwt        = regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,4}`)
)

// Redact takes out of a text what it may hold in confidence: of URLs user and
// password, and the query, which is the key of a presigned URL; and the
// credentials of an Authorization header, which some servers repeat when they
// refuse them.
func Redact(text string) string {
	// Nearly no text has any of it, and each look at a name that is not there has one.
	if strings.Contains(text, "://") {
		text = urlUser.ReplaceAllString(text, "$1")
		text = urlQuery.ReplaceAllString(text, "$1?…")
	}
	if strings.Contains(text, "earer") || strings.Contains(text, "asic") {
		text = credential.ReplaceAllString(text, "$1$2…")
	}
	if strings.Contains(text, "eyJ") {
		text = jwt.ReplaceAllString(text, "…")
	}
	return text
}

// redacted returns err, with Redact over its text if that changes anything.
func redacted(err error) error {
	if text := err.Error(); Redact(text) != text {
		return &redactedError{err}
	}
	return err
}

type redactedError struct{ err error }

func (e *redactedError) Error() string { return Redact(e.err.Error()) }
func (e *redactedError) Unwrap() error { return e.err }
