// SPDX-License-Identifier: Apache-2.0

package webdav

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
)

const (
	head   = `<?xml version="1.0"?><d:multistatus xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns">`
	folder = `<d:response><d:href>/i/c/</d:href><d:propstat><d:prop><d:resourcetype><d:collection/></d:resourcetype></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>`
)

// about is what a server says of one file.
func about(href, props string) string {
	return `<d:response><d:href>` + href + `</d:href><d:propstat><d:prop>` + props + `</d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat>` +
		`<d:propstat><d:prop><d:getcontentlength>7</d:getcontentlength></d:prop><d:status>HTTP/1.1 404 Not Found</d:status></d:propstat></d:response>`
}

const facts = `<d:resourcetype/><d:getcontentlength>3</d:getcontentlength><d:getetag>"tag"</d:getetag>`

// saying returns the store at a server that answers each request so.
func saying(t *testing.T, status int, text string) *store {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(srv.Close)
	return at(t, srv.URL+"/i").store
}

// What no server says by itself, or what does not make sense, is an error and no listing.
func TestList_hostile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int // 0 for 207
		text   string
		want   error
	}{
		"page":           {200, "<html><p>sign in</p></html>", backends.ErrBadAnswer},
		"page as 207":    {0, "<html><p>sign in</p></html>", backends.ErrBadAnswer},
		"no xml":         {0, "hello", backends.ErrUnavailable}, // it ends before there is anything
		"not closed":     {0, head + folder, backends.ErrUnavailable},
		"cut":            {0, head + folder + about("/i/c/x.sif", facts)[:50], backends.ErrUnavailable},
		"crossed tags":   {0, head + folder + "<d:a><d:b></d:a>", backends.ErrBadAnswer},
		"without itself": {0, head + about("/i/c/x.sif", facts) + `</d:multistatus>`, backends.ErrBadAnswer},
		"no folder":      {0, head + about("/i/c", facts) + `</d:multistatus>`, fs.ErrNotExist},
		"elsewhere":      {0, head + folder + about("/j/x.sif", facts) + `</d:multistatus>`, backends.ErrBadAnswer},
		"deeper":         {0, head + folder + about("/i/c/d/x.sif", facts) + `</d:multistatus>`, backends.ErrBadAnswer},
		"above":          {0, head + folder + about("/i/c/..", facts) + `</d:multistatus>`, backends.ErrBadAnswer},
		"escaped slash":  {0, head + folder + about("/i/c/a%2Fx.sif", facts) + `</d:multistatus>`, backends.ErrBadAnswer},
		"no address":     {0, head + folder + about("%zz", facts) + `</d:multistatus>`, backends.ErrBadAnswer},
		"negative size":  {0, head + folder + about("/i/c/x.sif", `<d:getcontentlength>-1</d:getcontentlength>`) + `</d:multistatus>`, backends.ErrBadAnswer},
		"no number":      {0, head + folder + about("/i/c/x.sif", `<d:getcontentlength>many</d:getcontentlength>`) + `</d:multistatus>`, backends.ErrBadAnswer},
		"much":           {0, head + folder + about("/i/c/x.sif", strings.Repeat("<d:x/>", maxResponse)) + `</d:multistatus>`, backends.ErrBadAnswer},
		"much otherwise": {0, head + folder + "<d:x>" + strings.Repeat("y", 2*maxResponse) + `</d:x></d:multistatus>`, backends.ErrBadAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := saying(t, max(test.status, 200), test.text)
			if test.status == 0 {
				s = saying(t, http.StatusMultiStatus, test.text)
			}
			var err error
			for _, e := range s.List(t.Context(), "c", "") {
				err = e
			}
			if !errors.Is(err, test.want) {
				t.Errorf("List: %v, want %v", err, test.want)
			}
		})
	}
}

// What different servers say of a file.
func TestList_facts(t *testing.T) {
	t.Parallel()
	const noon = `<d:getlastmodified>Tue, 14 Nov 2023 22:13:20 GMT</d:getlastmodified>`
	sum := strings.Repeat("ab", 32)
	at := time.Unix(1_700_000_000, 0)
	for name, test := range map[string]struct {
		href, props string
		want        files.File
	}{
		"plain":            {"/i/c/x.sif", facts, files.File{Path: "c/x.sif", Size: 3, Version: `"tag"`}},
		"whole address":    {"http://other.example/i/c/x.sif", facts, files.File{Path: "c/x.sif", Size: 3, Version: `"tag"`}},
		"weak":             {"/i/c/x.sif", `<d:getetag>W/"tag"</d:getetag>`, files.File{Path: "c/x.sif", Size: -1, Version: `"tag"`}},
		"without quotes":   {"/i/c/x.sif", `<d:getetag>tag</d:getetag>`, files.File{Path: "c/x.sif", Size: -1, Version: `"tag"`}},
		"without an etag":  {"/i/c/x.sif", `<d:getcontentlength>3</d:getcontentlength>` + noon, files.File{Path: "c/x.sif", Size: 3, Version: "20231114T221320Z-3", Modified: at}},
		"escaped":          {"/i/c/a%3A1%252F.sif", facts, files.File{Path: "c/a:1%2F.sif", Size: 3, Version: `"tag"`}},
		"checksums":        {"/i/c/x.sif", facts + `<oc:checksums><oc:checksum>SHA1:00 SHA256:` + strings.ToUpper(sum) + ` ADLER32:00</oc:checksum></oc:checksums>`, files.File{Path: "c/x.sif", Size: 3, Version: `"tag"`, Digest: "sha256:" + sum}},
		"bad checksum":     {"/i/c/x.sif", facts + `<oc:checksums><oc:checksum>SHA256:xyz</oc:checksum></oc:checksums>`, files.File{Path: "c/x.sif", Size: 3, Version: `"tag"`}},
		"ours":             {"/i/c/x.sif", facts + own(`sha256:`+sum+` 1700000000 "tag"`), files.File{Path: "c/x.sif", Size: 3, Version: `"tag"`, Digest: "sha256:" + sum, Modified: at}},
		"ours, of another": {"/i/c/x.sif", facts + own(`sha256:`+sum+` 1700000000 "old"`), files.File{Path: "c/x.sif", Size: 3, Version: `"tag"`}},
		"ours, damaged":    {"/i/c/x.sif", facts + own(`sha256:`+sum), files.File{Path: "c/x.sif", Size: 3, Version: `"tag"`}},
		"a folder":         {"/i/c/sub/", `<d:resourcetype><d:collection/></d:resourcetype>`, files.File{Path: "c/sub", Folder: true, Size: -1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := saying(t, http.StatusMultiStatus, head+folder+about(test.href, test.props)+`</d:multistatus>`)
			var got []files.File
			for f, err := range s.List(t.Context(), "c", "") {
				if err != nil {
					t.Fatal(err)
				}
				f.Modified = f.Modified.UTC()
				got = append(got, f)
			}
			test.want.Modified = test.want.Modified.UTC()
			if diff := cmp.Diff([]files.File{test.want}, got); diff != "" {
				t.Errorf("List (-want +got):\n%s", diff)
			}
		})
	}
}

func own(text string) string { return `<upload xmlns="` + ownSpace + `">` + text + `</upload>` }

// Whatever a server says, reading it ends, and what it tells of a file makes sense.
func FuzzResponses(f *testing.F) {
	f.Add(head + folder + about("/i/c/x.sif", facts) + `</d:multistatus>`)
	f.Add(head + "<d:response>")
	f.Add("<a/>")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := readResponses(strings.NewReader(text), func(r response) error {
			file, err := r.file("x")
			if err == nil && file.Size < -1 {
				return fmt.Errorf("a size of %d", file.Size)
			}
			return nil
		})
		if err == nil && n > len(text) || err != nil && strings.Contains(err.Error(), "a size of -") {
			t.Errorf("%d, %v", n, err)
		}
	})
}
