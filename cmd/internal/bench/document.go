// SPDX-License-Identifier: Apache-2.0

package main

import (
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
	if err := os.WriteFile(filepath.Join(dir, "benchmarks.md"), []byte(b.page(m)), 0o644); err != nil {
		return err
	}
	return nil
}

// page returns the report as Markdown.
func (b *bench) page(m machine) string {
	var w strings.Builder
	fmt.Fprintf(&w, "# Benchmarks\n\n%s, %d × %s, %d GiB, %s, %s (%s). %s.\n",
		m.Date, m.CPUs, m.CPU, m.MemoryGiB, m.System, m.Kernel, m.Disk, strings.Join(m.Programs, ", "))
	for _, heading := range b.headings() {
		fmt.Fprintf(&w, "\n## %s\n\n", heading)
		w.WriteString("| what | who | median | min – max | ratio | target | |\n|---|---|---|---|---|---|---|\n")
		for _, r := range b.table(heading) {
			fmt.Fprintf(&w, "| %s |\n", strings.Join(b.cells(r), " | "))
		}
	}
	return w.String()
}
