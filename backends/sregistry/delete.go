// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// Delete removes the container of that tag. The server cannot compare and
// delete: that the name still means img.Version is checked right before.
func (c *client) Delete(ctx context.Context, img backends.Image) error {
	if err := c.CheckName(img.Ref); err != nil {
		return err
	}
	if img.Ref.Tag == "" {
		return fmt.Errorf("%w: only a tag can be deleted", fs.ErrInvalid)
	}
	n := split(img.Ref)
	unlock, err := c.commits.Lock(ctx, n.String())
	if err != nil {
		return err
	}
	defer unlock()
	m, err := c.manifest(ctx, n)
	if err != nil {
		return err
	}
	if now := c.image(m, n); img.Version != "" && img.Version != now.Version {
		return backends.ErrChanged
	}
	if m.Frozen {
		return errFrozen
	}
	defer c.forget()
	as := n
	if in := collectionIn(m.Collection); n.built(in, m.Name) {
		as = name{in, m.Name, n.tag} // as the server has it
	}
	err = c.signed(ctx, kindDelete, as, func(auth string) error { return c.remove(ctx, n, auth) })
	if statusOf(err) == http.StatusNotModified {
		return errFrozen
	}
	return err
}

// remove sends one DELETE.
func (c *client) remove(ctx context.Context, n name, auth string) error {
	req, err := httpx.NewRequest(ctx, http.MethodDelete, c.url("/api/container/"+n.String()), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", auth)
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return nil
	}
	text, err := httpx.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return err
	}
	return verdict(resp.Header, text)
}
