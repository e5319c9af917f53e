// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"io"

	"github.com/sregfs/sregfs/backends"
)

// Whole brings an image of unknown size: it writes all bytes in order to w. A body that
// breaks off begins anew, after restart was called.
//
// Errors: those of src.Open; of w; ErrClosed when ctx ends.
func Whole(ctx context.Context, src Source, w io.Writer, restart func()) error {
	t := src.Open(ctx, backends.TransferOptions{N: -1, Demanded: true, Restart: restart})
	defer t.Close()
	_, err := io.Copy(w, t)
	if ctx.Err() != nil {
		return ErrClosed
	}
	return outward(err)
}
