// SPDX-License-Identifier: Apache-2.0

// Package archive lays out a container image as one file: an OCI image layout
// (image-spec, image-layout.md) in a tar, as "oci-archive:" of Singularity,
// Podman and skopeo read it.
//
// The layout follows from the image's manifest alone: it says how long each
// blob is, so that the size of the file and what stands at which offset are
// known before a byte of a layer is. A service that keeps the blobs apart can
// give any range of the file, and nothing has to be stored or converted.
//
//	blobs/, blobs/sha256/     for readers that make no directory of their own
//	blobs/sha256/<manifest>   first, so that a reader knows the rest from it
//	blobs/sha512/             if one of the blobs is named so
//	blobs/sha256/<config>     then, so that the head of the file tells all facts
//	index.json, oci-layout
//	blobs/sha256/<layer> …    each once, in the order of the manifest
//
// Same manifest, same bytes: that is what [Archive.Digest] and [NewHash] rely
// on. Another layout therefore needs another [Algorithm]: what is in caches was laid
// out by the old one, and does not fit what comes.
//
// It converts nothing, reads no registry and unpacks no layer. Start at [New].
package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	_ "crypto/sha512" // for go-digest
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sregfs/sregfs/backends"
)

// MaxManifest is the size in bytes above which no manifest is taken for one
// (that of most registries, and of httpx.MaxMetadata).
const MaxManifest = 4 << 20

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	block          = 512 // of a tar
)

// Algorithm is what Archive.Digest begins with. The layout that was called
// "oci-archive" had no directories: unpackers that make none refuse it (Apptainer).
const Algorithm = "oci-archive2"

// An Archive is the layout of one image's file. It does not change.
type Archive struct {
	pieces   []piece
	size     int64
	manifest []byte
	sum      [sha256.Size]byte // of the manifest
}

// A piece is a part of the file: some text, or a blob.
type piece struct {
	off, size int64
	text      []byte // if it is no blob
	blob      string // digest
}

// New lays out the image of a manifest, whose bytes it keeps.
//
// Errors: errors.ErrUnsupported if it is no manifest of a container image (an
// index, a chart, a signature …); backends.ErrBadAnswer if it is a broken one.
func New(manifest []byte) (*Archive, error) {
	var m ocispec.Manifest
	if len(manifest) > MaxManifest {
		return nil, fmt.Errorf("%w: a manifest of %d bytes", backends.ErrBadAnswer, len(manifest))
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, fmt.Errorf("%w: not a manifest: %v", backends.ErrBadAnswer, err)
	}
	if m.MediaType == "" {
		m.MediaType = ocispec.MediaTypeImageManifest // it may be left out
	}
	if err := isImage(&m); err != nil {
		return nil, err
	}
	blobs, err := blobsOf(&m)
	if err != nil {
		return nil, err
	}
	a := &Archive{manifest: manifest, sum: sha256.Sum256(manifest)}
	return a, a.layOut(m.MediaType, manifest, blobs)
}

// isImage reports whether a manifest is that of a container image.
func isImage(m *ocispec.Manifest) error {
	switch m.MediaType {
	case ocispec.MediaTypeImageManifest, dockerManifest:
	default:
		return fmt.Errorf("%w: no container image (a %.100q)", errors.ErrUnsupported, m.MediaType)
	}
	switch kind := m.Config.MediaType; {
	case m.ArtifactType != "":
		return fmt.Errorf("%w: no container image (an artifact of type %.100q)", errors.ErrUnsupported, m.ArtifactType)
	case kind != ocispec.MediaTypeImageConfig && kind != dockerConfig:
		return fmt.Errorf("%w: no container image (an artifact with the configuration %.100q)", errors.ErrUnsupported, kind)
	}
	return nil
}

// blobsOf returns the configuration and the layers, each once.
func blobsOf(m *ocispec.Manifest) ([]ocispec.Descriptor, error) {
	sizes := map[digest.Digest]int64{}
	var blobs []ocispec.Descriptor
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if d.Digest.Validate() != nil || d.Digest.Algorithm() != digest.SHA256 && d.Digest.Algorithm() != digest.SHA512 {
			return nil, fmt.Errorf("%w: blob with the digest %.80q", backends.ErrBadAnswer, d.Digest)
		}
		// The sum of all does not overflow: a manifest has no room for 2^19 of them.
		if d.Size < 0 || d.Size > backends.MaxSize {
			return nil, fmt.Errorf("%w: blob %s of %d bytes", backends.ErrBadAnswer, d.Digest, d.Size)
		}
		size, twice := sizes[d.Digest]
		if twice && size != d.Size {
			return nil, fmt.Errorf("%w: blob %s of %d bytes and of %d", backends.ErrBadAnswer, d.Digest, size, d.Size)
		}
		if sizes[d.Digest] = d.Size; !twice {
			blobs = append(blobs, d)
		}
	}
	return blobs, nil
}

// layOut makes the pieces.
func (a *Archive) layOut(mediaType string, manifest []byte, blobs []ocispec.Descriptor) error {
	own := ocispec.Descriptor{MediaType: mediaType, Digest: digest.NewDigestFromBytes(digest.SHA256, a.sum[:]), Size: int64(len(manifest))}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{own}}
	index.SchemaVersion = 2
	indexText, err := json.Marshal(index)
	if err != nil {
		return err
	}
	layoutText, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	err = errors.Join(
		a.addFolder(ocispec.ImageBlobsDir+"/"),
		a.addFolder(ocispec.ImageBlobsDir+"/"+digest.SHA256.String()+"/"),
		a.addText(blobName(own.Digest), manifest),
	)
	if slices.ContainsFunc(blobs, func(d ocispec.Descriptor) bool { return d.Digest.Algorithm() == digest.SHA512 }) {
		err = errors.Join(err, a.addFolder(ocispec.ImageBlobsDir+"/"+digest.SHA512.String()+"/"))
	}
	err = errors.Join(err,
		a.addBlob(blobs[0]),
		a.addText(ocispec.ImageIndexFile, indexText),
		a.addText(ocispec.ImageLayoutFile, layoutText),
	)
	for _, layer := range blobs[1:] {
		err = errors.Join(err, a.addBlob(layer))
	}
	a.add(piece{text: make([]byte, 2*block)}) // two empty blocks end a tar
	return err
}

func blobName(d digest.Digest) string {
	return ocispec.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

func (a *Archive) add(p piece) {
	if p.blob == "" {
		p.size = int64(len(p.text))
	}
	p.off = a.size
	a.size += p.size
	a.pieces = append(a.pieces, p)
}

func (a *Archive) addFolder(name string) error {
	head, err := header(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755})
	a.add(piece{text: head})
	return err
}

func (a *Archive) addText(name string, text []byte) error {
	head, err := header(file(name, int64(len(text))))
	a.add(piece{text: bytes.Join([][]byte{head, text, padding(int64(len(text)))}, nil)})
	return err
}

func (a *Archive) addBlob(d ocispec.Descriptor) error {
	head, err := header(file(blobName(d.Digest), d.Size))
	a.add(piece{text: head})
	a.add(piece{blob: d.Digest.String(), size: d.Size})
	if pad := padding(d.Size); len(pad) > 0 {
		a.add(piece{text: pad})
	}
	return err
}

func file(name string, size int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}
}

// header returns the blocks before an entry: one, and two more where the old format
// has no room for its size (8 GiB) or its name (100 bytes, SHA-512).
func header(h tar.Header) ([]byte, error) {
	var b bytes.Buffer
	h.ModTime, h.Format = time.Unix(0, 0), tar.FormatUSTAR
	if h.Size >= 8<<30 || len(h.Name) > 100 {
		h.Format = tar.FormatPAX
	}
	err := tar.NewWriter(&b).WriteHeader(&h)
	return b.Bytes(), err
}

func padding(size int64) []byte { return make([]byte, (block-size%block)%block) }

// Manifest returns the bytes of the manifest. The caller does not change them.
func (a *Archive) Manifest() []byte { return a.manifest }

// Size returns the size of the file in bytes.
func (a *Archive) Size() int64 { return a.size }

// Held returns about how many bytes of memory a takes.
func (a *Archive) Held() int64 {
	held := int64(len(a.manifest))
	for _, p := range a.pieces {
		held += perPiece + int64(len(p.text))
	}
	return held
}

// perPiece is about what a piece takes besides its text: with the digest of a blob.
const perPiece = 128

// Digest returns what stands for all bytes of the file, as NewHash checks it:
// Algorithm, a colon, and the SHA-256 of the manifest in hexadecimal.
func (a *Archive) Digest() string { return Algorithm + ":" + hex.EncodeToString(a.sum[:]) }

// IsDigest reports whether digest is one of an archive.
func IsDigest(digest string) bool { return strings.HasPrefix(digest, Algorithm+":") }
