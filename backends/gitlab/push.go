// SPDX-License-Identifier: Apache-2.0

package gitlab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// Push implements backends.Pusher. GitLab has no condition for it, but keeps all files of a name and
// gives the newest. So after the upload it is looked who came first: a file that nobody knew of and that is older
// than ours was there before, and ours goes. Of two that push the same new name one is told so.
func (c *client) Push(ctx context.Context, ref backends.Ref, src backends.Source) (backends.Image, error) {
	unlock, err := c.locks.Lock(ctx, ref.String())
	if err != nil {
		return backends.Image{}, err
	}
	defer unlock()
	old, err := c.old(ctx, ref)
	if err != nil {
		return backends.Image{}, err
	}
	if err := allowed(ref, src, old); err != nil {
		if len(old) > 0 && old[0].digest() == src.Digest {
			return c.image(ref, old[0]), nil // an earlier try, whose answer was lost
		}
		return backends.Image{}, err
	}
	if err := check(ctx, src); err != nil {
		return backends.Image{}, err
	}
	if err := src.MayCommit(); err != nil {
		return backends.Image{}, err
	}
	made, err := c.upload(ctx, ref, src, old)
	if err != nil {
		return backends.Image{}, err
	}
	p, err := c.pack(ctx, ref)
	if err != nil {
		return backends.Image{}, err
	}
	now, _, err := c.images(ctx, p)
	if err != nil {
		return backends.Image{}, err
	}
	f, err := c.settle(ctx, foundFile{made, p}, src, old, now)
	if err != nil {
		return backends.Image{}, err
	}
	if src.Progress != nil {
		src.Progress(src.Size)
	}
	return c.image(ref, f), nil
}

// old returns the files that a name is, the newest first; none if it is free.
func (c *client) old(ctx context.Context, ref backends.Ref) ([]foundFile, error) {
	p, err := c.pack(ctx, ref)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, c.there(ctx)
	}
	if err != nil {
		return nil, err
	}
	all, _, err := c.images(ctx, p)
	return all, err
}

// there reports fs.ErrNotExist if there is no such project: GitLab says the same of that as of what
// it does not show.
func (c *client) there(ctx context.Context) error {
	resp, err := c.do(ctx, http.MethodGet, c.under("packages"), url.Values{"per_page": {"1"}}, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func allowed(ref backends.Ref, src backends.Source, old []foundFile) error {
	if len(old) == 0 {
		return src.CreateAllowed()
	}
	return src.ReplaceAllowed(ref, backends.Image{Ref: ref, Version: old[0].version()})
}

// check compares the digest of what is to be pushed, before anybody can see it.
func check(ctx context.Context, src backends.Source) error {
	sum := sha256.New()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < src.Size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := src.Content.ReadAt(buf[:min(int64(len(buf)), src.Size-off)], off)
		sum.Write(buf[:n])
		if off += int64(n); err != nil && off < src.Size {
			return fmt.Errorf("read what is to be pushed: %w", err)
		}
	}
	if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != src.Digest {
		return fmt.Errorf("%w: the bytes to be pushed are %s, not %s", backends.ErrCorrupt, got, src.Digest)
	}
	return nil
}

// upload makes the file, which is what its package means from then on.
func (c *client) upload(ctx context.Context, ref backends.Ref, src backends.Source, old []foundFile) (file, error) {
	name, version := packageName(ref), encode(ref.Tag)
	if len(old) > 0 {
		name, version = old[0].in.Name, old[0].in.Version // as others spell it
	}
	path := c.under("packages", "generic", name, version, encode(ref.Name)+backends.Ext(src.Format))
	resp, err := c.do(ctx, http.MethodPut, path, url.Values{"select": {"package_file"}}, func(req *http.Request) error {
		req.Header.Set("Content-Type", "application/octet-stream")
		if req.ContentLength = src.Size; src.Size == 0 {
			req.Body = http.NoBody
			return nil
		}
		req.Body = io.NopCloser(io.NewSectionReader(src.Content, 0, src.Size))
		return nil
	}, http.StatusBadRequest, http.StatusForbidden)
	if err != nil {
		return file{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		err := httpx.Error(resp)
		if strings.Contains(strings.ToLower(err.Error()), "duplicate") {
			return file{}, fmt.Errorf("%w: the project takes no second file of a name (its settings: Packages, duplicates): %v", fs.ErrPermission, err)
		}
		return file{}, err
	}
	var made file
	if err := httpx.JSON(resp.Body, &made); err != nil {
		return file{}, err
	}
	if made.ID == 0 {
		return file{}, fmt.Errorf("%w: an upload without a number", backends.ErrBadAnswer)
	}
	return made, nil
}

// settle decides whose the name is after an upload, and removes what lost: the other files that the
// name was, or what was made.
func (c *client) settle(ctx context.Context, made foundFile, src backends.Source, old, now []foundFile) (foundFile, error) {
	known := map[int64]bool{}
	for _, f := range old {
		known[f.ID] = true
	}
	var stored foundFile
	for _, f := range now {
		switch {
		case f.ID == made.ID:
			stored = f
		case !known[f.ID] && f.ID < made.ID && src.Replaces != backends.ReplaceAny:
			err := c.removeFile(ctx, made)
			if src.Replaces == "" {
				return foundFile{}, errors.Join(backends.Saying(fs.ErrExist, "the tag was taken meanwhile"), err)
			}
			return foundFile{}, errors.Join(backends.ErrChanged, err)
		}
	}
	switch {
	case stored.ID == 0:
		return foundFile{}, fmt.Errorf("%w: somebody else has removed it meanwhile", backends.ErrChanged)
	case stored.Size != src.Size || stored.digest() != "" && stored.digest() != src.Digest:
		err := fmt.Errorf("%w: GitLab stored %d bytes with the SHA-256 %s of %d with %s", backends.ErrCorrupt, stored.Size, stored.SHA256, src.Size, src.Digest)
		return foundFile{}, errors.Join(err, c.removeFile(ctx, made))
	}
	for _, f := range now {
		if f.ID < made.ID {
			if err := c.removeFile(ctx, f); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return foundFile{}, err
			}
		}
	}
	return stored, nil
}

func (c *client) removeFile(ctx context.Context, f foundFile) error {
	return c.remove(ctx, c.under("packages", strconv.FormatInt(f.in.ID, 10), "package_files", strconv.FormatInt(f.ID, 10)))
}

func (c *client) remove(ctx context.Context, path string) error {
	resp, err := c.do(ctx, http.MethodDelete, path, nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Delete implements backends.Deleter. A look at the version goes before: GitLab has no condition for it.
// Files of the package that are no images stay, and else the package goes as a whole.
func (c *client) Delete(ctx context.Context, img backends.Image) error {
	ref := img.Ref
	ref.Version = ""
	unlock, err := c.locks.Lock(ctx, ref.String())
	if err != nil {
		return err
	}
	defer unlock()
	p, err := c.pack(ctx, ref)
	if err != nil {
		return err
	}
	all, others, err := c.images(ctx, p)
	switch {
	case err != nil:
		return err
	case len(all) == 0:
		return backends.NotFound("a package without an image")
	case all[0].version() != img.Version:
		return backends.ErrChanged
	case others == 0 && (img.Ref.Version == "" || len(all) == 1):
		return c.remove(ctx, c.under("packages", strconv.FormatInt(p.ID, 10)))
	case img.Ref.Version != "":
		return c.removeFile(ctx, all[0])
	}
	for i := len(all) - 1; i >= 0; i-- { // what the name means goes last
		if err := c.removeFile(ctx, all[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
