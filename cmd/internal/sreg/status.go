// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
	"github.com/sregfs/sregfs/cmd/internal/version"
	"github.com/sregfs/sregfs/fsys/fusefs"
)

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the mount, the remotes, the cache and the uploads",
		Long: `Show how things stand. No registry is asked.

A mount that was told to stop while files are open gives all else to the next one and
serves them until they are closed: its process, and who has which file open, is shown
below.

With -o json: {version, pid, mount, details, remotes, cache, uploads, pushes, spool, refusals, retired, dead};
there is no mount if none is running, retired are those processes, and dead the mount points
that a process has left without unmounting.`,
		Args: needArgs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := a.options()
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(c *control.Client) error {
				st, err := c.Status(cmd.Context())
				if err != nil {
					return err
				}
				retired, err := statedir.AllRetired(a.state)
				if err != nil {
					return fmt.Errorf("state directory: %w", err)
				}
				dead := fusefs.Dead(cmd.Context())
				if a.format == asJSON {
					return a.printJSON(statusRecord{st, retired, dead})
				}
				if err := printStatus(a.out, st, dead, o.StateNotes); err != nil {
					return err
				}
				return printRetired(a.out, retired)
			})
		},
	}
}

// A statusRecord is the status of the running mount, with what other processes have left.
type statusRecord struct {
	verbs.Status
	Retired []statedir.Retired `json:"retired,omitempty"`
	Dead    []string           `json:"dead,omitempty"`
}

func printStatus(w io.Writer, st verbs.Status, dead, notes []string) error {
	t := newTable(w)
	if st.Mount != "" {
		t.row("mount", st.Mount+" (pid "+strconv.Itoa(st.PID)+", "+st.Version+")")
	} else {
		t.row("mount", "none is running")
	}
	for _, at := range dead {
		t.row("dead", fmt.Sprintf("%[1]s: its process is gone: `sregfs %[1]s` takes it over, `fusermount3 -uz %[1]s` removes it", at))
	}
	printDetails(t, st.Details)
	for _, note := range notes {
		t.row("state", note)
	}
	limit := ""
	if st.Cache.Limit > 0 {
		limit = " of " + size(st.Cache.Limit)
	}
	t.row("cache", fmt.Sprintf("%s%s in %s", size(st.Cache.Used), limit, st.Cache.Dir))
	if st.Cache.Warning != "" {
		t.row("warning", st.Cache.Warning)
	}
	for _, dir := range st.Cache.Shared {
		t.row("shared", describeShared(dir))
	}
	t.row("images", fmt.Sprintf("%d whole, %d in part, %d pinned", st.Cache.Whole, st.Cache.Partial, st.Cache.Pinned))
	if n := len(st.Uploads); n > 0 {
		t.row("uploads", fmt.Sprintf("%s in %s: %s", size(st.Spool.Used), st.Spool.Dir, states(st.Uploads)))
	}
	if err := t.flush(); err != nil {
		return err
	}
	if err := printBusy(w, st.Cache); err != nil {
		return err
	}
	if err := printPushes(w, st.Pushes); err != nil {
		return err
	}
	if err := printRefusals(w, st.Refusals); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := printRemotes(w, st.Remotes); err != nil || len(st.Uploads) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return printTable(w, allOf(st.Uploads), uploadColumns()...)
}

// describeShared says whether images are read from a directory of cache_shared. Such a
// directory may appear later: the cache looks for it at each open.
func describeShared(dir string) string {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err == nil {
		return "whole images are read from " + dir
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return fmt.Sprintf("nothing is read from %s: %v", dir, err)
}

// printRetired prints the processes that were stopped and still serve open files.
func printRetired(w io.Writer, all []statedir.Retired) error {
	for _, p := range all {
		fmt.Fprintln(w)
		if _, err := fmt.Fprintf(w, "pid %d (%s) was stopped and serves what is open of its mount at %s until that is closed, or %s\n",
			p.PID, backends.Printable(p.Version), backends.Printable(p.Mount), moment(p.Ends)); err != nil {
			return err
		}
		t := newTable(w, "OPEN", "PID", "PROGRAM")
		for _, f := range p.Open {
			pid := ""
			if f.PID != 0 {
				pid = strconv.Itoa(f.PID)
			}
			t.row(f.Name, pid, f.Program)
		}
		if p.More > 0 {
			t.row(fmt.Sprintf("%d more", p.More))
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	return nil
}

// printRefusals prints the changes that the mount has refused.
func printRefusals(w io.Writer, refusals []verbs.Refusal) error {
	if len(refusals) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w, "REFUSED", "TIMES", "OPERATION", "FILE", "WHY")
	for _, r := range refusals {
		t.row(moment(r.Time), strconv.Itoa(r.Count), r.Op, r.Path, r.Error)
	}
	return t.flush()
}

// states counts the uploads of each state.
func states(uploads []spool.Info) string {
	n := map[string]int{}
	for _, d := range uploads {
		n[string(d.State)]++
	}
	var all []string
	for _, state := range slices.Sorted(maps.Keys(n)) {
		all = append(all, strconv.Itoa(n[state])+" "+state)
	}
	return strings.Join(all, ", ")
}

// opensPrefix begins the details of a mount that count openings.
const opensPrefix = "opens_"

// printDetails prints the details of a mount, with the counts of openings in one row.
func printDetails(t *table, details map[string]string) {
	var opens []string
	for _, k := range slices.Sorted(maps.Keys(details)) {
		if kind, ok := strings.CutPrefix(k, opensPrefix); ok {
			opens = append(opens, details[k]+" "+kind)
			continue
		}
		t.row(strings.ReplaceAll(k, "_", "-"), details[k])
	}
	if len(opens) > 0 {
		t.row("opened", strings.Join(opens, ", "))
	}
}

// printBusy prints the fetches under way, and the images that are refused for now.
func printBusy(w io.Writer, st verbs.CacheStatus) error {
	if len(st.Transfers) > 0 {
		fmt.Fprintln(w)
		t := newTable(w, "FETCHED", "OF", "DONE", "REQUESTS", "IMAGE")
		for _, b := range st.Transfers {
			t.row(size(b.Have), size(b.Size), percent(b.Have, b.Size), strconv.Itoa(b.Requests), cachedName(b))
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	if len(st.Refused) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w, "REFUSED UNTIL", "IMAGE", "WHY")
	for _, b := range st.Refused {
		t.row(moment(b.Refused), cachedName(b), b.Error)
	}
	return t.flush()
}

// printPushes prints the progress of "sreg push" and "sreg add".
func printPushes(w io.Writer, pushes []verbs.Pushing) error {
	if len(pushes) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w, "PUSHED", "OF", "DONE", "TO", "FROM")
	for _, p := range pushes {
		t.row(size(p.Stored), size(p.Size), percent(p.Stored, p.Size), p.URI, p.Path)
	}
	return t.flush()
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
