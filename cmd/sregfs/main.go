// SPDX-License-Identifier: Apache-2.0

// Command sregfs mounts container image registries as directories: see
// "sregfs --help" and package cmd/internal/sregfs.
package main

import (
	"os"

	"github.com/sregfs/sregfs/cmd/internal/sregfs"
)

func main() { os.Exit(sregfs.Main()) }
