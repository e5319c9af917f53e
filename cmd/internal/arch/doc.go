// SPDX-License-Identifier: Apache-2.0

// Package arch holds the tests that keep the documentation and the code in
// step: the import table of docs/architecture.md, a page for each backend, every
// sentinel in docs/errors.md. It has no code of its own.
package arch
