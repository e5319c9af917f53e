// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"encoding/xml"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// An unfinished page is one of ListMultipartUploads.
type unfinished struct {
	XMLName     xml.Name `xml:"ListMultipartUploadsResult"`
	Encoding    string   `xml:"EncodingType"`
	IsTruncated bool
	NextKey     string `xml:"NextKeyMarker"`
	NextID      string `xml:"NextUploadIdMarker"`
	Uploads     []struct {
		Key       string
		UploadID  string `xml:"UploadId"`
		Initiated string
	} `xml:"Upload"`
}

// Leftovers implements backends.LeftoverLister, for what is below the prefix.
func (c *client) Leftovers(ctx context.Context) iter.Seq2[backends.Leftover, error] {
	return func(yield func(backends.Leftover, error) bool) {
		b := c.bucket
		q := url.Values{"uploads": {""}, "encoding-type": {"url"}}
		if b.prefix != "" {
			q.Set("prefix", b.prefix)
		}
		for range maxPages {
			var page unfinished
			if err := b.ask(ctx, request{method: http.MethodGet, query: q}, &page); err != nil {
				yield(backends.Leftover{}, err)
				return
			}
			for _, u := range page.Uploads {
				path, err := decode(page.Encoding, u.Key)
				left := backends.Leftover{ID: u.UploadID, Path: path}
				left.Started, _ = time.Parse(time.RFC3339, u.Initiated)
				if !yield(left, err) || err != nil {
					return
				}
			}
			if !page.IsTruncated {
				return
			}
			next, err := decode(page.Encoding, page.NextKey)
			if err != nil || next == q.Get("key-marker") && page.NextID == q.Get("upload-id-marker") {
				break
			}
			q.Set("key-marker", next)
			q.Set("upload-id-marker", page.NextID)
		}
		yield(backends.Leftover{}, fmt.Errorf("%w: a listing without an end", backends.ErrBadAnswer))
	}
}

// Abandon implements backends.LeftoverLister.
func (c *client) Abandon(ctx context.Context, l backends.Leftover) error {
	if err := c.bucket.abort(ctx, l.Path, l.ID); err != nil {
		return err
	}
	c.bucket.ledger.forget(l.ID)
	return nil
}
