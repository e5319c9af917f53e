// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package catalog_test

import (
	"time"
)

func cpuTime() time.Duration { return 0 } // not known
