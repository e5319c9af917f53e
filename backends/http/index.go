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
	"time"
	"unicode/utf8"

	"golang.org/x/net/html"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

const (
	maxPage   = 32 << 20 // bytes of an index, or of a list of digests
	maxNames  = 250_000  // in one folder
	maxToken  = 1 << 20  // bytes of a style sheet or script within a page
	maxStrays = 1_000    // links that are told of one page
)

// An item is what lies directly in a folder.
type item struct {
	name     string
	folder   bool
	size     int64     // -1 where the index does not tell it to the byte
	modified time.Time // zero where the index does not tell it
}

// A page is what an index tells.
type page struct {
	items  []item
	strays []string // what looks like an image and is not in the folder, or cannot be named
	whole  bool     // the page has an end
	untold error    // why this is of a list of digests, not of an index
}

// readIndex reads the answer to a request for folder.
//
// Errors: backends.ErrBadAnswer for what is no index; those of
// backends.TransportError.
func readIndex(resp *nethttp.Response, folder *url.URL) (page, error) {
	body := &capped{r: resp.Body, left: maxPage}
	if ranged.IsPage(resp.Header) {
		p, err := parseHTML(body, folder, maxNames)
		if err == nil && !p.whole && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 {
			// Its end is the end of the connection, which may have come early.
			err = fmt.Errorf("%w: an index without an end", backends.ErrUnavailable)
		}
		return p, err
	}
	if mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mediaType == "application/json" {
		return parseJSON(body, maxNames)
	}
	return page{}, fmt.Errorf("%w: neither a page nor JSON where an index should be", backends.ErrBadAnswer)
}

// parseHTML reads the links of a page. Sizes and times beside them are for
// people: rounded, in no known time zone.
//
// Errors: backends.ErrBadAnswer for what is no index, or has more links than most;
// those of backends.TransportError.
func parseHTML(r io.Reader, folder *url.URL, most int) (page, error) {
	p, seen, links := page{}, map[string]bool{}, 0
	title, inTitle := "", false
	z := html.NewTokenizer(r)
	z.SetMaxBuf(maxToken)
	for {
		switch z.Next() {
		case html.ErrorToken:
			if err := z.Err(); !errors.Is(err, io.EOF) {
				return page{}, readError(err)
			}
			if len(p.items) == 0 && !isIndexTitle(title, folder) {
				// A login page, say. As an empty folder it would let every name vanish.
				return page{}, fmt.Errorf("%w: a page that is no index", backends.ErrBadAnswer)
			}
			return p, nil
		case html.StartTagToken:
			tag, attrs := z.TagName()
			inTitle = string(tag) == "title" && title == ""
			if string(tag) == "a" && attrs {
				p.link(folder, href(z), seen)
				links++
			}
		case html.EndTagToken:
			tag, _ := z.TagName()
			p.whole = p.whole || string(tag) == "html"
		case html.TextToken:
			if inTitle {
				title, inTitle = string(z.Text()), false
			}
		}
		if links > most {
			return page{}, tooMany(most)
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
func (p *page) link(folder *url.URL, href string, seen map[string]bool) {
	name, isFolder, ok := child(folder, href)
	switch {
	case !ok:
		p.stray(href)
	case !seen[name]:
		seen[name] = true
		p.items = append(p.items, item{name: name, folder: isFolder, size: -1})
	}
}

// stray notes a link that is not followed, if it looks like one to an image.
func (p *page) stray(href string) {
	before, _, _ := strings.Cut(href, "#")
	before, _, _ = strings.Cut(before, "?")
	if _, format := backends.CutExt(before); format != "" && len(p.strays) < maxStrays {
		p.strays = append(p.strays, href)
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
// objects, at most so many. https://nginx.org/en/docs/http/ngx_http_autoindex_module.html
func parseJSON(r io.Reader, most int) (page, error) {
	p, seen, objects := page{}, map[string]bool{}, 0
	dec := json.NewDecoder(r)
	if begin, err := dec.Token(); err != nil || begin != json.Delim('[') {
		return page{}, jsonError(err)
	}
	for dec.More() {
		var v struct {
			Name  json.RawMessage `json:"name"`
			Type  string          `json:"type"`
			Size  *int64          `json:"size"`
			MTime string          `json:"mtime"`
		}
		if err := dec.Decode(&v); err != nil {
			return page{}, jsonError(err)
		}
		it := item{folder: v.Type == "directory", size: -1}
		if v.Size != nil && *v.Size >= 0 {
			it.size = *v.Size
		}
		it.modified, _ = nethttp.ParseTime(v.MTime)
		// nginx writes the bytes of a name as they are. JSON has no way to say what
		// is not UTF-8, and decoding it makes another name.
		ok := utf8.Valid(v.Name) && json.Unmarshal(v.Name, &it.name) == nil && isPlain(it.name)
		switch {
		case !ok:
			p.stray(string(bytes.Trim(v.Name, `"`)))
		case !seen[it.name]:
			seen[it.name] = true
			p.items = append(p.items, it)
		}
		if objects++; objects > most {
			return page{}, tooMany(most)
		}
	}
	if _, err := dec.Token(); err != nil {
		return page{}, jsonError(err)
	}
	return p, nil
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

var errTooLong = fmt.Errorf("%w: more bytes than a list of names can have", backends.ErrBadAnswer)

func tooMany(most int) error {
	return fmt.Errorf("%w: more than %d names", backends.ErrBadAnswer, most)
}

// readError says what an error while reading names means.
func readError(err error) error {
	if errors.Is(err, html.ErrBufferExceeded) {
		return fmt.Errorf("%w: a tag or a text of more than %d bytes", backends.ErrBadAnswer, maxToken)
	}
	return backends.TransportError(err)
}
