// SPDX-License-Identifier: Apache-2.0

package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	nethttp "net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/html"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

const maxToken = 1 << 20 // bytes of a style sheet or script within a page

// read takes in the answer to a request for folder. After errLimit what came until
// then is there.
//
// Errors: errLimit; backends.ErrBadAnswer for what is no index; those of
// backends.TransportError.
func (x *index) read(resp *nethttp.Response, folder *url.URL) error {
	body := &capped{r: resp.Body, left: maxPage}
	if ranged.IsPage(resp.Header) {
		err := x.parseHTML(body, folder)
		if err == nil && !x.whole && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 {
			// Its end is the end of the connection, which may have come early.
			err = fmt.Errorf("%w: an index without an end", backends.ErrUnavailable)
		}
		return err
	}
	if mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mediaType == "application/json" {
		return x.parseJSON(body)
	}
	return fmt.Errorf("%w: neither a page nor JSON where an index should be", backends.ErrBadAnswer)
}

// parseHTML reads the links of a page. Sizes and times beside them are for
// people: rounded, in no known time zone.
//
// Errors: those of read.
func (x *index) parseHTML(r io.Reader, folder *url.URL) error {
	title, inTitle := "", false
	z := html.NewTokenizer(r)
	z.SetMaxBuf(maxToken)
	for {
		switch z.Next() {
		case html.ErrorToken:
			if err := z.Err(); !errors.Is(err, io.EOF) {
				return readError(err)
			}
			if x.inside == 0 && !isIndexTitle(title, folder) {
				// A login page, say. As an empty folder it would let every name vanish.
				return fmt.Errorf("%w: a page that is no index", backends.ErrBadAnswer)
			}
			return nil
		case html.StartTagToken:
			tag, attrs := z.TagName()
			inTitle = string(tag) == "title" && title == ""
			if string(tag) != "a" || !attrs {
				continue
			}
			if err := x.count(); err != nil {
				return err
			}
			x.link(folder, href(z))
		case html.EndTagToken:
			tag, _ := z.TagName()
			x.whole = x.whole || string(tag) == "html"
		case html.TextToken:
			if inTitle {
				title, inTitle = string(z.Text()), false
			}
		}
	}
}

func href(z *html.Tokenizer) string {
	for {
		key, value, more := z.TagAttr()
		if string(key) == "href" {
			return string(value)
		}
		if !more {
			return ""
		}
	}
}

// link adds what a link leads to.
func (x *index) link(folder *url.URL, href string) {
	if name, isFolder, ok := child(folder, href); ok {
		x.add(item{name: name, folder: isFolder, size: -1})
	} else {
		x.stray(href)
	}
}

// isIndexTitle reports whether a page of that title is an index, though it has no
// link: that of an empty folder.
func isIndexTitle(title string, folder *url.URL) bool {
	title = strings.ToLower(strings.TrimSpace(title))
	for _, begin := range []string{"index of", "directory listing"} { // nginx, Apache, lighttpd; Python
		if strings.HasPrefix(title, begin) {
			return true
		}
	}
	// rclone and Caddy: the path, or its end.
	return title != "" && strings.HasSuffix(strings.ToLower(folder.Path), strings.TrimSuffix(title, "/")+"/")
}

// parseJSON reads what nginx writes with "autoindex_format json": an array of
// objects. https://nginx.org/en/docs/http/ngx_http_autoindex_module.html
//
// Errors: those of read.
func (x *index) parseJSON(r io.Reader) error {
	dec := json.NewDecoder(r)
	if begin, err := dec.Token(); err != nil || begin != json.Delim('[') {
		return jsonError(err)
	}
	for dec.More() {
		var v struct {
			Name  json.RawMessage `json:"name"`
			Type  string          `json:"type"`
			Size  *int64          `json:"size"`
			MTime string          `json:"mtime"`
		}
		if err := dec.Decode(&v); err != nil {
			return jsonError(err)
		}
		if err := x.count(); err != nil {
			return err
		}
		it := item{folder: v.Type == "directory", size: -1}
		if v.Size != nil && *v.Size >= 0 {
			it.size = *v.Size
		}
		it.modified, _ = nethttp.ParseTime(v.MTime)
		// nginx writes the bytes of a name as they are. JSON has no way to say what
		// is not UTF-8, and decoding it makes another name.
		if utf8.Valid(v.Name) && json.Unmarshal(v.Name, &it.name) == nil && isPlain(it.name) {
			x.add(it)
		} else {
			x.stray(string(bytes.Trim(v.Name, `"`)))
		}
	}
	if _, err := dec.Token(); err != nil {
		return jsonError(err)
	}
	return nil
}

// jsonError says what an error of a decoder means; nil is JSON of another shape.
func jsonError(err error) error {
	_, syntax := errors.AsType[*json.SyntaxError](err)
	_, shape := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case err == nil:
		return fmt.Errorf("%w: JSON that is no index", backends.ErrBadAnswer)
	case syntax, shape:
		return fmt.Errorf("%w: not the JSON of an index: %v", backends.ErrBadAnswer, err)
	}
	return readError(err)
}

// A capped reader fails after so many bytes.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooLong
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// readError says what an error while reading names means.
func readError(err error) error {
	switch {
	case errors.Is(err, errLimit):
		return err
	case errors.Is(err, html.ErrBufferExceeded):
		return fmt.Errorf("%w: a tag or a text of more than %d bytes", backends.ErrBadAnswer, maxToken)
	}
	return backends.TransportError(err)
}
