// SPDX-License-Identifier: Apache-2.0

package webdav

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

const (
	maxResponse = 64 << 10 // bytes of what a server says of one file
	ownSpace    = "https://github.com/sregfs/sregfs/webdav"
	ocSpace     = "http://owncloud.org/ns"
)

// ask names what is asked of each file (RFC 4918, 9.1): the properties of all servers, the
// checksums of Nextcloud and ownCloud, and our own (see upload).
const ask = `<?xml version="1.0" encoding="utf-8"?>
<propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/><getetag/><getlastmodified/>` +
	`<checksums xmlns="` + ocSpace + `"/><upload xmlns="` + ownSpace + `"/></prop></propfind>`

// A response is what a server says of one file or folder.
type response struct {
	Href  string `xml:"DAV: href"`
	Props []struct {
		Status string `xml:"DAV: status"`
		Prop   struct {
			Folder    *struct{} `xml:"DAV: resourcetype>collection"`
			Size      string    `xml:"DAV: getcontentlength"`
			ETag      string    `xml:"DAV: getetag"`
			Modified  string    `xml:"DAV: getlastmodified"`
			Checksums []string  `xml:"http://owncloud.org/ns checksums>checksum"`
			Upload    string    `xml:"https://github.com/sregfs/sregfs/webdav upload"`
		} `xml:"DAV: prop"`
	} `xml:"DAV: propstat"`
}

// properties calls fn with what the server says of an address and, with depth "1", of what
// lies directly in it. It returns how many responses there were.
//
// Errors: those of do; backends.ErrBadAnswer for what is no such answer; those of fn.
func (s *store) properties(ctx context.Context, address, depth string, fn func(response) error) (n int, err error) {
	resp, err := s.do(ctx, question{
		method: "PROPFIND", address: address,
		header: http.Header{"Depth": {depth}, "Content-Type": {"application/xml; charset=utf-8"}, "Accept-Encoding": {"identity"}},
		body:   func() io.Reader { return strings.NewReader(ask) }, size: int64(len(ask)),
	})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMultiStatus {
		return 0, fmt.Errorf("%w: status %d for PROPFIND (is url a WebDAV folder?)", backends.ErrBadAnswer, resp.StatusCode)
	}
	return readResponses(resp.Body, fn)
}

// readResponses reads a multistatus (RFC 4918, 13) as it comes: a folder can be large.
func readResponses(body io.Reader, fn func(response) error) (n int, err error) {
	limit := &io.LimitedReader{R: body}
	d := xml.NewDecoder(limit)
	for inside := false; ; {
		limit.N = maxResponse
		token, err := d.Token()
		if err != nil {
			return n, readError(limited(err, limit))
		}
		switch t := token.(type) {
		case xml.StartElement:
			switch {
			case !inside && t.Name == xml.Name{Space: "DAV:", Local: "multistatus"}:
				inside = true
				continue
			case !inside:
				return n, fmt.Errorf("%w: no WebDAV answer, but <%.40s>", backends.ErrBadAnswer, t.Name.Local)
			case t.Name != xml.Name{Space: "DAV:", Local: "response"}:
				if err := d.Skip(); err != nil {
					return n, readError(limited(err, limit))
				}
				continue
			}
			var r response
			if err := d.DecodeElement(&r, &t); err != nil {
				return n, readError(limited(err, limit))
			}
			n++
			if err := fn(r); err != nil {
				return n, err
			}
		case xml.EndElement: // of the multistatus: the others were read with their beginning
			return n, nil
		}
	}
}

var errLong = fmt.Errorf("%w: more than %d bytes about one file", backends.ErrBadAnswer, maxResponse)

// limited returns the reason of a decoder's error where it is the limit.
func limited(err error, limit *io.LimitedReader) error {
	if limit.N <= 0 {
		return errLong
	}
	return err
}

func readError(err error) error {
	var syntax *xml.SyntaxError
	var unmarshal xml.UnmarshalError
	switch {
	case errors.Is(err, errLong):
		return err
	case errors.As(err, &syntax) && strings.Contains(syntax.Msg, "unexpected EOF"), errors.Is(err, io.EOF):
		return backends.TransportError(io.ErrUnexpectedEOF)
	case errors.As(err, &syntax), errors.As(err, &unmarshal):
		return fmt.Errorf("%w: no WebDAV answer: %v", backends.ErrBadAnswer, err)
	case errors.Is(err, context.Canceled):
		return context.Canceled
	}
	return backends.TransportError(err)
}

// file returns what r says of the file or folder at a path.
//
// Errors: backends.ErrBadAnswer.
func (r response) file(path string) (files.File, error) {
	f := files.File{Path: path, Size: -1}
	for _, p := range r.Props {
		if status := strings.Fields(p.Status); len(status) < 2 || status[1] != "200" {
			continue
		}
		f.Folder = f.Folder || p.Prop.Folder != nil
		if p.Prop.Size != "" {
			size, err := strconv.ParseInt(strings.TrimSpace(p.Prop.Size), 10, 64)
			if err != nil || size < 0 {
				return f, fmt.Errorf("%w: a size of %.40q", backends.ErrBadAnswer, p.Prop.Size)
			}
			f.Size = size
		}
		if t, err := http.ParseTime(p.Prop.Modified); err == nil {
			f.Modified = t
		}
		if v := version(p.Prop.ETag, p.Prop.Modified, f.Size); v != "" {
			f.Version = v
		}
		for _, sums := range p.Prop.Checksums {
			for sum := range strings.FieldsSeq(sums) {
				if hex, ok := strings.CutPrefix(sum, "SHA256:"); ok && backends.CheckDigest("sha256:"+strings.ToLower(hex)) == nil {
					f.Digest = "sha256:" + strings.ToLower(hex)
				}
			}
		}
	}
	for _, p := range r.Props {
		parseUpload(p.Prop.Upload).tell(&f)
	}
	return f, nil
}

// version is what tells one state of a file from another: its ETag, else its time and size. A
// weak ETag counts as the strong one: Apache's is weak for the first second of a file's life,
// and names the same bytes afterwards.
func version(etag, modified string, size int64) string {
	return ranged.VersionOf(http.Header{"Etag": {strong(etag)}, "Last-Modified": {modified}}, size)
}

func strong(etag string) string {
	etag = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(etag), "W/"))
	if etag != "" && !strings.Contains(etag, `"`) {
		return `"` + etag + `"` // some servers leave the quotes out here
	}
	return etag
}

// An upload is our own property, where the server keeps properties: what was pushed. It counts
// for the version it names only, since another program that writes the file does not know it.
type upload struct {
	digest, version string
	modified        time.Time
}

func (u upload) String() string {
	return fmt.Sprintf("%s %d %s", u.digest, u.modified.Unix(), u.version)
}

func parseUpload(s string) (u upload) {
	parts := strings.Fields(s)
	if len(parts) != 3 || backends.CheckDigest(parts[0]) != nil {
		return upload{}
	}
	seconds, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return upload{}
	}
	return upload{digest: parts[0], modified: time.Unix(seconds, 0), version: parts[2]}
}

// tell puts what u knows into f, if it is about that.
func (u upload) tell(f *files.File) {
	if u.digest == "" || u.version != f.Version {
		return
	}
	f.Digest, f.Modified = u.digest, u.modified
}

// hrefPath returns the path of an href of the server's, and whether it can be one of ours:
// an absolute path, or an address of which only the path counts, as the server may know itself
// by another name.
func hrefPath(href string) (string, bool) {
	u, err := url.Parse(strings.TrimSpace(href))
	if err != nil || !strings.HasPrefix(u.Path, "/") || strings.ContainsRune(u.Path, 0) {
		return "", false
	}
	return u.Path, true
}
