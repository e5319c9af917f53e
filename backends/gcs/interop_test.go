// SPDX-License-Identifier: Apache-2.0

package gcs

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/gcs/gcstest"
)

// rclone, which uses Google's own client, reads and writes the bucket at the same time, and
// finds nothing in the server that Google's would not do.
func TestRclone(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("rclone"); err != nil {
		if os.Getenv("SREGFS_NOSKIP") == "1" {
			t.Fatal("rclone is not installed and SREGFS_NOSKIP=1 allows no skip")
		}
		t.Skip("rclone is not installed")
	}
	srv, c := serve(t, gcstest.Options{}, nil)
	folder := t.TempDir()
	account := string(srv.Account())
	rclone := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "rclone", append([]string{"--config", os.DevNull, "--retries", "1"}, args...)...)
		cmd.Env = append(os.Environ(), "RCLONE_CONFIG_LAB_TYPE=google cloud storage", "RCLONE_CONFIG_LAB_ENDPOINT="+srv.URL+"/storage/v1/",
			"RCLONE_CONFIG_LAB_SERVICE_ACCOUNT_CREDENTIALS="+account, "RCLONE_CONFIG_LAB_NO_CHECK_BUCKET=true")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("rclone %q: %v\n%s", args, err, out)
		}
	}
	sessions(c)
	all := map[string][]byte{}
	for name, size := range map[string]int{"small:1": 900, "large:1": 17<<20 + 5} { // rclone uses sessions from 16 MiB
		text := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(text)
		file := filepath.Join(folder, name+".sif")
		all[name] = text
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, noon, noon); err != nil {
			t.Fatal(err)
		}
	}
	rclone("copy", folder, "lab:"+gcstest.Bucket+"/theirs")
	var names []string
	for e, err := range c.List(t.Context(), "theirs") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, e.Image.Ref.String())
		if !e.Image.Modified.Equal(noon) {
			t.Errorf("%s is of %v", e.Image.Ref, e.Image.Modified)
		}
	}
	if slices.Sort(names); !slices.Equal(names, []string{"theirs/large:1", "theirs/small:1"}) {
		t.Errorf("listed: %q", names)
	}
	for name, text := range all {
		img, err := c.Stat(t.Context(), mustRef(t, "theirs/"+name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(t, c, img); err != nil || !bytes.Equal([]byte(got), text) {
			t.Errorf("%s: %d other bytes, %v", name, len(got), err)
		}
		src := source(text)
		src.Replaces = backends.ReplaceAny
		if _, err := c.Push(t.Context(), mustRef(t, "ours/"+name), src); err != nil {
			t.Fatal(err)
		}
	}
	rclone("check", "--download", folder, "lab:"+gcstest.Bucket+"/ours")
	before := srv.Count("storage.objects.insert")
	rclone("copy", folder, "lab:"+gcstest.Bucket+"/ours") // the sizes and times are the same
	if n := srv.Count("storage.objects.insert") - before; n != 0 {
		t.Errorf("rclone copied %d files again", n)
	}
}
