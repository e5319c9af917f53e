// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the two programs as their users run them: built binaries, a
// real kernel mount, a real registry, copying tools, kill -9. It has no code of
// its own; each test stands for a promise of the README. Start at world_test.go.
package e2e
