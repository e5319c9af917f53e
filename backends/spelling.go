// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"fmt"
	"io/fs"
)

// SameName compares the name that is pushed to with the one that the service has,
// or would have, for it. Versions are not looked at.
//
// Errors: fs.ErrInvalid, with the name that the service makes of ref.
func SameName(ref, stored Ref) error {
	ref.Version, stored.Version = "", ""
	if ref == stored {
		return nil
	}
	return fmt.Errorf("%w: the server would store this as %s: use that name, or another one", fs.ErrInvalid, stored)
}

// CheckPush reports whether ref can be the name of a push: whether it is possible
// here, and is kept as it is; and whether anything can be stored. It sends no request.
//
// Errors: fs.ErrInvalid, with the rule that ref breaks, or with the name that the
// service would make of it; ErrReadOnly, fs.ErrPermission.
func (c *Client) CheckPush(ref Ref) error {
	return c.fail("push", ref, c.checkTarget(ref))
}

func (c *Client) checkTarget(ref Ref) error {
	if err := c.checkName(ref); err != nil {
		return err
	}
	if ref.Version != "" {
		return fmt.Errorf("%w: a push names a tag, not a version", fs.ErrInvalid)
	}
	if s, ok := c.backend.(Speller); ok {
		stored, err := s.Spelling(ref)
		if err != nil {
			return err
		}
		if err := SameName(ref, stored); err != nil {
			return err
		}
	}
	return c.CheckWrite()
}

// CheckWrite is WriteChecker's, nil if the backend is none.
func (c *Client) CheckWrite() error {
	if w, ok := c.backend.(WriteChecker); ok {
		return w.CheckWrite()
	}
	return nil
}
