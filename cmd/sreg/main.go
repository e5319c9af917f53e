// SPDX-License-Identifier: Apache-2.0

// Command sreg works with container images on every configured registry: see
// "sreg --help" and package cmd/internal/sreg.
package main

import (
	"os"

	"github.com/sregfs/sregfs/cmd/internal/sreg"
)

func main() { os.Exit(sreg.Main()) }
