// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/fsys"
)

func (a *app) getCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "get URI",
		Short: "Print the path of an image's file",
		Long: `Print one path and nothing else: of the file with the image's bytes, if they are
on this machine, or else of the image in the running mount. What is printed is there.
Of an image that was recorded by its URL, and that no mount shows, it is the URL.`,
		Example: "  singularity run $(sreg get vsoch/hello:2.0)",
		Args:    needArgs(1, 1),

		ValidArgsFunction: a.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				r, err := c.Get(cmd.Context(), args[0])
				if err == nil {
					r.Path, err = a.pathOf(r)
					if err != nil {
						err = fmt.Errorf("get %s: %w", r.URI, err)
					}
				}
				if err != nil {
					if r, err = a.getElsewhere(cmd.Context(), args[0], err); err != nil {
						return err
					}
				}
				if a.format == asJSON {
					return a.printJSON(r)
				}
				// Not escaped, unlike all other output: another program opens the path.
				_, err = fmt.Fprintln(a.out, r.Path)
				return err
			})
		},
	}
}

// pathOf returns the path of an image's file: that of its bytes if they are here, else in
// the running mount, if this process can reach it there (it may be in another mount
// namespace).
func (a *app) pathOf(r verbs.Record) (string, error) {
	switch {
	case r.Path != "":
		return r.Path, nil
	case a.mount == "" && r.Remote == config.Local && r.URL != "":
		return r.URL, nil // as the sregistry client: Apptainer takes a URL, too
	case a.mount == "":
		return "", backends.NotFound("not on this machine: run \"sreg pull %s\" first, or mount with sregfs", r.URI)
	}
	path := filepath.Join(a.mount, fsys.PathOf(a.mountNames, r.Remote, r.Ref, r.Format))
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("the mount at %s does not show it here (\"sreg pull %s\" fetches it): %w", a.mount, r.URI, err)
	}
	return path, nil
}
