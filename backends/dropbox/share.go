// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"

	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/files"
	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/sharing"

	"github.com/sregfs/sregfs/backends"
)

// Share implements backends.Sharer: it returns the file's link, which is made
// if there is none, with the settings that the account has for new links.
// Errors: errors.ErrUnsupported if with is not empty: send that person the link.
func (c *client) Share(ctx context.Context, img backends.Image, with string) (string, error) {
	if with != "" {
		return "", fmt.Errorf("%w: a Dropbox file is shared by its link: ask for that, and send it to %q", errors.ErrUnsupported, with)
	}
	all, err := c.find(ctx, img.Ref)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(all, func(f *files.FileMetadata) bool { return f.Rev == img.Version })
	if i < 0 || i > 0 && img.Ref.Version == "" {
		return "", backends.ErrChanged
	}
	f := all[i]
	link, err := c.sharing.CreateSharedLinkWithSettingsContext(ctx, sharing.NewCreateSharedLinkWithSettingsArg(f.PathDisplay))
	if err = translate(ctx, err); err == nil {
		return linkURL(link)
	}
	if !has(err, sharing.CreateSharedLinkWithSettingsErrorSharedLinkAlreadyExists) {
		return "", err
	}
	arg := sharing.NewListSharedLinksArg()
	arg.Path, arg.DirectOnly = f.PathDisplay, true
	res, err := c.sharing.ListSharedLinksContext(ctx, arg)
	if err != nil {
		return "", translate(ctx, err)
	}
	if res == nil || len(res.Links) == 0 {
		return "", fmt.Errorf("%w: the link that is there was not told", fs.ErrPermission)
	}
	return linkURL(res.Links[0])
}

// linkURL returns the URL of a link. People open it, so it must be one.
func linkURL(link sharing.IsSharedLinkMetadata) (string, error) {
	text := ""
	switch l := link.(type) {
	case *sharing.FileLinkMetadata:
		text = l.Url
	case *sharing.FolderLinkMetadata:
		text = l.Url
	}
	if u, err := url.Parse(text); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", fmt.Errorf("%w: %.80q is no link", backends.ErrBadAnswer, text)
	}
	return text, nil
}
