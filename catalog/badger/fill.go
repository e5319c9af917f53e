// SPDX-License-Identifier: Apache-2.0

package badger

import (
	"math/rand/v2"
	"os"
)

// fill writes size bytes that no filesystem can compress away.
func fill(f *os.File, size int64) error {
	noise := rand.NewChaCha8([32]byte{})
	buf := make([]byte, 1<<20)
	for ; size > 0; size -= int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), size)]
		if _, err := noise.Read(buf); err != nil {
			return err
		}
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return f.Sync()
}
