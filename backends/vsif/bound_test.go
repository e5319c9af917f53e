// SPDX-License-Identifier: Apache-2.0

package vsif

import (
	"encoding/binary"
	"errors"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestBound(t *testing.T) {
	const gib = 1 << 30
	layer := func(kind string, size int64, annotations ...string) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: kind, Size: size}
		for i := 0; i < len(annotations); i += 2 {
			d.Annotations = map[string]string{annotations[i]: annotations[i+1]}
		}
		return d
	}
	for name, tc := range map[string]struct {
		layer   ocispec.Descriptor
		trailer uint32
		want    int64
	}{
		"tar":                     {layer(ocispec.MediaTypeImageLayer, 10240), 7, 10240},
		"gzip":                    {layer(ocispec.MediaTypeImageLayerGzip, 100), 10240, 10240},
		"Docker's":                {layer("application/vnd.docker.image.rootfs.diff.tar.gzip", 100), 10240, 10240},
		"gzip that hardly shrank": {layer(ocispec.MediaTypeImageLayerGzip, 10240), 10200, 10200},
		"gzip past 4 GiB":         {layer(ocispec.MediaTypeImageLayerGzip, gib/2), 5, 4*gib + 5},
		"gzip of 2 GiB":           {layer(ocispec.MediaTypeImageLayerGzip, 2*gib), 5, 8*gib + 5},
		"eStargz":                 {layer(ocispec.MediaTypeImageLayerGzip, 100, estargzSize, "20480"), 0, 20480},
		"eStargz that lies":       {layer(ocispec.MediaTypeImageLayerGzip, 100, estargzSize, "-1"), 4096, 4096},
		"zstd":                    {layer(ocispec.MediaTypeImageLayerZstd, 100), 0, 800 + zstdFloor},
	} {
		var trailer [TrailerSize]byte
		binary.LittleEndian.PutUint32(trailer[:], tc.trailer)
		got, err := Bound(tc.layer, trailer)
		if err != nil || got != tc.want {
			t.Errorf("%s: Bound = %d, %v, want %d", name, got, err, tc.want)
		}
	}
	for _, kind := range []string{ocispec.MediaTypeImageLayerNonDistributableGzip, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", //nolint:staticcheck // what registries have
		ocispec.MediaTypeImageLayerGzip + "+encrypted", "application/wasm", ""} {
		if _, err := Bound(layer(kind, 100), [TrailerSize]byte{}); !errors.Is(err, ErrLayer) {
			t.Errorf("%q: %v, want ErrLayer", kind, err)
		}
	}
}
