// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/all"
	"github.com/sregfs/sregfs/cmd/internal/config"
)

func (a *app) configCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration",
		Args:  cobra.ArbitraryArgs,
		RunE:  group,
	}
	cmd.AddCommand(a.configShowCmd())
	return cmd
}

func (a *app) configShowCmd() *cobra.Command {
	var origin bool
	cmd := &cobra.Command{
		Use:   "show [KEY]",
		Short: "Show the settings that count, without secrets",
		Long: `Show every setting and every key of every remote as it counts for this user. A KEY
is all of one ("push"), or the beginning of several ("remotes.lab").

What counts is the first of these that says something: a flag, the environment, the
user's file, the files in /etc/sregfs/conf.d (the last one by name first),
/etc/sregfs/config.toml. --origin shows which one did, and the line.

Secrets are not shown. With -o json: an array of {key, value, origin}.`,
		Args: needArgs(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := a.options(); err != nil {
				return err
			}
			rows := a.configRows(first(args))
			if len(rows) == 0 {
				return backends.NotFound("there is no setting %q%s", args[0], backends.DidYouMean(args[0], a.configKeys()))
			}
			return a.printConfig(rows, origin)
		},
	}
	cmd.Flags().BoolVar(&origin, "origin", false, "show where each value is from")
	return cmd
}

func (a *app) printConfig(rows []config.Row, origin bool) error {
	columns := []column[config.Row]{
		{"KEY", func(r config.Row) string { return r.Key }, nil},
		{"VALUE", func(r config.Row) string { return fmt.Sprint(r.Value) }, func(r config.Row) any { return r.Value }},
	}
	if origin {
		columns = append(columns, column[config.Row]{"ORIGIN", func(r config.Row) string { return r.Origin }, nil})
	}
	return printAll(a, allOf(rows), columns...)
}

func (a *app) configKeys() (all []string) {
	for _, r := range a.configRows("") {
		all = append(all, r.Key)
	}
	return all
}

// configRows are the settings whose keys are, or begin with, that one: "" for all.
func (a *app) configRows(key string) []config.Row {
	return slices.DeleteFunc(config.Shown(&a.settings), func(r config.Row) bool {
		return key != "" && r.Key != key && !strings.HasPrefix(r.Key, key+".")
	})
}

func (a *app) remoteShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show the settings of a registry, and where each is from",
		Long: `Show the keys of a remote's table as they count, and the file and line that says each.
Secrets are not shown. With -o json: an array of {key, value, origin}.`,
		Args: needArgs(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			o, err := a.options()
			if err != nil {
				return err
			}
			r, err := remoteNamed(o, args[0])
			if err != nil {
				return fmt.Errorf("remote show: %w", err)
			}
			rows := a.configRows("remotes." + r.Name)
			for i := range rows {
				rows[i].Key = strings.TrimPrefix(rows[i].Key, "remotes."+r.Name+".")
			}
			return a.printConfig(rows, true)
		},
	}
}

func (a *app) remoteSetCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "set NAME KEY=VALUE...",
		Short: "Change settings of a registry",
		Long: `Change keys in a remote's table of the user's configuration file; KEY= without a value
removes one. Comments, and everything else, stay as they are. For a remote that the
machine's configuration has, the user's file gets a table with these keys, which count
before the machine's.`,
		Example: `  sreg remote set lab url=https://registry.lab.org read_only=true
  sreg remote set lab timeout=`,
		Args: needArgs(2, maxArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.setRemote(cmd.Context(), args[0], args[1:])
		},
	}
}

func (a *app) setRemote(ctx context.Context, name string, texts []string) error {
	o, err := a.options()
	if err != nil {
		return err
	}
	r, err := remoteNamed(o, name)
	if err != nil {
		return fmt.Errorf("remote set: %w", err)
	}
	typ, _ := all.Types.Named(r.Type)
	keys, err := remoteKeys(typ, texts)
	if err != nil {
		return fmt.Errorf("remote set %s: %w", name, err)
	}
	for i, k := range keys {
		if k.Value == "" {
			keys[i].Value = nil
		}
	}
	path, err := o.ChangeConfig(ctx, name, func(text []byte) ([]byte, error) { return config.SetKeys(text, name, keys) })
	if err != nil {
		return fmt.Errorf("remote set %s: %w", name, err)
	}
	a.changed(ctx, o, path, name+" is changed")
	return nil
}
