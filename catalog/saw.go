// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"

	"github.com/sregfs/sregfs/backends"
)

// Used notes what a tag means that is opened, pulled or pinned: from then on it has a history.
func (c *core) Used(remote string, img backends.Image) {
	if _, pinned := c.Pinned(remote, img.Ref); pinned {
		return // it is not what the tag means
	}
	c.saw(remote, img, true)
}

// saw notes what a tag means now, if it has a history, or with begin in any case. Nobody
// waits until it is written.
func (c *core) saw(remote string, img backends.Image, begin bool) {
	write := c.records.Saw(remote, img, c.Now(), begin)
	if write == nil {
		return
	}
	c.tasks.start(func(context.Context) {
		if err := write(); err != nil {
			c.opts.Log.Warn("what a tag means could not be noted", "remote", remote, "image", img.Ref.String(), "err", err)
		}
	})
}
