// SPDX-License-Identifier: Apache-2.0

//go:build !linux

// Package disktest gives tests a small disk.
package disktest

import "testing"

// Small skips the test: there is no tmpfs here.
func Small(t *testing.T, _ string) string {
	t.Helper()
	t.Skip("no tmpfs on this system")
	return ""
}
