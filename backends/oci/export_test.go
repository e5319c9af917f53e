// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"

	"github.com/sregfs/sregfs/backends"
)

// SetChunk makes b upload n bytes with each request.
func SetChunk(b backends.Backend, n int64) { b.(*client).chunk = n }

// Tokens returns how many tokens b keeps.
func Tokens(b backends.Backend) int64 { return b.(*client).tokens.now("").kept.Load() }

// Catalogue returns the repositories that b knows at and below a path, without
// their tags.
func Catalogue(ctx context.Context, b backends.Backend, path string) ([]string, error) {
	return b.(*client).catalogue(ctx, path)
}
