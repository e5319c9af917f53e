// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends/s3/s3test"
)

// need skips a test where a command fails that shows that a program is there.
func need(t *testing.T, what string, command ...string) {
	t.Helper()
	if exec.CommandContext(t.Context(), command[0], command[1:]...).Run() == nil { //nolint:gosec // of this file
		return
	}
	if os.Getenv("SREGFS_NOSKIP") == "1" {
		t.Fatalf("%s is not installed and SREGFS_NOSKIP=1 allows no skip", what)
	}
	t.Skipf("%s is not installed", what)
}

// sregistry, which is boto3 (Debian: python3-boto3), and we read what the other one stores.
func TestSregistry(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3"
	need(t, "python3-boto3", python, "-c", "import boto3")
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, false)
	c := open(t, srv, bucket)
	for i, size := range []int{1000, 17 << 20} {
		if _, err := c.Push(t.Context(), parse(t, fmt.Sprintf("vsoch/hello:%d", i+1)), source(random(size))); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/sregistry.py", srv.URL, bucket, s3test.AccessKey, s3test.SecretKey, t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "checked\n") {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := names(t, c, "vsoch"); !slices.Equal(got, []string{"vsoch/hello:1", "vsoch/hello:2", "vsoch/large:1.0", "vsoch/small:1.0"}) {
		t.Errorf("listed: %q", got)
	}
	for name, size := range map[string]int{"small": 1000, "large": 20 << 20} {
		img, err := c.Stat(t.Context(), parse(t, "vsoch/"+name+":1.0"))
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, c, img); len(got) != size+19 || !bytes.HasPrefix(got, []byte("pushed by sregistry")) {
			t.Errorf("%s: %d bytes", name, len(got))
		}
		if now, err := c.Push(t.Context(), img.Ref, source(append([]byte("pushed by sregistry"), make([]byte, size)...))); err != nil || now.Version != img.Version {
			t.Errorf("the same bytes again: %+v, %v", now, err)
		}
	}
}

// rclone reads and writes the bucket at the same time.
func TestRclone(t *testing.T) {
	t.Parallel()
	need(t, "rclone", "rclone", "version")
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, false)
	c := open(t, srv, bucket)
	folder := t.TempDir()
	rclone := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "rclone", append([]string{"--config", os.DevNull}, args...)...)
		cmd.Env = append(os.Environ(), "AWS_CA_BUNDLE=", "RCLONE_CONFIG_LAB_TYPE=s3", "RCLONE_CONFIG_LAB_PROVIDER=Other", "RCLONE_CONFIG_LAB_ENDPOINT="+srv.URL,
			"RCLONE_CONFIG_LAB_ACCESS_KEY_ID="+s3test.AccessKey, "RCLONE_CONFIG_LAB_SECRET_ACCESS_KEY="+s3test.SecretKey, "RCLONE_CONFIG_LAB_REGION="+s3test.Region)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("rclone %q: %v\n%s", args, err, out)
		}
	}
	all := map[string][]byte{"small:1": random(5000), "large:1": random(11 << 20)}
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(folder, name+".sif"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rclone("copy", folder, "lab:"+bucket+"/theirs")
	if got := names(t, c, "theirs"); !slices.Equal(got, []string{"theirs/large:1", "theirs/small:1"}) {
		t.Errorf("listed: %q", got)
	}
	for name, text := range all {
		img, err := c.Stat(t.Context(), parse(t, "theirs/"+name))
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, c, img); !bytes.Equal(got, text) {
			t.Errorf("%s: %d other bytes", name, len(got))
		}
		if _, err := c.Push(t.Context(), parse(t, "ours/"+name), source(text)); err != nil {
			t.Fatal(err)
		}
	}
	rclone("check", "--download", folder, "lab:"+bucket+"/ours")
}
