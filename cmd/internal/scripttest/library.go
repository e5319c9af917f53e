// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sregfs/sregfs/backends/library/librarytest"
)

// startLibrary starts a library that keeps the bytes itself, with a signed image of
// somebody else's in it.
func (s *script) startLibrary(ts *testscript.TestScript, _ bool, _ []string) {
	content, err := os.ReadFile(s.image)
	ts.Check(err)
	s.library = librarytest.Start(s.t, librarytest.Options{})
	s.library.Add(librarytest.Image{
		Entity: "library", Collection: "default", Container: "alpine", Tag: "3.20", Content: content,
		Created: time.Date(2024, 2, 29, 12, 30, 0, 0, time.UTC), Description: "A small one",
		Signers: []string{"C2B63E1FB61B32F3824D92A28E579F16529A6228"},
	})
	ts.Setenv("LIBRARY", s.library.URL)
	ts.Setenv("LIBRARY_TOKEN", librarytest.Token)
}
