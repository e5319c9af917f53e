// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command bench is the benchmark; .ci/bench builds it.
package main

import "github.com/sregfs/sregfs/cmd/internal/bench"

func main() { bench.Main() }
