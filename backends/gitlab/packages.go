// SPDX-License-Identifier: Apache-2.0

package gitlab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// under returns the path of something of the project, below /api/v4/.
func (c *client) under(parts ...string) string {
	path := "projects/" + url.PathEscape(c.project)
	for _, part := range parts {
		path += "/" + url.PathEscape(part)
	}
	return path
}

// A pack is a package of a project ("Packages API").
type pack struct {
	ID      int64  `json:"id"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Type    string `json:"package_type"`
	Status  string `json:"status"`
}

// A file is one of a package.
type file struct {
	ID        int64     `json:"id"`
	Name      string    `json:"file_name"`
	Size      int64     `json:"size"`
	SHA256    string    `json:"file_sha256"`
	CreatedAt time.Time `json:"created_at"`
}

// A foundFile is a file and where it is.
type foundFile struct {
	file
	in pack
}

func (f foundFile) digest() string {
	if sum := "sha256:" + strings.ToLower(f.SHA256); backends.CheckDigest(sum) == nil {
		return sum
	}
	return ""
}

// version is the digest or, where GitLab tells none, the number of the file.
func (f foundFile) version() string {
	if digest := f.digest(); digest != "" {
		return digest
	}
	return strconv.FormatInt(f.ID, 10)
}

func (f file) format() string {
	_, format := backends.CutExt(f.Name)
	return format
}

// path is where the newest file of that name is.
func (f foundFile) path(c *client) string {
	return c.under("packages", "generic", f.in.Name, f.in.Version, f.Name)
}

// pack returns the package that is ref.
//
// Errors: fs.ErrNotExist if there is none.
func (c *client) pack(ctx context.Context, ref backends.Ref) (pack, error) {
	ref.Version = ""
	for _, s := range spellings(ref) {
		query := url.Values{"package_type": {"generic"}, "package_name": {s[0]}, "package_version": {s[1]}}
		for p, err := range pages[pack](ctx, c.api, c.under("packages"), query) {
			if err != nil {
				return pack{}, err
			}
			// The name is looked for anywhere in others, and old GitLabs know no filter for versions.
			if got, ok := p.ref(); ok && got == ref && p.Type == "generic" {
				return p, nil
			}
		}
	}
	return pack{}, backends.NotFound("no such package")
}

// images returns the files of a package that are images, the newest first, and how many others
// there are.
func (c *client) images(ctx context.Context, p pack) (all []foundFile, others int, err error) {
	for f, err := range pages[file](ctx, c.api, c.under("packages", strconv.FormatInt(p.ID, 10), "package_files"), url.Values{}) {
		if err != nil {
			return nil, 0, err
		}
		if f.format() == "" {
			others++
			continue
		}
		at := 0
		for at < len(all) && all[at].ID > f.ID {
			at++
		}
		all = append(all[:at], append([]foundFile{{f, p}}, all[at:]...)...)
	}
	return all, others, nil
}

// find returns the file that ref is now.
//
// Errors: fs.ErrNotExist if there is none.
func (c *client) find(ctx context.Context, ref backends.Ref) (foundFile, error) {
	p, err := c.pack(ctx, ref)
	if err != nil {
		return foundFile{}, err
	}
	return c.newest(ctx, foundFile{in: p})
}

// newest returns what the package of f means now.
//
// Errors: fs.ErrNotExist if it has no image.
func (c *client) newest(ctx context.Context, f foundFile) (foundFile, error) {
	all, _, err := c.images(ctx, f.in)
	switch {
	case err != nil:
		return foundFile{}, err
	case len(all) == 0:
		return foundFile{}, backends.NotFound("a package without an image")
	case all[0].Size < 0:
		return foundFile{}, fmt.Errorf("%w: a file of %d bytes", backends.ErrBadAnswer, all[0].Size)
	}
	return all[0], nil
}

// changed is what an error of a look at what is known means.
func changed(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return backends.ErrChanged
	}
	return err
}
