// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// lies are sizes that no image has: what any of them does to this program, it must
// not do by way of an allocation or an overflow.
var lies = []string{
	"1152921504606846976", "9223372036854775807", "9223372036854513663", "1000000000000000", // more than any disk, and just below the end of all numbers
	"9223372036854775808", "18446744073709551615", "100000000000000000000000000", // beyond int64
	"-2", "-9223372036854775808", "1e300", "17592186044417",
}

var sizeTests = []subtest{
	{name: "Sizes/impossible", http: true, run: func(t *testing.T, s *suite) {
		const size = 61_987
		liar, honest := sized("big/image:1", size), sized("big/other:1", size+1)
		r := s.open(t, liar, honest)
		img := stat(t.Context(), t, r, liar.Ref)
		for _, lie := range lies {
			r.wire.set(sayInstead(strconv.Itoa(size), lie))
			if got, err := r.client.Stat(t.Context(), liar.Ref); err == nil && !possible(got.Size) {
				t.Errorf("Stat: %s became a size of %d", lie, got.Size)
			} else if panicked(err) {
				t.Errorf("Stat of an image of %s bytes: %v", lie, err)
			}
			got, err := read(t.Context(), r.client, img, 0, -1)
			if panicked(err) || err == nil && !bytes.Equal(got, liar.Content) {
				t.Errorf("read of an image that is said to have %s bytes: %d bytes, %v", lie, len(got), err)
			}
			if s.Caps.Has(backends.CanList) {
				listLied(t, r, lie, honest.Ref)
			}
		}
	}},
	{name: "Sizes/huge-ranges", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		want := r.seed.Images[0]
		img := stat(t.Context(), t, r, want.Ref)
		for _, at := range []struct{ off, n int64 }{{0, math.MaxInt64}, {10, math.MaxInt64}, {math.MaxInt64 - 5, 10}, {math.MaxInt64, -1}} {
			got, err := read(t.Context(), r, img, at.off, at.n)
			if errors.Is(err, errors.ErrUnsupported) && at.off > 0 {
				continue // a service of whole images
			}
			if err != nil {
				t.Errorf("Open(%d, %d): %v", at.off, at.n, err)
			}
			sameBytes(t, "huge range", got, want.Content[min(at.off, int64(len(want.Content))):])
		}
	}},
}

// listLied looks at a listing in which one image has an impossible size: the
// others stay, unless the service's numbers cannot be read at all.
func listLied(t *testing.T, r *remote, lie string, other backends.Ref) {
	t.Helper()
	entries, err := backends.Collect(r.client.List(t.Context(), other.Collection))
	found := false
	for _, e := range entries {
		found = found || e.Image.Ref == other
		if e.Collection == "" && !possible(e.Image.Size) {
			t.Errorf("List: %s became a size of %d", lie, e.Image.Size)
		}
	}
	_, unreadable := strconv.ParseUint(lie, 10, 63) // some services know no sign
	if panicked(err) || err == nil && !found || err != nil && unreadable == nil {
		t.Errorf("List, where an image has %s bytes: %v, the other is there: %v", lie, err, found)
	}
}

func possible(size int64) bool { return backends.CheckSize(size) == nil }

func panicked(err error) bool {
	_, ok := errors.AsType[*backends.PanicError](err)
	return ok
}

// sayInstead puts one number in the place of another, in headers and in every
// answer that is not an image's bytes.
func sayInstead(number, lie string) fault {
	word := regexp.MustCompile(`\b` + number + `\b`)
	return func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		for name, values := range resp.Header {
			for i := range values {
				values[i] = word.ReplaceAllString(values[i], lie)
			}
			if n, err := strconv.ParseInt(values[0], 10, 64); name == "Content-Length" && err == nil && n >= 0 {
				resp.ContentLength = n
			}
		}
		if req.Method == http.MethodHead || strings.HasPrefix(resp.Header.Get("Content-Type"), "application/octet-stream") {
			return resp, nil
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if !bytes.Contains(text, []byte("SIF_MAGIC")) {
			text = word.ReplaceAll(text, []byte(lie))
			if resp.ContentLength >= 0 {
				resp.ContentLength = int64(len(text))
				resp.Header.Set("Content-Length", strconv.Itoa(len(text)))
			}
		}
		resp.Body = io.NopCloser(bytes.NewReader(text))
		return resp, nil
	}
}
