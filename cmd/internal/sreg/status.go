// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
	"github.com/sregfs/sregfs/cmd/internal/version"
	"github.com/sregfs/sregfs/fsys/fusefs"
)

func (a *app) statusCmd() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what is under way, the remotes, the mount, the cache and the uploads",
		Long: `Show how things stand: what is being transferred, the remotes, the mount, the cache,
the uploads that wait, and what was refused last, with the reason. No registry is
asked. With --watch it is shown again and again, until Ctrl-C.

A mount that was told to stop while files are open gives all else to the next one and
serves them until they are closed: its process, and who has which file open, is shown
below.

With -o json: {version, pid, mount, details, remotes, cache, uploads, pushes, spool, runs, refusals, retired, dead};
there is no mount if none is running, retired are those processes, and dead the mount points
that a process has left without unmounting.`,
		Args: needArgs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return a.watch(cmd.Context(), a.status)
			}
			return a.status(cmd.Context())
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again and again, until Ctrl-C")
	return cmd
}

// status prints how things stand.
func (a *app) status(ctx context.Context) error {
	o, err := a.options()
	if err != nil {
		return err
	}
	return a.with(ctx, func(c *control.Client) error {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		retired, err := statedir.AllRetired(a.state)
		if err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
		dead := fusefs.Dead(ctx)
		system := a.systemStatus(ctx)
		if a.format == asJSON {
			return a.printJSON(statusRecord{st, retired, dead, system})
		}
		if err := a.printStatus(st, dead, o.StateNotes); err != nil {
			return err
		}
		if err := printRetired(a.out, retired); err != nil {
			return err
		}
		return a.printSystem(system)
	})
}

// A statusRecord is the status of the running mount, with what other processes have left.
type statusRecord struct {
	verbs.Status
	Retired []statedir.Retired `json:"retired,omitempty"`
	Dead    []string           `json:"dead,omitempty"`
	System  []verbs.Status     `json:"system,omitempty"` // mounts of root, or of a service, that this user may see
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  needArgs(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if a.format == asJSON {
				return a.printJSON(version.Build())
			}
			_, err := fmt.Fprintln(a.out, "sreg "+backends.Printable(version.Build().Long()))
			return err
		},
	}
}
