// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"
	"time"
)

// shrink returns the shortest script that it finds which still differs, by leaving out
// pieces, the large ones first (Zeller's ddmin). What became illegal by that is passed
// over when the script is played. It ends at the deadline.
func shrink(s script, deadline time.Time, differs func(script) bool) script {
	for size := len(s.ops) / 2; size > 0; {
		smaller := false
		for from := 0; from < len(s.ops) && time.Now().Before(deadline); {
			shorter := script{s.settings, slices.Delete(slices.Clone(s.ops), from, min(from+size, len(s.ops)))}
			if differs(shorter) {
				s, smaller = shorter, true
			} else {
				from += size
			}
		}
		if !smaller || size > 1 {
			size /= 2
		}
	}
	return s
}
