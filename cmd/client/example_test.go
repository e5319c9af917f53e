// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/client"
)

// An image is added and the catalogue listed, with a configuration of its own. A program for
// its user says client.Options{} instead.
func Example() {
	home, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(home)
	image, err := filepath.Abs("../../catalog/inspect/testdata/greet-signed.sif")
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	c, err := client.Open(ctx, client.Options{Getenv: func(name string) string { return map[string]string{"HOME": home}[name] }})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.Add(ctx, image, "vsoch/greet:1.0", verbs.AddOptions{}, nil); err != nil {
		log.Fatal(err)
	}
	for r, err := range c.Images(ctx, verbs.ImagesOptions{Query: "greet"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(r.URI, r.State, r.Size > 0)
	}
	// Output:
	// local://vsoch/greet:1.0 cached true
}
