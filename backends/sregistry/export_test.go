// SPDX-License-Identifier: Apache-2.0

package sregistry

import "github.com/sregfs/sregfs/backends"

// SetPartSize makes b cut uploads into parts above n bytes.
func SetPartSize(b backends.Backend, n int64) { b.(*client).partSize = n }

// Sign is sign.
func Sign(user, token, k, stamp, collection, container, tag string) string {
	return sign(user, token, kind(k), stamp, name{collection, container, tag})
}
