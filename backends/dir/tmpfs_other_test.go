// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package dir

import "testing"

func tmpfs(t *testing.T, _ string) string {
	t.Helper()
	t.Skip("no tmpfs on this system")
	return ""
}
