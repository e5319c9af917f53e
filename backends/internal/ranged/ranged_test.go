// SPDX-License-Identifier: Apache-2.0

package ranged_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

const whole = "0123456789"

func answer(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body))}
}

func TestBody(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		span ranged.Span
		resp *http.Response
		size int64
		want string
		err  error
	}{
		"part":            {ranged.Span{Off: 2, N: 3}, answer(206, "234", "Content-Range", "bytes 2-4/10"), 10, "234", nil},
		"shorter":         {ranged.Span{Off: 2, N: 5}, answer(206, "234", "Content-Range", "bytes 2-4/10"), 10, "234", nil},
		"longer body":     {ranged.Span{Off: 2, N: 3}, answer(206, "23456", "Content-Range", "bytes 2-4/10"), 10, "234", nil},
		"unknown size":    {ranged.Span{Off: 2, N: 3}, answer(206, "234", "Content-Range", "bytes 2-4/*"), -1, "234", nil},
		"to the end":      {ranged.Span{Off: 7, N: -1}, answer(206, "789", "Content-Range", "bytes 7-9/10"), 10, "789", nil},
		"whole":           {ranged.Span{Off: 2, N: 3}, answer(200, whole), 10, "234", nil},
		"whole, past it":  {ranged.Span{Off: 20, N: 3}, answer(200, whole), -1, "", nil},
		"past the end":    {ranged.Span{Off: 20, N: 3}, answer(416, "no"), 10, "", nil},
		"elsewhere":       {ranged.Span{Off: 2, N: 3}, answer(206, "345", "Content-Range", "bytes 3-5/10"), 10, "", backends.ErrBadAnswer},
		"backwards":       {ranged.Span{Off: 2, N: 3}, answer(206, "", "Content-Range", "bytes 2-1/10"), 10, "", backends.ErrBadAnswer},
		"too much":        {ranged.Span{Off: 2, N: 3}, answer(206, "23456", "Content-Range", "bytes 2-6/10"), 10, "", backends.ErrBadAnswer},
		"another size":    {ranged.Span{Off: 2, N: 3}, answer(206, "234", "Content-Range", "bytes 2-4/11"), 10, "", backends.ErrBadAnswer},
		"another whole":   {ranged.Span{Off: 2, N: 3}, answer(200, whole), 11, "", backends.ErrBadAnswer},
		"no range at all": {ranged.Span{Off: 2, N: 3}, answer(206, "234"), 10, "", backends.ErrBadAnswer},
		"not at its end":  {ranged.Span{Off: 2, N: 3}, answer(416, "no"), 11, "", backends.ErrBadAnswer},
		"page":            {ranged.Span{Off: 0, N: 3}, answer(200, whole, "Content-Type", "text/html; charset=utf-8"), 10, "", backends.ErrBadAnswer},
		"compressed":      {ranged.Span{Off: 0, N: 3}, answer(200, whole, "Content-Encoding", "gzip"), 10, "", backends.ErrBadAnswer},
		"too far":         {ranged.Span{Off: ranged.MaxSkip + 1, N: 3}, answer(200, whole), -1, "", errors.ErrUnsupported},
		"another status":  {ranged.Span{Off: 0, N: 3}, answer(204, ""), 10, "", backends.ErrBadAnswer},
	} {
		body, err := c.span.Body(c.resp, c.size)
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		if err != nil {
			continue
		}
		if got, err := io.ReadAll(body); err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		resp *http.Response
		want int64
		err  error
	}{
		{answer(200, whole), 10, nil},
		{answer(206, "0", "Content-Range", "bytes 0-0/10"), 10, nil},
		{answer(206, "0", "Content-Range", "bytes 0-0/*"), -1, nil},
		{answer(416, "", "Content-Range", "bytes */0"), 0, nil},
		{answer(206, "0", "Content-Range", "bytes 0-0/99999999999999999999"), -1, backends.ErrBadAnswer},
		{answer(206, "0"), -1, backends.ErrBadAnswer},
		{answer(204, ""), -1, nil},
	} {
		if got, err := ranged.Size(c.resp); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("Size of %d %v = %d, %v, want %d, %v", c.resp.StatusCode, c.resp.Header, got, err, c.want, c.err)
		}
	}
}

func FuzzBody(f *testing.F) {
	f.Add("bytes 0-9/100", int64(0), int64(10), int64(100))
	f.Add("bytes 5-9/*", int64(5), int64(10), int64(100))
	f.Add("bytes 9-5/10", int64(9), int64(1), int64(-1))
	f.Add("bytes 7-999999999999999999/*", int64(7), int64(1<<63-1), int64(-1))
	f.Add("bytes 0-1/2", int64(1<<63-1), int64(1<<63-1), int64(1<<63-1))
	f.Fuzz(func(t *testing.T, header string, off, n, size int64) {
		if off < 0 || n <= 0 || size >= 0 && (off > size || n > size-off) {
			t.Skip()
		}
		resp := &http.Response{StatusCode: http.StatusPartialContent, Header: http.Header{"Content-Range": {header}}, Body: endless{}}
		body, err := ranged.Span{Off: off, N: n}.Body(resp, size)
		if err != nil {
			if !errors.Is(err, backends.ErrBadAnswer) {
				t.Errorf("%q: %v", header, err)
			}
			return
		}
		if got, _ := io.Copy(io.Discard, io.LimitReader(body, 1<<20)); got > n {
			t.Errorf("%d bytes with %q gave %d", n, header, got)
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
func (endless) Close() error               { return nil }
