// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dir"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/mem"
)

// The catalogue knows what is on which remote. Its verbs take URIs, as the command line
// does. Here a file is pushed, found, and pulled.
func ExampleCatalog() {
	ctx := context.Background()
	path, err := os.MkdirTemp("", "images")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(path)
	lab, err := dir.Open(ctx, backends.Env{Remote: "lab", Config: map[string]any{"path": filepath.Join(path, "lab")}})
	if err != nil {
		log.Fatal(err)
	}
	c, err := catalog.New(catalog.Options{
		Remotes: []catalog.Remote{{Name: "lab", Type: "dir", Client: backends.NewClient("lab", lab, backends.ClientOptions{})}},
		Default: "lab",
		State:   func() (*catalog.State, error) { return &catalog.State{Index: index.New(mem.New())}, nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close(ctx)

	if _, err := c.Push(ctx, "inspect/testdata/small-gzip.simg", "lab://team/tool:1.0", false, nil); err != nil {
		log.Fatal(err)
	}
	for image, err := range c.Images(ctx, "tool", "", true) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(image.URI, image.Size)
	}
	to := filepath.Join(path, "tool.simg")
	if _, err := c.Pull(ctx, "team/tool:1.0", to, false, nil); err != nil {
		log.Fatal(err)
	}
	info, err := os.Stat(to)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Size())
	// Output:
	// lab://team/tool:1.0 8192
	// 8192
}
