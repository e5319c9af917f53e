// SPDX-License-Identifier: Apache-2.0

// Package layers makes the bytes of a container image's file (package vsif) of its layers,
// as they come from a registry.
//
// Where the files of the image are follows from all headers in all tars. The first time an
// image is read, each layer is therefore read once from its start to its end: inflated,
// compared with its digest and with the digest of its tar, and given to the cache
// chunk by chunk, while a scanner reads the headers in it. What that showed is kept as the
// [index] of the layer: the headers, points at which inflating can begin, every 4 MiB, and
// the SHA-256 of each chunk. With it any chunk of the layer is fetched by itself, and
// checked by itself.
//
// The package fetches and computes; what is here already, what is fetched when, and who
// waits for it is for package fetch, to which an [Image] is a source of ranges.
//
// Locks: Image.mu guards what is known of the image, layer.mu what is known of a layer;
// they are not held together, nor while anything is waited for. Image.builder and
// layer.extender are held while the tables are made, and while a layer is read to where
// nobody has read it before.
//
// Start at [Image.Open].
package layers

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/sregfs/sregfs/backends/vsif"
)

// unfit is the error for layers that no file can be made of.
func unfit(err error) error {
	if !errors.Is(err, vsif.ErrLayer) {
		err = fmt.Errorf("%w: %w", vsif.ErrLayer, err)
	}
	return fmt.Errorf("%w (%w); the image can be opened as an archive, IMAGE+TAG.oci.tar", err, syscall.EFBIG)
}
