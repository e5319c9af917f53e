// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dropbox/dropboxtest"
)

// The server that all other tests trust is what Dropbox's own library takes for
// Dropbox (Debian: python3-dropbox), and both it and the backend read what the
// other one stores.
func TestOfficialLibrary(t *testing.T) {
	t.Parallel()
	python := ""
	for _, p := range []string{"/usr/bin/python3", "python3"} {
		if exec.CommandContext(t.Context(), p, "-c", "import dropbox").Run() == nil {
			python = p
			break
		}
	}
	if python == "" {
		if os.Getenv("SREGFS_NOSKIP") == "1" {
			t.Fatal("python3-dropbox is not installed")
		}
		t.Skip("python3-dropbox is not installed")
	}
	srv := dropboxtest.Start(t, dropboxtest.Options{TLS: true, PageSize: 3})
	hc := srv.HTTP.Client()
	b, err := Open(t.Context(), backends.Env{Remote: "box", HTTP: hc, Secret: token, Config: map[string]any{"url": srv.URL}})
	if err != nil {
		t.Fatal(err)
	}
	c := b.(*client)
	if _, err := c.Push(t.Context(), mustRef(t, "vsoch/hello:1.0"), source([]byte("pushed by sregfs"))); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.HTTP.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/official.py", strings.TrimPrefix(srv.URL, "https://"), ca)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "checked\n") {
		t.Fatalf("%v\n%s", err, out)
	}
	wantBytes(t, c, mustRef(t, "vsoch/small:1.0"), []byte("pushed by sregistry"))
	want := []string{"größe/bild:0", "größe/bild:1", "größe/bild:2", "größe/bild:4", "größe/bild:5", "größe/bild:6"}
	if diff := cmp.Diff(want, listed(t, c, "größe")); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
}
