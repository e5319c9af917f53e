// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/cmd/internal/term"
	"github.com/sregfs/sregfs/cmd/internal/version"
)

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the mount, the remotes, the cache and the uploads",
		Long: `Show how things stand. No registry is asked.

With -o json: {version, pid, mount, details, remotes, cache, uploads}; there is no
mount if none is running.`,
		Args: needArgs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				st, err := c.Status(cmd.Context())
				if err != nil {
					return err
				}
				if a.format == asJSON {
					return a.printJSON(st)
				}
				return printStatus(a.out, st)
			})
		},
	}
}

func printStatus(w io.Writer, st catalog.Status) error {
	t := newTable(w)
	if st.Mount != "" {
		t.row("mount", st.Mount+" (pid "+strconv.Itoa(st.PID)+", "+st.Version+")")
	} else {
		t.row("mount", "none is running")
	}
	for _, k := range slices.Sorted(maps.Keys(st.Details)) {
		t.row(k, st.Details[k])
	}
	limit := ""
	if st.Cache.Limit > 0 {
		limit = " of " + size(st.Cache.Limit)
	}
	t.row("cache", fmt.Sprintf("%s%s in %d images, %s", size(st.Cache.Used), limit, st.Cache.Blobs, st.Cache.Dir))
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := printRemotes(w, st.Remotes); err != nil || len(st.Uploads) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return printUploads(w, st.Uploads)
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  needArgs(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if a.format == asJSON {
				return a.printJSON(map[string]string{"version": version.String()})
			}
			_, err := fmt.Fprintln(a.out, "sreg "+term.Escape(version.Long()))
			return err
		},
	}
}
