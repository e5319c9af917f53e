// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/sregfs/sregfs/backends"
	web "github.com/sregfs/sregfs/backends/http"
	"github.com/sregfs/sregfs/cache"
)

// An image comes in as far as it is read, by ranges, and is whole and verified in the
// end. Here its server is a folder with one file.
func ExampleCache_Blob() {
	ctx := context.Background()
	folder := httptest.NewServer(http.FileServer(http.Dir("../catalog/inspect/testdata")))
	defer folder.Close()
	dir, err := os.MkdirTemp("", "cache")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	c, err := cache.Open(dir, cache.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	b, err := web.Open(ctx, backends.Env{Remote: "lab", HTTP: backends.NewHTTPClient(backends.HTTPOptions{}), Config: map[string]any{"url": folder.URL}})
	if err != nil {
		log.Fatal(err)
	}
	client := backends.NewClient("lab", b, backends.ClientOptions{})
	defer client.Close()
	img, err := client.Stat(ctx, backends.Ref{Name: "small-gzip", Tag: backends.DefaultTag})
	if err != nil {
		log.Fatal(err)
	}
	blob, err := c.Blob(ctx, client, img)
	if err != nil {
		log.Fatal(err)
	}
	defer blob.Close()
	head := make([]byte, 4)
	if _, err := blob.ReadAtContext(ctx, head, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s of %d bytes\n", head, blob.Size())
	fmt.Println(blob.Wait(ctx, nil), blob.State())
	// Output:
	// hsqs of 8192 bytes
	// <nil> cached
}
