// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
)

// Knock is Knocker's; ok is false if the backend is none.
func (c *Client) Knock() (method, address string, ok bool) {
	k, ok := c.backend.(Knocker)
	if !ok {
		return "", "", false
	}
	method, address = k.Knock()
	return method, address, true
}

// CheckLogin is LoginChecker's, once and without retries.
// Errors: those of LoginChecker; errors.ErrUnsupported if the backend is none.
func (c *Client) CheckLogin(ctx context.Context) error {
	l, ok := c.backend.(LoginChecker)
	if !ok {
		return errors.ErrUnsupported
	}
	return l.CheckLogin(ctx)
}

// StartLogin is WebLogin's. Errors: errors.ErrUnsupported if the backend is none.
func (c *Client) StartLogin() (page string, exchange func(ctx context.Context, code string) (secret string, err error), err error) {
	w, ok := c.backend.(WebLogin)
	if !ok {
		return "", nil, errors.ErrUnsupported
	}
	return w.StartLogin()
}

// StartLoopbackLogin is LoopbackLogin's, with the redirect that listen returns.
// Errors: those of listen; errors.ErrUnsupported, without listen, if the backend is none.
func (c *Client) StartLoopbackLogin(listen func() (redirect string, err error)) (page string, exchange func(ctx context.Context, sent string) (secret string, err error), err error) {
	l, ok := c.backend.(LoopbackLogin)
	if !ok {
		return "", nil, errors.ErrUnsupported
	}
	redirect, err := listen()
	if err != nil {
		return "", nil, err
	}
	return l.StartLoopbackLogin(redirect)
}

// Limits is Limited's; "" if the backend is none.
func (c *Client) Limits() string {
	if l, ok := c.backend.(Limited); ok {
		return l.Limits()
	}
	return ""
}
