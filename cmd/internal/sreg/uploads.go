// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

func (a *app) uploadsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uploads",
		Short: "Show and settle the uploads that are not published yet",
		Long: `A file that was copied into the mount and is not in its registry yet is kept on
this machine until it is, or until you discard it.`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	cmd.AddCommand(a.uploadsListCmd(), a.uploadsRetryCmd(), a.uploadsDiscardCmd(), a.uploadsLeftCmd(), a.uploadsAbandonCmd())
	return cmd
}

func (a *app) uploadsListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the uploads that are not published yet",
		Long: `List the uploads that are not published yet.

With -o json: an array of {id, target, state, size, digest, stored, created,
changed, attempts, error, modtime, mode}.`,
		Args: needArgs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				st, err := c.Status(cmd.Context())
				if err != nil {
					return err
				}
				a.nothing = "no upload waits: all are published"
				return printAll(a, allOf(st.Uploads), uploadColumns(st.Uploads)...)
			})
		},
	}
}

func uploadColumns(all []spool.Info) []column[spool.Info] {
	type upload = spool.Info
	return []column[upload]{
		{"UPLOAD", func(d upload) string { return shortID(d.ID, all) }, func(d upload) any { return d.ID }},
		{"STATE", func(d upload) string { return string(d.State) }, nil},
		{"SIZE", func(d upload) string { return size(d.Size) }, func(d upload) any { return d.Size }},
		{"STORED", func(d upload) string { return size(d.Stored) }, func(d upload) any { return d.Stored }},
		{"CHANGED", func(d upload) string { return moment(d.Changed) }, func(d upload) any { return d.Changed }},
		{"TO", func(d upload) string { return destination(d.Target) }, nil},
		{"ERROR", reason, nil},
	}
}

const minShortID = 4

// tailOf is the part of an ID that is not its time.
func tailOf(id string) string { return id[strings.LastIndexByte(id, '-')+1:] }

// shortID is as much of an ID's tail as no other upload has.
func shortID(id string, all []spool.Info) string {
	tail := tailOf(id)
	for n := minShortID; n < len(tail); n++ {
		others := slices.ContainsFunc(all, func(d spool.Info) bool {
			return d.ID != id && (strings.HasPrefix(tailOf(d.ID), tail[:n]) || strings.HasPrefix(d.ID, tail[:n]))
		})
		if !others {
			return tail[:n]
		}
	}
	return id
}

// fullID returns the ID that begins, or whose tail begins, as typed. What is none is
// returned as it is: the error for it comes from whoever is asked about it.
func fullID(typed string, all []spool.Info) (string, error) {
	var found []string
	for _, d := range all {
		if d.ID == typed {
			return d.ID, nil
		}
		if typed != "" && (strings.HasPrefix(d.ID, typed) || strings.HasPrefix(tailOf(d.ID), typed)) {
			found = append(found, d.ID)
		}
	}
	switch len(found) {
	case 0:
		return typed, nil
	case 1:
		return found[0], nil
	}
	return "", usagef("%q is the beginning of several uploads: %s", typed, strings.Join(found, ", "))
}

// destination is the image that an upload is for; for a file with a temporary name, its
// path.
func destination(to spool.Target) string {
	if to.Ref == (backends.Ref{}) {
		return to.Remote + "://" + to.File + " (a temporary file)"
	}
	return backends.URI{Remote: to.Remote, Ref: to.Ref}.String()
}

// reason is why an upload is not published.
func reason(d spool.Info) string {
	if d.State == spool.Kept {
		return "WARN: it is only here: give it an image's name in the mount, or discard it"
	}
	return exit.Plain(d.Error)
}

func (a *app) uploadsRetryCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "retry [ID...]",
		Short: "Publish uploads that failed or wait; without an ID, all of them",
		Long: `Publish uploads now that failed or wait for another try; without an ID, all of them. "sreg
uploads ls" shows the IDs. It returns when they are published.`,
		RunE: func(cmd *cobra.Command, ids []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error { return a.retry(cmd.Context(), c, ids) })
		},
	}
}

// retry publishes the uploads that are named, or all that wait.
func (a *app) retry(ctx context.Context, c *control.Client, typed []string) error {
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	ids := publishable(st.Uploads)
	if len(typed) > 0 {
		ids = nil
	}
	for _, text := range typed {
		id, err := fullID(text, st.Uploads)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		a.notice("no upload waits: all are published")
	}
	var errs []error
	for _, id := range ids {
		progress, end := a.transfer(a.publishing(id, st.Uploads))
		err := c.Retry(ctx, id, progress)
		end(ctx, err)
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// publishing is the transfer of an upload. One that the mount publishes by itself goes on
// when we do not wait for it.
func (a *app) publishing(id string, all []spool.Info) transfer {
	i := slices.IndexFunc(all, func(d spool.Info) bool { return d.ID == id })
	if i < 0 {
		return transfer{what: id}
	}
	d := all[i]
	t := transfer{done: "published", what: destination(d.Target)}
	t.kept = "the upload to " + t.what + " stays, and can be tried again"
	if a.mount != "" && (d.State == spool.Publishing || d.Queued()) {
		t.kept = "the mount goes on with the upload to " + t.what + "; \"sreg uploads ls\" shows how far it is"
	}
	return t
}

// publishable returns the IDs of the uploads that only wait for another try.
func publishable(uploads []spool.Info) (ids []string) {
	for _, d := range uploads {
		if d.State == spool.Failed || d.State == spool.Sealed {
			ids = append(ids, d.ID)
		}
	}
	return ids
}

func (a *app) uploadsDiscardCmd() *cobra.Command {
	var all, failed, yes bool
	cmd := &cobra.Command{
		Use:   "discard ID|PATTERN...",
		Short: "Give uploads up: their data on this machine is deleted",
		Long: `Give uploads up: their data on this machine is deleted.

A pattern is what "sreg uploads ls" shows under TO, with * for any characters and ?
for one, or a collection with a slash at its end: 'lab://vsoch/*', lab://vsoch/.
What is being written or published at the moment is left alone by patterns, --all
and --failed. An ID may be shortened to what is unique. On a terminal you are asked
first.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && !all && !failed {
				return usagef("discard what? Name uploads (sreg uploads ls shows them), or use --failed or --all")
			}
			return a.with(cmd.Context(), func(c *control.Client) error {
				st, err := c.Status(cmd.Context())
				if err != nil {
					return err
				}
				ids, err := chosen(st.Uploads, args, all, failed)
				if err != nil {
					return err
				}
				if a.onlySays {
					chosen := slices.DeleteFunc(st.Uploads, func(d spool.Info) bool { return !slices.Contains(ids, d.ID) })
					a.notice("nothing is done: --dry-run only says what it would be done to")
					return printAll(a, allOf(chosen), uploadColumns(chosen)...)
				}
				if err := a.agreeToDiscard(cmd.Context(), st.Uploads, ids, yes); err != nil {
					return err
				}
				var errs []error
				for _, id := range ids {
					if err := c.Discard(cmd.Context(), id); err != nil {
						errs = append(errs, fmt.Errorf("discard %s: %w", id, err))
					}
				}
				return errors.Join(errs...)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all that are not being written or published now, also those that wait to be published")
	cmd.Flags().BoolVar(&failed, "failed", false, "those that failed or were cut")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	a.dryRunFlag(cmd)
	return cmd
}

// agreeToDiscard asks on a terminal whether uploads may be given up: what is in them may be
// nowhere else.
func (a *app) agreeToDiscard(ctx context.Context, all []spool.Info, ids []string, yes bool) error {
	if yes || !term.Is(a.in) {
		return nil
	}
	for _, d := range all {
		if slices.Contains(ids, d.ID) {
			a.notice(fmt.Sprintf("%s  %s  %s", size(d.Size), d.State, destination(d.Target)))
		}
	}
	return a.agree(ctx, fmt.Sprintf("Discard %s? What is only here is lost.", plural(len(ids), "upload")))
}

// chosen returns the IDs that the arguments and flags name. An argument that matches no
// upload is returned as it is: discarding it gives the error.
func chosen(uploads []spool.Info, args []string, all, failed bool) ([]string, error) {
	var ids []string
	for _, d := range uploads {
		idle := d.State != spool.Writing && d.State != spool.Publishing
		if idle && (all || failed && (d.State == spool.Failed || d.State == spool.Incomplete)) {
			ids = append(ids, d.ID)
		}
	}
	for _, arg := range args {
		if !strings.ContainsAny(arg, "*?[") && !strings.Contains(arg, "/") {
			id, err := fullID(arg, uploads)
			if err != nil {
				return nil, err
			}
			ids = append(ids, id)
			continue
		}
		before := len(ids)
		for _, d := range uploads {
			ok, err := matches(arg, d)
			if err != nil {
				return nil, usagef("pattern %q: %v", arg, err)
			}
			if ok && d.State != spool.Writing && d.State != spool.Publishing {
				ids = append(ids, d.ID)
			}
		}
		if len(ids) == before {
			return nil, backends.NotFound("no upload is meant by %q (see \"sreg uploads ls\")", arg)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// matches reports whether a pattern matches an upload. Its stars match slashes, too.
func matches(pattern string, d spool.Info) (bool, error) {
	to := backends.URI{Remote: d.Target.Remote, Ref: d.Target.Ref}.String()
	if d.Target.File != "" {
		to = d.Target.Remote + "://" + d.Target.File
	}
	if strings.HasSuffix(pattern, "/") {
		return strings.HasPrefix(to, pattern), nil
	}
	flat := strings.NewReplacer("/", "\x01")
	for _, name := range []string{to, d.ID, strings.TrimSuffix(to, ":"+backends.DefaultTag)} {
		if ok, err := path.Match(flat.Replace(pattern), flat.Replace(name)); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}
