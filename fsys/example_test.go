// SPDX-License-Identifier: Apache-2.0

package fsys_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dir"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/mem"
	"github.com/sregfs/sregfs/catalog/uploads"
	"github.com/sregfs/sregfs/fsys"
)

// The tree needs no mount: what package io/fs offers works on it.
func ExampleFS_IO() {
	ctx := context.Background()
	path, err := os.MkdirTemp("", "images")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(path)
	image, err := os.ReadFile("../catalog/inspect/testdata/small-gzip.simg")
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(path+"/team/greet", 0o755), os.WriteFile(path+"/team/greet/1.0.simg", image, 0o644)); err != nil {
		log.Fatal(err)
	}
	lab, err := dir.Open(ctx, backends.Env{Remote: "lab", Config: map[string]any{"path": path}})
	if err != nil {
		log.Fatal(err)
	}
	cat, err := catalog.New(catalog.Options{
		Remotes: []catalog.Remote{{Name: "lab", Type: "dir", Client: backends.NewClient("lab", lab, backends.ClientOptions{})}},
		State:   func() (*catalog.State, error) { return &catalog.State{Index: index.New(mem.New())}, nil }, // no cache: the images are here
	})
	if err != nil {
		log.Fatal(err)
	}
	defer cat.Close()

	root := fsys.New(cat, uploads.New(cat, nil), fsys.Options{}).IO(ctx)
	err = fs.WalkDir(root, ".", func(path string, _ fs.DirEntry, err error) error {
		fmt.Println(path)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	image, err = fs.ReadFile(root, "lab/team/greet:1.0.simg")
	fmt.Printf("%.4s, %d bytes, %v\n", image, len(image), err)
	// Output:
	// .
	// lab
	// lab/team
	// lab/team/greet:1.0.simg
	// hsqs, 8192 bytes, <nil>
}
