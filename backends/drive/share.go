// SPDX-License-Identifier: Apache-2.0

package drive

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
)

// Share implements backends.Sharer: a person may read the file, and is told so by Google's
// mail; with nobody named, whoever has the link.
func (c *client) Share(ctx context.Context, img backends.Image, with string) (string, error) {
	f, err := c.Current(ctx, img)
	if err != nil {
		return "", err
	}
	permission := struct {
		Type  string `json:"type"`
		Role  string `json:"role"`
		Email string `json:"emailAddress,omitempty"`
	}{"anyone", "reader", with}
	if with != "" {
		permission.Type = "user"
	}
	_, id := handles(f.ID)
	var made struct{ Kind, ID string }
	if err := c.call(ctx, http.MethodPost, "files/"+url.PathEscape(id)+"/permissions", all("fields", "kind,id"), permission, &made); err != nil {
		return "", err
	}
	if err := isKind(made.Kind, "drive#permission"); err != nil {
		return "", err
	}
	return pageOf(f)
}

// pageOf returns the address of a file's page. People open it, so it must be one.
func pageOf(f files.File) (string, error) {
	if u, err := url.Parse(f.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", fmt.Errorf("%w: %.80q is no link", backends.ErrBadAnswer, f.URL)
	}
	return f.URL, nil
}
