// SPDX-License-Identifier: Apache-2.0

// Package buildtest builds sregfs and sreg for tests that run them as programs.
package buildtest

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	// What the programs are made of, so that go test does not take the results of
	// older ones from its cache.
	_ "github.com/sregfs/sregfs/cmd/internal/sreg"
	_ "github.com/sregfs/sregfs/cmd/internal/sregfs"
)

// Run builds both programs, sets dir to the folder that has them, runs the tests and
// removes the folder. The result is for os.Exit. It is called in a folder beside this one.
func Run(m *testing.M, dir *string) int {
	var err error
	if *dir, err = os.MkdirTemp("", "sregfs-buildtest-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(*dir) //nolint:errcheck // what is left of a test is no failure of it
	build := exec.Command("go", "build", "-o", *dir+"/", "../../sregfs", "../../sreg")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
