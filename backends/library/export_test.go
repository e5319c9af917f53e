// SPDX-License-Identifier: Apache-2.0

package library

import "github.com/sregfs/sregfs/backends"

// SetPartSize makes b cut uploads into parts above n bytes.
func SetPartSize(b backends.Backend, n int64) { b.(*client).partSize = n }
