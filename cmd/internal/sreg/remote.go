// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/all"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/engine"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

func (a *app) remoteCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remote",
		Short: "Show, try and change the configured registries",
		Long: `Show, try and change the configured registries. Changes are made in the
configuration file, of which everything else stays as it is. A running mount takes
them up at once: files that are open can be read to their end.`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	cmd.AddCommand(a.remoteListCmd(), a.remoteAddCmd(), a.remoteRemoveCmd(), a.remoteRenameCmd(), a.remoteSetCmd(), a.remoteShowCmd(), a.remoteTestCmd())
	return cmd
}

func (a *app) remoteListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the configured registries and how they stand",
		Args:    needArgs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				st, err := c.Status(cmd.Context())
				if err != nil {
					return err
				}
				return printAll(a, allOf(st.Remotes), remoteColumns()...)
			})
		},
	}
}

func remoteColumns() []column[verbs.RemoteStatus] {
	type remote = verbs.RemoteStatus
	return []column[remote]{
		{"REMOTE", func(r remote) string { return r.Name }, nil},
		{"TYPE", func(r remote) string { return r.Type }, nil},
		{"IMAGES", func(r remote) string { return strconv.Itoa(r.Images) }, func(r remote) any { return r.Images }},
		{"CAN", func(r remote) string { return r.Caps }, nil},
		{"URL", func(r remote) string { return r.URL }, nil},
		{"ERROR", func(r remote) string { return exit.Plain(r.Error) }, nil},
	}
}

func (a *app) remoteAddCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "add NAME TYPE [KEY=VALUE...]",
		Short: "Configure one more registry",
		Long: `Add a [remotes.NAME] table to the configuration file. The keys are those of the
file; a value is text unless it reads true, false, a number, or stands in brackets
or quotes. On a terminal you are asked for a key that is missing.

The remote is not asked anything: "sreg remote test NAME" does that. A password
or token has no place on a command line: "sreg login NAME" asks for it.`,
		Example: `  sreg remote add lab oci url=https://registry.lab.org
  sreg remote add docker docker
  sreg remote add ghcr ghcr namespace=me read_only=true
  sreg remote add shared dir path=/srv/images`,
		Args: needArgs(2, maxArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.addRemote(cmd.Context(), args[0], args[1], args[2:])
		},
	}
}

func (a *app) addRemote(ctx context.Context, name, typ string, texts []string) error {
	o, err := a.options()
	if err != nil {
		return err
	}
	kind, ok := all.Types.Named(typ)
	if !ok {
		return usagef("remote add %s: unknown type %q%s", name, typ, backends.DidYouMean(typ, all.Names()))
	}
	keys, err := remoteKeys(kind, texts, config.Key{Name: "type", Value: kind.Name})
	if err != nil {
		return fmt.Errorf("remote add %s: %w", name, err)
	}
	if key := kind.Needs; key != "" && !has(keys, key) && term.Is(a.in) {
		value, err := a.ask(ctx, key+": ")
		if err != nil {
			return err
		}
		keys = append(keys, config.Key{Name: key, Value: value})
	}
	if r, err := remoteNamed(o, name); err == nil && len(r.Origins) > 0 && name != config.Local {
		return fmt.Errorf("remote add %s: %w", name, backends.Saying(fs.ErrExist,
			"remote %s is in the configuration, at %s (\"sreg remote set %s KEY=VALUE\" changes it)", name, r.Origin, name))
	}
	path, err := o.ChangeConfig(ctx, name, func(text []byte) ([]byte, error) { return config.AddRemote(text, name, keys) })
	if err != nil {
		return fmt.Errorf("remote add %s: %w", name, err)
	}
	a.changed(ctx, o, path, name+" is added")
	return nil
}

// remoteKeys parses the settings of a remote of that type, and appends them to keys. It
// makes file names absolute: the user means the working directory, the configuration file
// its own.
func remoteKeys(typ backends.Type, texts []string, keys ...config.Key) ([]config.Key, error) {
	for _, text := range texts {
		k, err := config.ParseKey(text)
		if err != nil {
			return nil, err
		}
		if has(keys, k.Name) {
			return nil, usagef("%s is given twice", k.Name)
		}
		path, ok := k.Value.(string)
		isFile := config.IsFileKey(k.Name) || k.Name == "path" && typ.Local
		if ok && isFile && path != "" && !strings.HasPrefix(path, "~/") {
			if k.Value, err = absolute(path); err != nil {
				return nil, err
			}
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func has(keys []config.Key, name string) bool {
	return slices.ContainsFunc(keys, func(k config.Key) bool { return k.Name == name })
}

// changed reports a change of the configuration, and makes a running mount apply it as
// far as possible.
func (a *app) changed(ctx context.Context, o engine.Options, path, what string) {
	a.notice(what + " (" + path + ")")
	a.reload(ctx, o, "")
}

// reload makes a running mount read its configuration again, and reports the result.
// reopen is the remote that got another login; "" if none did. A failure is no error of
// the command: the configuration file is changed.
func (a *app) reload(ctx context.Context, o engine.Options, reopen string) {
	mount := runningMount(o)
	if mount == "" {
		return
	}
	var done control.Reloaded
	s, err := engine.Connect(ctx, o)
	if err == nil {
		done, err = s.Client.Reload(ctx, reopen)
		err = errors.Join(err, s.Close(ctx))
	}
	if err != nil {
		a.notice(fmt.Sprintf("the mount at %s has not taken that up; restart it: %v", mount, err))
	}
	for _, change := range []struct {
		names []string
		text  string
	}{
		{done.Added, "the mount at %s has %s now"},
		{done.Changed, "the mount at %s has %s as it is now"},
		{done.Removed, "the mount at %s has dropped %s"},
		{done.Waiting, "the mount at %s keeps the setting %s as it was until it is restarted"},
	} {
		for _, name := range change.names {
			a.notice(fmt.Sprintf(change.text, mount, name))
		}
	}
}

func (a *app) remoteRemoveCmd() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm NAME",
		Aliases: []string{"remove"},
		Short:   "Configure a registry no more",
		Long: `Remove a remote's table from the configuration file, with the comment right above
it, and its stored login. Nothing happens to the images in the registry.`,
		Args: needArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.removeRemote(cmd.Context(), args[0], force) },
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also while uploads to it wait")
	return cmd
}

func (a *app) removeRemote(ctx context.Context, name string, force bool) error {
	o, err := a.editable(ctx, "rm", name, force)
	if err != nil {
		return err
	}
	path, err := o.ChangeConfig(ctx, "", func(text []byte) ([]byte, error) { return config.RemoveRemote(text, name) })
	if err != nil {
		return fmt.Errorf("remote rm %s: %w%s", name, err, a.origin(name, err))
	}
	a.changed(ctx, o, path, name+" is removed")
	if a.settings.Default == name {
		a.notice(fmt.Sprintf("the setting default = %q names it still", name))
	}
	switch login, err := o.DropLogin(name); {
	case err == nil:
		a.notice("its login is removed (" + login + ")")
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("remote rm %s: its login stays: %w", name, err)
	}
	return nil
}

// origin says where a remote comes from that is not in the file.
func (a *app) origin(name string, err error) string {
	if !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	for _, r := range a.settings.Remotes {
		if r.Name == name && r.Name != config.Local {
			return " (it comes from " + r.Origin + ")"
		}
	}
	return ""
}

// editable returns the options to change a remote with. It refuses while uploads wait for
// the remote, which would wait for ever after it was renamed or removed. If the
// configuration cannot be loaded, it allows the change, so that the file can be repaired.
func (a *app) editable(ctx context.Context, verb, name string, force bool) (engine.Options, error) {
	o, err := a.options()
	if exit.Code(err) == exit.Usage || err == nil && force {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	waiting := 0
	err = a.with(ctx, func(c *control.Client) error {
		st, err := c.Status(ctx)
		waiting = 0
		for _, d := range st.Uploads {
			if d.Target.Remote == name {
				waiting++
			}
		}
		return err
	})
	switch {
	case exit.Code(err) == exit.Usage:
		return o, nil
	case err != nil:
		return o, err
	case waiting > 0:
		return o, fmt.Errorf("remote %s %s: %d uploads to it are not published (see \"sreg uploads ls\"; --force leaves them)", verb, name, waiting)
	}
	return o, nil
}

func (a *app) remoteRenameCmd() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rename NAME NEW",
		Aliases: []string{"mv"},
		Short:   "Give a registry another name here",
		Long: `Rename a remote's table in the configuration file, and its stored login. In the
registry nothing changes.`,
		Args: needArgs(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.renameRemote(cmd.Context(), args[0], args[1], force)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also while uploads to it wait")
	return cmd
}

func (a *app) renameRemote(ctx context.Context, from, to string, force bool) error {
	if from == config.Local || to == config.Local {
		return usagef("remote rename: %q is the remote that is always there, under this name", config.Local)
	}
	o, err := a.editable(ctx, "rename", from, force)
	if err != nil {
		return err
	}
	path, err := o.ChangeConfig(ctx, to, func(text []byte) ([]byte, error) { return config.RenameRemote(text, from, to) })
	if err != nil {
		return fmt.Errorf("remote rename %s: %w%s", from, err, a.origin(from, err))
	}
	a.changed(ctx, o, path, from+" is "+to+" now")
	if err := o.MoveLogin(from, to); err != nil {
		return fmt.Errorf("remote rename %s: its login stays under the old name: %w", from, err)
	}
	return nil
}
