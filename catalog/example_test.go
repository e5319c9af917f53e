// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dir"
	"github.com/sregfs/sregfs/catalog"
)

// The catalogue knows what is on which remote. Here a remote is a directory of this machine.
func ExampleCatalog() {
	ctx := context.Background()
	path, err := os.MkdirTemp("", "images")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(path)
	image, err := os.ReadFile("inspect/testdata/small-gzip.simg")
	if err != nil {
		log.Fatal(err)
	}
	team := filepath.Join(path, "team", "tool")
	if err := errors.Join(os.MkdirAll(team, 0o755), os.WriteFile(filepath.Join(team, "1.0.simg"), image, 0o644)); err != nil {
		log.Fatal(err)
	}
	lab, err := dir.Open(ctx, backends.Env{Remote: "lab", Config: map[string]any{"path": path}})
	if err != nil {
		log.Fatal(err)
	}
	c, err := catalog.New(catalog.Options{
		Remotes: []catalog.Remote{{Name: "lab", Type: "dir", Client: backends.NewClient("lab", lab, backends.ClientOptions{})}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	for entry, err := range c.List(ctx, "lab", "team") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(entry.Image.Ref)
	}
	found, err := c.Lookup(ctx, "lab", backends.Ref{Collection: "team", Name: "tool", Tag: "1.0"})
	fmt.Println(found.Size, found.Format, err)
	// Output:
	// team/tool:1.0
	// 8192 simg <nil>
}
