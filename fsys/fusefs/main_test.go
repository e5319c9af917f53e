// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// children are what the test binary does when a test starts it again: what a
// program must not do with its own mount, or not survive.
var children = map[string]func(args []string) error{
	"mmap":  childMmap,
	"run":   childRun,
	"mount": childMount,
	"copy":  childCopy,
	"calls": childCalls,
	"stat":  childStat,
	"open":  childOpen,

	"getcwd":  childGetcwd,
	"seekdir": childSeekdir,

	"rewrite": childRewrite,
	"same":    childSame,

	"semantics": childSemantics,
}

func TestMain(m *testing.M) {
	if child := children[os.Getenv("FUSEFS_TEST_CHILD")]; child != nil {
		if err := child(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
