// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/fsys"
)

func (a *app) getCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "get URI",
		Short: "Print the path of an image's file",
		Long: `Print one path and nothing else: of the file with the image's bytes, if they are
on this machine, or else of the image in the running mount.`,
		Example: "  singularity run $(sreg get vsoch/hello:2.0)",
		Args:    needArgs(1, 1),

		ValidArgsFunction: a.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				r, err := c.Get(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if r.Path == "" && a.mount != "" {
					r.Path = filepath.Join(a.mount, fsys.PathOf(r.Remote, r.Ref, r.Format))
				}
				if r.Path == "" {
					return backends.NotFound("get %s: not on this machine: run \"sreg pull %s\" first, or mount with sregfs", r.URI, r.URI)
				}
				if a.format == asJSON {
					return a.printJSON(r)
				}
				// The one line that must not be escaped: another program opens it.
				_, err = fmt.Fprintln(a.out, r.Path)
				return err
			})
		},
	}
}
