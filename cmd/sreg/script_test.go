// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/sregfs/sregfs/cmd/internal/scripttest"
)

func TestMain(m *testing.M) { scripttest.Main(m) }

func TestScripts(t *testing.T) {
	t.Parallel()
	scripttest.Run(t, "../../catalog/inspect/testdata/greet-signed.sif")
}
