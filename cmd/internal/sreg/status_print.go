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

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
)

func (a *app) printStatus(st verbs.Status, dead, notes []string) error {
	w := a.out
	if err := printUnderWay(w, st); err != nil {
		return err
	}
	if err := printTable(a, allOf(st.Remotes), remoteColumns()); err != nil {
		return err
	}
	fmt.Fprintln(w)
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
	for _, run := range st.Runs {
		t.row("run", fmt.Sprintf("%s has pinned %s since %s", run.Name, plural(len(run.Images), "name"), moment(run.Since)))
	}
	if err := t.flush(); err != nil {
		return err
	}
	if err := a.printWaiting(st.Uploads); err != nil {
		return err
	}
	return a.printRefused(st)
}

// printWaiting prints the uploads that wait, and why.
func (a *app) printWaiting(uploads []spool.Info) error {
	if len(uploads) == 0 {
		return nil
	}
	fmt.Fprintln(a.out)
	return printTable(a, allOf(uploads), uploadColumns(uploads))
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

// printUnderWay prints what is being transferred: by those who read in the mount or pull, by
// those who push, and what was copied into the mount and is on its way.
func printUnderWay(w io.Writer, st verbs.Status) error {
	t := newTable(w, "NOW", "DONE", "OF", "%", "IMAGE", "BY")
	n := 0
	row := func(now string, done, of int64, image, by string) {
		n++
		t.row(now, size(done), size(of), percent(done, of), image, by)
	}
	for _, b := range st.Cache.Transfers {
		row("fetching", b.Have, b.Size, cachedName(b), plural(b.Requests, "request"))
	}
	for _, p := range st.Pushes {
		row("pushing", p.Stored, p.Size, p.URI, "sreg, from "+p.Path)
	}
	for _, d := range st.Uploads {
		if d.State == spool.Publishing {
			row("pushing", d.Stored, d.Size, destination(d.Target), "the mount")
		}
	}
	if n == 0 {
		fmt.Fprintln(w, "nothing is under way")
	} else if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// printRefused prints the images that are refused for now, and the changes that the mount
// has refused.
func (a *app) printRefused(st verbs.Status) error {
	if len(st.Cache.Refused) > 0 {
		fmt.Fprintln(a.out)
		if err := printTable(a, allOf(st.Cache.Refused), []column[verbs.Cached]{
			{"REFUSED UNTIL", func(b verbs.Cached) string { return moment(b.Refused) }, nil},
			{"IMAGE", cachedName, nil},
			{"WHY", func(b verbs.Cached) string { return exit.Plain(b.Error) }, nil},
		}); err != nil {
			return err
		}
	}
	if len(st.Refusals) == 0 {
		return nil
	}
	fmt.Fprintln(a.out)
	type refusal = verbs.Refusal
	return printTable(a, allOf(st.Refusals), []column[refusal]{
		{"REFUSED", func(r refusal) string { return moment(r.Time) }, func(r refusal) any { return r.Time }},
		{"TIMES", func(r refusal) string { return strconv.Itoa(r.Count) }, nil},
		{"OPERATION", func(r refusal) string { return r.Op }, nil},
		{"FILE", func(r refusal) string { return r.Path }, nil},
		{"WHY", func(r refusal) string { return exit.Plain(r.Error) }, nil},
	})
}
