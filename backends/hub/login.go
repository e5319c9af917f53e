// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"net/http"
)

// Knock returns a request to where the images are: the archive's service may
// well be away without anybody missing it.
func (c *client) Knock() (method, address string) { return http.MethodGet, c.data.String() + "/" }

// CheckLogin has nothing to ask for: everything in the archive is public.
func (c *client) CheckLogin(context.Context) error { return nil }

// Address implements backends.Addressed: where the images are.
func (c *client) Address() string { return c.data.String() }
