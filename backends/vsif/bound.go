// SPDX-License-Identifier: Apache-2.0

package vsif

import (
	"fmt"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sregfs/sregfs/backends"
)

// A Compression is how the tar of a layer is compressed.
type Compression string

// The compressions of layers.
const (
	None Compression = ""
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// Compressed returns how the layer of a descriptor is compressed.
//
// Errors: ErrLayer for what is no tar, is encrypted, or may not stand in the registry.
func Compressed(layer ocispec.Descriptor) (Compression, error) {
	kind := layer.MediaType
	switch kind {
	case ocispec.MediaTypeImageLayer, "application/vnd.docker.image.rootfs.diff.tar":
		return None, nil
	case ocispec.MediaTypeImageLayerGzip, "application/vnd.docker.image.rootfs.diff.tar.gzip":
		return Gzip, nil
	case ocispec.MediaTypeImageLayerZstd, "application/vnd.docker.image.rootfs.diff.tar.zstd":
		return Zstd, nil
	}
	switch {
	case strings.HasSuffix(kind, "+encrypted"):
		return None, fmt.Errorf("%w: layer %s is encrypted", ErrLayer, layer.Digest)
	case strings.Contains(kind, "nondistributable") || strings.Contains(kind, "foreign"):
		return None, fmt.Errorf("%w: layer %s is not in the registry (%s)", ErrLayer, layer.Digest, kind)
	}
	return None, fmt.Errorf("%w: layer %s is of the type %.100q", ErrLayer, layer.Digest, kind)
}

// TrailerSize is how many bytes at the end of a gzip layer tell its Bound.
const TrailerSize = 4

// estargzSize is where an eStargz layer tells the size of its tar
// (https://github.com/containerd/stargz-snapshotter, docs/estargz.md).
const estargzSize = "io.containers.estargz.uncompressed-size"

// Bound returns how many bytes the tar of a layer has at most: by its descriptor, and by the
// last TrailerSize bytes of one that NeedsTrailer. It is the same for ever. A layer that turns
// out to be longer does not fit its region; its image cannot be shown.
//
// Errors: those of Compressed.
func Bound(layer ocispec.Descriptor, trailer [TrailerSize]byte) (int64, error) {
	kind, err := Compressed(layer)
	switch {
	case err != nil:
		return 0, err
	case layer.Size < 0 || layer.Size > backends.MaxSize/zstdRatio:
		return 0, fmt.Errorf("%w: layer %s of %d bytes", ErrLayer, layer.Digest, layer.Size)
	case kind == None:
		return layer.Size, nil
	case told(layer) > 0:
		return told(layer), nil
	case kind == Gzip:
		return gzipBound(layer.Size, trailer), nil
	}
	// Few encoders tell the size in a frame. A tar of small files shrinks a hundredfold.
	return zstdRatio*layer.Size + zstdFloor, nil
}

const (
	zstdRatio = 8
	zstdFloor = 16 << 20
)

// NeedsTrailer reports whether Bound is to be told the end of the layer.
func NeedsTrailer(layer ocispec.Descriptor) bool {
	kind, err := Compressed(layer)
	return err == nil && kind == Gzip && told(layer) == 0 && layer.Size >= TrailerSize
}

func told(layer ocispec.Descriptor) int64 {
	n, err := strconv.ParseInt(layer.Annotations[estargzSize], 10, 64)
	if err != nil || n < 0 || n > backends.MaxSize {
		return 0
	}
	return n
}

// gzipBound returns the size that the trailer of a gzip stream means: it has the lowest 32
// bits (RFC 1952, section 2.3.1). A tar is hardly larger compressed; and a large layer may
// well have 4 GiB more than the least that is possible.
func gzipBound(compressed int64, trailer [TrailerSize]byte) int64 {
	size := int64(trailer[0]) | int64(trailer[1])<<8 | int64(trailer[2])<<16 | int64(trailer[3])<<24
	least := compressed - compressed/100
	if compressed >= 1<<30 {
		least = 4 * compressed
	}
	for size < least {
		size += 1 << 32
	}
	return size
}
