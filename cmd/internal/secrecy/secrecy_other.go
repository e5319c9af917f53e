// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package secrecy

// Hide does nothing on this system.
func Hide() error { return nil }
