// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sregfs/sregfs/backends/dir/clientdb/clientdbtest"
)

// clientDB makes a database and a store as a version of the sregistry client left them,
// and has the script use both.
func clientDB(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: client-db VERSION [URL]")
	}
	image, err := os.ReadFile(ts.Getenv("IMAGE"))
	ts.Check(err)
	url := ""
	if len(args) == 2 {
		url = args[1]
	}
	root := ts.MkAbs("client-" + args[0])
	_, err = clientdbtest.Make(args[0], root, url, image)
	ts.Check(err)
	ts.Setenv("SREGISTRY_DATABASE", root+"/db")
	ts.Setenv("SREGISTRY_STORAGE", root+"/store")
	ts.Setenv("CLIENT", root)
}
