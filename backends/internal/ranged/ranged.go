// SPDX-License-Identifier: Apache-2.0

// Package ranged reads a part of what lies at a URL, whichever part of it the
// service sends: the one that was asked for, a shorter one, or the whole. It
// believes no header that it can check. It sends nothing itself.
//
// Start at [Span]: Ask puts it on a request, Body takes it out of the answer.
package ranged

import (
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// MaxSkip is how many bytes of an answer are thrown away to get to the ones that
// were asked for, from a service that ignores ranges. Who wants more should read
// the whole in order, once.
const MaxSkip = 1<<20 - 1

// A Span is N bytes from Off; a negative N means to the end.
type Span struct{ Off, N int64 }

// Ask asks in req for the span, and for the bytes as they are.
func (s Span) Ask(req *http.Request) {
	req.Header.Set("Range", s.header())
	req.Header.Set("Accept-Encoding", "identity")
}

func (s Span) header() string {
	if s.N < 0 {
		return fmt.Sprintf("bytes=%d-", s.Off)
	}
	return fmt.Sprintf("bytes=%d-%d", s.Off, s.last())
}

// last is the offset of the last byte, the largest number there is if N is
// negative or leads beyond that.
func (s Span) last() int64 {
	if s.N < 0 || s.N > math.MaxInt64-s.Off {
		return math.MaxInt64
	}
	return s.Off + s.N - 1
}

// Body returns the span of an image of the given size, or of unknown size if
// that is negative, out of resp, whose status is 2xx or 416 (which means that
// the span begins past the end: an empty body). The caller closes the result;
// Body closes resp.Body if it fails.
//
// Errors: backends.ErrBadAnswer for another size, another range, a page of HTML
// (HTML is never an image), bytes that a proxy compressed; errors.ErrUnsupported
// if only the whole came and Off is beyond MaxSkip; those of
// backends.TransportError.
func (s Span) Body(resp *http.Response, size int64) (body io.ReadCloser, err error) {
	defer func() {
		if err != nil {
			resp.Body.Close()
		}
	}()
	if err := Unfit(resp); err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable:
		resp.Body.Close()
		if size >= 0 && s.Off < size {
			return nil, fmt.Errorf("%w: no byte at %d of %d", backends.ErrBadAnswer, s.Off, size)
		}
		return http.NoBody, nil
	case http.StatusPartialContent:
		if err := s.check(resp.Header.Get("Content-Range"), size); err != nil {
			return nil, err
		}
		return s.limit(resp.Body), nil
	case http.StatusOK:
	default:
		return nil, fmt.Errorf("%w: status %d for a part of an image", backends.ErrBadAnswer, resp.StatusCode)
	}
	if size >= 0 && resp.ContentLength >= 0 && resp.ContentLength != size {
		return nil, fmt.Errorf("%w: %d bytes, expected %d", backends.ErrBadAnswer, resp.ContentLength, size)
	}
	if s.Off > MaxSkip {
		return nil, fmt.Errorf("%w: reading from offset %d (the service gives only whole images)", errors.ErrUnsupported, s.Off)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, s.Off); err != nil && !errors.Is(err, io.EOF) {
		return nil, backends.TransportError(err)
	}
	return s.limit(resp.Body), nil
}

// Unfit reports what cannot be the bytes of an image; Body does by itself.
//
// Errors: backends.ErrBadAnswer.
func Unfit(resp *http.Response) error {
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return fmt.Errorf("%w: a proxy has compressed the image (%q)", backends.ErrBadAnswer, enc)
	}
	if IsPage(resp.Header) && resp.StatusCode/100 == 2 {
		return fmt.Errorf("%w: a page for people in place of an image (is there a network to sign in to?)", backends.ErrBadAnswer)
	}
	return nil
}

// Stored drops from an answer with a compressed file what says only that it is one:
// web servers have an encoding for names in ".gz".
func Stored(resp *http.Response) {
	if enc := resp.Header.Get("Content-Encoding"); enc == "gzip" || enc == "x-gzip" {
		resp.Header.Del("Content-Encoding")
	}
}

// IsPage reports whether an answer is a page for people.
func IsPage(h http.Header) bool {
	mediaType, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return mediaType == "text/html" || mediaType == "application/xhtml+xml"
}

var contentRange = regexp.MustCompile(`^bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)$`)

// Size returns the size of the whole that resp tells: the Content-Length of a
// whole, or the end of its Content-Range; -1 if it does not.
//
// Errors: backends.ErrBadAnswer for a Content-Range that is none.
func Size(resp *http.Response) (int64, error) {
	switch resp.StatusCode {
	case http.StatusOK:
		return resp.ContentLength, nil
	case http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		_, _, size, err := parse(resp.Header.Get("Content-Range"))
		return size, err
	}
	return -1, nil
}

// parse reads a Content-Range header; what it leaves open is -1.
func parse(header string) (first, last, size int64, err error) {
	m := contentRange.FindStringSubmatch(strings.TrimSpace(header))
	if m == nil {
		return -1, -1, -1, fmt.Errorf("%w: Content-Range %.100q", backends.ErrBadAnswer, header)
	}
	number := func(text string) int64 {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	return number(m[1]), number(m[2]), number(m[3]), nil
}

// check reports whether a Content-Range header begins at s and ends there, or
// before.
func (s Span) check(header string, size int64) error {
	first, last, whole, err := parse(header)
	if err != nil {
		return err
	}
	if first != s.Off || last < first || whole >= 0 && last >= whole ||
		last > s.last() || size >= 0 && whole >= 0 && whole != size {
		return fmt.Errorf("%w: Content-Range %.100q for %q of %d", backends.ErrBadAnswer, header, s.header(), size)
	}
	return nil
}

// limit ends body after N bytes.
func (s Span) limit(body io.ReadCloser) io.ReadCloser {
	if s.N < 0 {
		return body
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(body, s.N), body}
}
