// SPDX-License-Identifier: Apache-2.0

// Package doctor looks at the machine for what keeps sregfs from working: FUSE, Apptainer,
// disks, other programs. It changes nothing. What is about registries, logins and the
// configuration "sreg doctor" looks at itself.
//
// [Machine.Check] runs all checks; each is a function with its own test.
package doctor

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A Result is how a check went.
type Result string

// The results. A machine with a Warn works, with less than it could have; with a Fail
// something does not work.
const (
	OK   Result = "ok"
	Warn Result = "warn"
	Fail Result = "fail"
)

// A Finding is one line of the report.
type Finding struct {
	Check  string `json:"check"`
	Result Result `json:"result"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"` // what to do; "" if the result is OK
}

// A Machine is what is looked at. Root, UID and LookPath are others in tests.
type Machine struct {
	Root       string // "/"
	UID        int    // of the user who runs the programs
	LookPath   func(string) (string, error)
	AllowOther bool   // the configuration lets other users see the mount
	State      string // state directory; "" if there is none
	Cache      string // cache directory; "" if there is none
	Storage    string // images of "local"
	MinFree    int64  // bytes to leave free on the disk of the cache
	Mount      string // where a mount runs; "" if none does
}

// New returns this machine.
func New(root string) Machine { return Machine{Root: root, UID: os.Getuid(), LookPath: exec.LookPath} }

// Check runs all checks of the machine.
func (m Machine) Check(ctx context.Context) []Finding {
	all := []Finding{m.device(), m.helper(), m.otherUsers(), m.passthrough(), m.index()}
	all = append(all, m.deadMounts(ctx)...)
	all = append(all, m.apptainer(ctx)...)
	all = append(all, m.disks()...)
	return append(all, m.locate())
}

func ok(check, detail string) Finding { return Finding{Check: check, Result: OK, Detail: detail} }

func warn(check, detail, remedy string) Finding { return Finding{check, Warn, detail, remedy} }

func fail(check, detail, remedy string) Finding { return Finding{check, Fail, detail, remedy} }

// path is a file of the machine.
func (m Machine) path(name string) string { return filepath.Join(m.Root, name) }

// read returns a file of the machine, "" if there is none to be read.
func (m Machine) read(name string) string {
	text, err := os.ReadFile(m.path(name))
	if err != nil {
		return ""
	}
	return string(text)
}

// runTime bounds how long another program is waited for.
const runTime = 5 * time.Second

// run returns what another program prints, "" if it fails.
func run(ctx context.Context, program string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// lines yields the lines of a configuration file without comments and spaces around.
func lines(text string) (all []string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}
