// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/fsys"
)

func (a *app) pathCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "path URI|PATH",
		Short: "Translate between an image's URI and its path in the mount",
		Long: `Print where the running mount shows an image, or, given a path in that mount,
which image it is.`,
		Args: needArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				if a.mount == "" {
					return a.pathElsewhere(cmd.Context(), args[0])
				}
				if inside, ok := insideMount(a.mount, args[0]); ok {
					return a.printURI(inside)
				}
				return a.printPath(cmd.Context(), c, args[0])
			})
		},
	}
}

// insideMount returns the part of path below the mount point. It compares the names only
// and makes no system call on either, because a mount that hangs would block it.
func insideMount(mount, path string) (string, bool) {
	if strings.Contains(path, "://") {
		return "", false
	}
	abs, err := absolute(path)
	if err != nil {
		return "", false
	}
	inside, err := filepath.Rel(mount, abs)
	if err != nil || inside == "." || inside == ".." || strings.HasPrefix(inside, "../") {
		return "", false
	}
	return inside, true
}

func (a *app) printURI(inside string) error {
	uri, err := uriInside(inside)
	if err != nil {
		return err
	}
	if a.format == asJSON {
		return a.printJSON(map[string]string{"uri": uri})
	}
	_, err = fmt.Fprintln(a.out, backends.Printable(uri))
	return err
}

func (a *app) printPath(ctx context.Context, c *control.Client, uri string) error {
	if filepath.IsAbs(uri) {
		return fmt.Errorf("%w: %s is not in the mount at %s", fs.ErrInvalid, uri, a.mount)
	}
	r, err := c.Find(ctx, uri)
	if err != nil {
		return err
	}
	return a.printFound(filepath.Join(a.mount, fsys.PathOf(a.mountNames, r.Remote, r.Ref, r.Format)))
}

func (a *app) printFound(path string) error {
	if a.format == asJSON {
		return a.printJSON(map[string]string{"path": path})
	}
	_, err := fmt.Fprintln(a.out, path)
	return err
}
