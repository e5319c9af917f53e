// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// document writes benchmarks.md and benchmarks.svg into dir; "" writes nothing.
func (b *bench) document(dir string, m machine) error {
	if dir == "" {
		return nil
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "benchmarks.md"), []byte(b.page(m)), 0o644),
		os.WriteFile(filepath.Join(dir, "benchmarks.svg"), []byte(b.plot()), 0o644))
}

const pageHead = `# Benchmarks

<!-- Written by "make bench": do not edit. -->

What reading through a sregfs mount costs and brings, against the native file, ` + "`rclone mount`" + ` and ` + "`curl`" + `, on one machine in one
run. Each figure is the median of %d runs in which the subjects take turns; the spread is from the lowest to the highest run. A ratio
is of the medians. The targets were set before the measurements; what misses them is marked.

| | |
|---|---|
| machine | %d × %s, %d GiB |
| system | %s, %s, %s |
| programs | %s |
| when | %s |

![Each figure as a share of its target](benchmarks.svg)

`

const pageFoot = `
## How it is measured

- **Subjects.** *native* is the file itself, with its pages in memory. *sregfs* is run by root, so that the kernel reads cached images
  directly (FUSE passthrough). *sregfs, page cache* is the same with ` + "`--passthrough=off`" + `. *sregfs of another user* is run by
  ` + "`nobody`" + ` without any privilege: no passthrough, and the kernel's read-ahead as it is. *sregfs, another user reads* is root's mount with
  ` + "`--allow-other`" + `, read by ` + "`nobody`" + `. *rclone* is ` + "`rclone mount --vfs-cache-mode full`" + `.
- **Warm** reads find all bytes in the machine's memory. For a *first read* the mount's own pages are dropped before each run
  (` + "`posix_fadvise`" + `), while those of the file behind it stay. The reader is a process of its own; starting it is not measured.
- **Cold** reads come from a registry in the bench's own process, over a link with a settable round-trip time and rate for each
  connection, the same for all subjects. Bytes and requests are counted there. TCP's slow start and loss are not modelled.
- **Directories** are read as ls does (getdents64 with 32 KiB), without printing; "with attributes" is what ` + "`ls -l`" + ` asks for.
- Nothing else should run on the machine; run to run, figures of a shared one differ by a tenth and more.

## How to repeat it

` + "```" + `
$ make bench                                        # everything; needs root for passthrough and the other user
$ .ci/bench .build -suite warm,names -runs 9        # some of it; prints tables, leaves this page as it is
$ .ci/bench .build -from .build/bench.json -docs docs   # this page again, from the last results
` + "```" + `
`

// page returns the report as Markdown.
func (b *bench) page(m machine) string {
	var w strings.Builder
	fmt.Fprintf(&w, pageHead, b.runs, m.CPUs, m.CPU, m.MemoryGiB, m.System, m.Kernel, m.Disk, strings.Join(m.Programs, ", "), m.Date)
	b.writeSummary(&w)
	for _, heading := range b.headings() {
		b.writeTable(&w, heading)
	}
	w.WriteString(pageFoot)
	return w.String()
}

// writeSummary says what was missed, by how much.
func (b *bench) writeSummary(w *strings.Builder) {
	missed := b.missed()
	fmt.Fprintf(w, "%d of %d targets are met.", b.judged()-len(missed), b.judged())
	if len(missed) == 0 {
		w.WriteString("\n")
		return
	}
	w.WriteString(" These are missed:\n\n| table | what | who | reached | target |\n|---|---|---|---|---|\n")
	for _, r := range missed {
		reached := figure(r.median()) + " " + r.unit
		if ratio, ok := b.ratio(r); ok {
			reached = figure(ratio) + " of " + r.base
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join([]string{r.suite, r.name, r.subject, reached, r.target}, " | "))
	}
}

func (b *bench) writeTable(w *strings.Builder, heading string) {
	fmt.Fprintf(w, "\n## %s\n\n", heading)
	if rows := b.table(heading); len(rows) > 0 {
		w.WriteString("| what | who | median | lowest – highest | ratio | target | |\n|---|---|--:|--:|--:|---|---|\n")
		last := ""
		for _, r := range rows {
			cells := b.cells(r)
			if r.name == last {
				cells[0] = ""
			}
			last = r.name
			if v := cells[len(cells)-1]; v == "MISSED" {
				cells[len(cells)-1] = "**missed**"
			}
			fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
		}
	}
	for _, n := range b.notes {
		if n.Suite == heading {
			fmt.Fprintf(w, "\n%s\n", n.Text)
		}
	}
}
