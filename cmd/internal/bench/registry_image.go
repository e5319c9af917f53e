// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.sylabs.sif.config.v1+json"
	layerType    = "application/vnd.sylabs.sif.layer.v1.sif"
)

// published is when all images were.
var published = time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC)

// An image is a file with the manifest that Apptainer and ORAS write for it.
type image struct {
	repo, tag string
	path      string
	size      int64
	digest    string // of the file
	manifest  []byte
	version   string // digest of the manifest
}

// newImage makes an image of the file at path.
func newImage(repo, tag, path string) (*image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	if err != nil {
		return nil, err
	}
	m := &image{repo: repo, tag: tag, path: path, size: size, digest: "sha256:" + hex.EncodeToString(h.Sum(nil))}
	m.manifest, err = json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     manifestType,
		"config":        map[string]any{"mediaType": configType, "digest": sha256Of([]byte("{}")), "size": 2},
		"layers": []any{map[string]any{
			"mediaType": layerType, "digest": m.digest, "size": size,
			"annotations": map[string]string{"org.opencontainers.image.title": filepath.Base(repo) + "_" + tag + ".sif"},
		}},
	})
	m.version = sha256Of(m.manifest)
	return m, err
}

func sha256Of(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// randomImage writes size bytes that do not compress, the same for the same
// seed, and makes an image of them.
func randomImage(dir, repo, tag string, size int64, seed byte) (_ *image, err error) {
	f, err := os.CreateTemp(dir, "image-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{seed}), size); err != nil {
		return nil, err
	}
	return newImage(repo, tag, f.Name())
}
