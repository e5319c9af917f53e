// SPDX-License-Identifier: Apache-2.0

package http_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/http/webtest"
)

// put writes the images of seed into a folder of the server, with a SHA256SUMS in
// each folder below it if sums is set.
func put(srv *webtest.Server, folder string, seed backendtest.Seed, sums bool) {
	if err := os.MkdirAll(filepath.Join(srv.Root, folder), 0o755); err != nil {
		panic(err)
	}
	lists := map[string]string{}
	for _, img := range seed.Images {
		dir, base := folder, backends.EscapePart(img.Ref.Name)+":"+backends.EscapePart(img.Ref.Tag)+backends.Ext(img.Format)
		if img.Ref.Collection != "" {
			dir = path.Join(folder, backends.EscapePath(img.Ref.Collection))
		}
		srv.Put(path.Join(dir, base), img.Content, img.Modified)
		lists[dir] += sumLine(base, img.Content)
	}
	for dir, text := range lists {
		if sums {
			srv.Put(path.Join(dir, "SHA256SUMS"), []byte(text), time.Now())
		}
	}
}

// sumLine is a line of sha256sum.
func sumLine(base string, content []byte) string {
	escape := ""
	if plain := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(base); plain != base {
		escape, base = `\`, plain
	}
	return fmt.Sprintf("%s%x  %s\n", escape, sha256.Sum256(content), base)
}
