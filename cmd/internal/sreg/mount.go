// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/cmd/internal/engine"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
	"github.com/sregfs/sregfs/fsys/fusefs"
)

func (a *app) mountCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "mount MOUNTPOINT [-- SREGFS-FLAG...]",
		Short: "Mount the registries as directories",
		Long: `Run the sregfs that is beside this program, or else in $PATH, with the same global flags.
The mount point is made if it is missing. It goes to the background once the mount can
be used. What stands behind -- is for sregfs: see sregfs --help.`,
		Example: "  sreg mount ~/images\n  sreg mount /images -- --allow-other",
		Args:    needArgs(1, maxArgs),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.startMount(cmd, args) },
	}
}

// startMount becomes sregfs: what that prints, and its exit code, are those of this command.
func (a *app) startMount(cmd *cobra.Command, args []string) error {
	if dash := cmd.ArgsLenAtDash(); dash > 1 || dash < 0 && len(args) > 1 {
		return usagef("usage: %s", cmd.UseLine())
	} else if dash == 0 {
		return usagef("mount: say where, before --: %s", cmd.UseLine())
	}
	program, err := sregfsProgram()
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if err := os.MkdirAll(args[0], 0o755); err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.ENOTCONN) { //nolint:gosec // a mount hides its mode
		return fmt.Errorf("mount: %w", err)
	}
	argv := []string{"sregfs"}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if slices.Contains([]string{"config", "home", "storage", "cache-dir", "default"}, f.Name) {
			argv = append(argv, "--"+f.Name+"="+f.Value.String())
		}
	})
	for _, spec := range a.remotes {
		argv = append(argv, "--remote="+spec)
	}
	argv = append(append(argv, args[1:]...), "--", args[0])
	return fmt.Errorf("mount: %s: %w", program, syscall.Exec(program, argv, os.Environ()))
}

// sregfsProgram finds sregfs: of the same release is the one beside this program.
func sregfsProgram() (string, error) {
	if own, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(own), "sregfs")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	path, err := exec.LookPath("sregfs")
	if err != nil {
		return "", backends.NotFound("sregfs is neither beside sreg nor in $PATH: install it")
	}
	return filepath.Abs(path)
}

func (a *app) unmountCmd() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "unmount [MOUNTPOINT]",
		Aliases: []string{"umount"},
		Short:   "End a mount, once what was copied in is published",
		Long: `End the running mount, or the one at MOUNTPOINT. Uploads under way are waited for. A mount in
which files are open stays, unless --force: then the mount point is free at once,
uploads go on at the next mount, and what is open can be read until it is closed. A
mount point that a process has left when it died is cleaned.`,
		Args: needArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.unmount(cmd.Context(), first(args), force) },
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also while files are open or uploads wait")
	return cmd
}

func (a *app) unmount(ctx context.Context, at string, force bool) error {
	o, err := a.options()
	if err != nil {
		return err
	}
	holder, _ := statedir.Holder(o.State)
	dead := fusefs.Dead(ctx)
	if at == "" {
		at, err = ownMount(o, holder, dead)
	} else {
		at, err = mountPoint(at)
	}
	if err != nil {
		return err
	}
	if slices.Contains(dead, at) {
		if err := fusefs.Unmount(at, true); err != nil {
			return fmt.Errorf("unmount: %w", err)
		}
		a.notice(at + " is free: its process was gone")
		return nil
	}
	own := holder.Mount == at
	if own && !force {
		if err := a.awaitUploads(ctx, o); err != nil {
			return err
		}
	}
	err = fusefs.Unmount(at, force)
	if errors.Is(err, fusefs.ErrBusy) {
		err = fmt.Errorf("%w: close them (\"sreg status\" and fuser -m %s tell who has them), or --force", err, at)
	}
	if err != nil || !own {
		if err != nil {
			err = fmt.Errorf("unmount: %w", err)
		}
		return err
	}
	return awaitEnd(ctx, o, holder.PID)
}

// ownMount is the mount that is meant where none is named: the running one, or a dead one of
// this state directory, which others may have too; a dead one of another only if there is no
// second.
func ownMount(o engine.Options, holder statedir.Process, dead []string) (string, error) {
	last, _ := statedir.Last(o.State)
	switch {
	case holder.Mount != "":
		return holder.Mount, nil
	case slices.Contains(dead, last.Mount):
		return last.Mount, nil
	case len(dead) == 1:
		return dead[0], nil
	case len(dead) > 1:
		return "", backends.NotFound("unmount: no mount is running, and several have died: say which (%s)", strings.Join(dead, ", "))
	}
	return "", backends.NotFound("unmount: no mount is running")
}

// mountPoint is how the kernel's table has a name. What is mounted there is not touched: it
// may hang.
func mountPoint(name string) (string, error) {
	abs, err := absolute(name)
	if err != nil {
		return "", err
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(dir, filepath.Base(abs))
	}
	return strings.TrimSuffix(abs, "/"), nil
}

const unmountPoll = 100 * time.Millisecond

// awaitUploads waits until the mount has published what it can, and shows how far it is.
func (a *app) awaitUploads(ctx context.Context, o engine.Options) error {
	s, err := engine.Connect(ctx, o)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close(ctx) }()
	var progress func(done, total int64)
	end := func(context.Context, error) {}
	defer func() { end(ctx, ctx.Err()) }()
	for {
		done, total, n, err := uploading(ctx, s.Client)
		if err != nil || n == 0 {
			return err
		}
		if progress == nil {
			a.notice("waiting for " + plural(n, "upload") + " (--force leaves them for the next mount)")
			progress, end = a.transfer(transfer{done: "published", what: plural(n, "upload"), kept: "the mount goes on, and so do its uploads"})
			if progress == nil {
				progress = func(int64, int64) {}
			}
		}
		progress(done, total)
		if !backends.Pause(ctx, unmountPoll, nil) {
			return ctx.Err()
		}
	}
}

// uploading says how much of what a mount is to publish by itself is on its way.
func uploading(ctx context.Context, c *control.Client) (done, total int64, n int, err error) {
	st, err := c.Status(ctx)
	for _, d := range st.Uploads {
		if d.State == spool.Sealed || d.State == spool.Publishing || d.State == spool.Writing {
			n++
			done += d.Stored
			total += d.Size
		}
	}
	for _, p := range st.Pushes {
		n++
		done += p.Stored
		total += p.Size
	}
	return done, total, n, err
}

// awaitEnd waits until a mount that is not in the tree any more has given its state up.
func awaitEnd(ctx context.Context, o engine.Options, pid int) error {
	for {
		holder, err := statedir.Holder(o.State)
		if err != nil || holder.PID != pid {
			return nil //nolint:nilerr // nobody has it
		}
		if !backends.Pause(ctx, unmountPoll, nil) {
			return ctx.Err()
		}
	}
}
