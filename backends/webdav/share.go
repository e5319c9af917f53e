// SPDX-License-Identifier: Apache-2.0

package webdav

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

var _ backends.Sharer = (*cloud)(nil)

// A cloud is a client of Nextcloud or ownCloud, which have links to files: the OCS Share API of
// their developer manuals.
type cloud struct {
	*client
	shares string // address of that
	root   string // path of the remote's folder in the user's files
}

// newCloud returns c, as a cloud if its folder is in the files of a user of one.
func newCloud(c *client) backends.Backend {
	before, after, ok := strings.Cut(c.store.home.Path, filesFolder)
	_, root, _ := strings.Cut(after, "/")
	if !ok {
		return c
	}
	at := url.URL{Scheme: c.store.home.Scheme, Host: c.store.home.Host, Path: before + "/ocs/v2.php/apps/files_sharing/api/v1/shares"}
	return &cloud{client: c, shares: at.String(), root: root}
}

const publicLink = 3 // the share type

type share struct {
	Type int    `json:"share_type"`
	URL  string `json:"url"`
}

// Share implements backends.Sharer: it returns the public link of the file, which is made if
// there is none.
//
// Errors: errors.ErrUnsupported if with is not empty: send that person the link; fs.ErrPermission
// where the server makes no public links.
func (c *cloud) Share(ctx context.Context, img backends.Image, with string) (string, error) {
	if with != "" {
		return "", fmt.Errorf("%w: a file is shared by its link: ask for that, and send it to %q", errors.ErrUnsupported, with)
	}
	f, err := c.Locate(ctx, img)
	if err != nil {
		return "", err
	}
	path := "/" + f.Path
	if c.root != "" {
		path = "/" + files.Join(c.root, f.Path)
	}
	var there []share
	if err := c.ask(ctx, http.MethodGet, url.Values{"path": {path}}, &there); err != nil {
		return "", err
	}
	for _, s := range there {
		if s.Type == publicLink && s.URL != "" {
			return linkURL(s.URL)
		}
	}
	var made share
	if err := c.ask(ctx, http.MethodPost, url.Values{"path": {path}, "shareType": {fmt.Sprint(publicLink)}, "permissions": {"1"}}, &made); err != nil {
		return "", err
	}
	return linkURL(made.URL)
}

// ask sends values to the share API and decodes the data of the answer.
func (c *cloud) ask(ctx context.Context, method string, values url.Values, data any) error {
	q := question{method: method, address: c.shares + "?format=json", header: http.Header{"Ocs-Apirequest": {"true"}, "Accept": {"application/json"}}}
	if text := values.Encode(); method == http.MethodGet {
		q.address += "&" + text
	} else {
		q.header.Set("Content-Type", "application/x-www-form-urlencoded")
		q.body, q.size = func() io.Reader { return strings.NewReader(text) }, int64(len(text))
	}
	resp, err := c.store.do(ctx, q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return httpx.JSON(resp.Body, &struct {
		OCS struct {
			Data any `json:"data"`
		} `json:"ocs"`
	}{struct {
		Data any `json:"data"`
	}{data}})
}

// linkURL returns a link. People open it, so it must be one.
func linkURL(text string) (string, error) {
	if u, err := url.Parse(text); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", fmt.Errorf("%w: %.80q is no link", backends.ErrBadAnswer, text)
	}
	return text, nil
}
