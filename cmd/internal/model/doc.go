// SPDX-License-Identifier: Apache-2.0

// Package model runs random sequences of operations against the built programs,
// over a real kernel mount and a real registry, and against a model of what the
// documents promise, which is small enough to be read in one sitting. Every byte,
// name, errno and exit code is compared. A sequence that differs is shrunk to a
// short script; testdata holds those that found something, and they are run again
// each time.
//
// It has no code outside of tests. Start at model_test.go, the promises; then
// ops_test.go, the operations as text; run_test.go, which carries them out;
// shrink_test.go; and main_test.go, the tests.
package model
