// SPDX-License-Identifier: Apache-2.0

package backends_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dir"
)

// A backend is opened with its part of the configuration, and used through a Client,
// which checks names, tries again and says what was being done. Here an image is pushed
// into a directory, listed, and read in part.
func ExampleClient() {
	ctx := context.Background()
	path, err := os.MkdirTemp("", "images")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(path)
	b, err := dir.Open(ctx, backends.Env{Remote: "lab", Config: map[string]any{"path": path}})
	if err != nil {
		log.Fatal(err)
	}
	c := backends.NewClient("lab", b, backends.ClientOptions{})
	defer c.Close()

	content := []byte("hsqs is how an image begins")
	ref := backends.Ref{Collection: "team", Name: "tool", Tag: "1.0"}
	img, err := c.Push(ctx, ref, backends.Source{
		Content: bytes.NewReader(content), Size: int64(len(content)), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(content)), Format: "simg",
	})
	if err != nil {
		log.Fatal(err)
	}
	for entry, err := range c.List(ctx, "team") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(entry.Image.Ref, entry.Image.Size)
	}
	body, err := c.Open(ctx, img, 15, 5)
	if err != nil {
		log.Fatal(err)
	}
	defer body.Close()
	part, err := io.ReadAll(body)
	fmt.Printf("%q %v\n", part, err)
	// Output:
	// team/tool:1.0 27
	// "image" <nil>
}
