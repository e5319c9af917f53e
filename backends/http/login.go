// SPDX-License-Identifier: Apache-2.0

package http

import (
	"context"
	"errors"
	"io/fs"
	nethttp "net/http"

	"github.com/sregfs/sregfs/backends"
)

// Knock returns a request that every web server answers.
func (c *client) Knock() (method, address string) {
	return nethttp.MethodGet, c.home.String()
}

// CheckLogin asks for the folder. A server that shows no index of it has still
// looked at the login.
//
// Errors: those of backends.Backend.Stat.
func (c *client) CheckLogin(ctx context.Context) error {
	resp, err := c.do(ctx, nethttp.MethodHead, c.home.String(), nil)
	switch {
	case err == nil:
		resp.Body.Close()
		return nil
	case errors.Is(err, backends.ErrUnauthorized):
		return err
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist), errors.Is(err, errors.ErrUnsupported):
		return nil
	}
	return err
}

// Address implements backends.Addressed.
func (c *client) Address() string { return c.home.String() }
