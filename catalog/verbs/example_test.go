// SPDX-License-Identifier: Apache-2.0

package verbs_test

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
	"github.com/sregfs/sregfs/catalog/uploads"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// Verbs take URIs, as the command line does. Here a file is pushed, found, and pulled.
func ExampleVerbs() {
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
		State:   func() (*catalog.State, error) { return &catalog.State{Index: index.New(mem.New())}, nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	v := verbs.New(c, uploads.New(c, nil), verbs.Options{Default: "lab"})

	if _, err := v.Push(ctx, "../inspect/testdata/small-gzip.simg", "lab://team/tool:1.0", verbs.PushOptions{}, nil); err != nil {
		log.Fatal(err)
	}
	for image, err := range v.Images(ctx, verbs.ImagesOptions{Query: "tool", Refresh: true}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(image.URI, image.Size)
	}
	to := filepath.Join(path, "tool.simg")
	if _, err := v.Pull(ctx, "team/tool:1.0", verbs.PullOptions{To: to}, nil); err != nil {
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
