// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const caps = backends.CanList | backends.CanSearch | backends.CanPush | backends.CanDelete | backends.CanOpenFile | backends.CanMove |
	backends.CanCopy | backends.CanTag | backends.CanListVersions

func TestConformance(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, backendtest.Harness{Caps: caps, Local: true, KeepsTime: true, KeepsFormat: true, Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
		root := t.TempDir()
		for _, img := range seed.Images {
			write(t, root, layout(img.Ref, sum(img.Content), extension(img.Format)), img.Content, img.Modified)
		}
		return backendtest.Open(t, Open, hc, map[string]any{"path": root})
	}})
}

// The same images where sregistry wrote no version, or an old one.
func TestConformance_unversioned(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, backendtest.Harness{Caps: caps, Local: true, KeepsTime: true, KeepsFormat: true, Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
		root := t.TempDir()
		for _, img := range seed.Images {
			path := layout(img.Ref, "", extension(img.Format))
			ext := extension(img.Format)
			write(t, root, path[:len(path)-len("@"+ext)]+ext, img.Content, img.Modified)
		}
		return backendtest.Open(t, Open, hc, map[string]any{"path": root})
	}})
}

func write(t *testing.T, root, path string, content []byte, modified time.Time) {
	t.Helper()
	path = filepath.Join(root, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	if !modified.IsZero() {
		if err := os.Chtimes(path, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
}

func sum(text []byte) string {
	s := sha256.Sum256(text)
	return hex.EncodeToString(s[:])
}
