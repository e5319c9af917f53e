// SPDX-License-Identifier: Apache-2.0

// Command manual writes man pages, completions and units; the Makefile runs it.
package main

import (
	"os"

	"github.com/sregfs/sregfs/cmd/internal/manual"
)

func main() { os.Exit(manual.Main(os.Args[1:])) }
