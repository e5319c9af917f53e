// SPDX-License-Identifier: Apache-2.0

package oci

import "github.com/sregfs/sregfs/backends"

// SetChunk makes b upload n bytes with each request.
func SetChunk(b backends.Backend, n int64) { b.(*client).chunk = n }
