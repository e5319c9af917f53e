// SPDX-License-Identifier: Apache-2.0

// Package sreg is the sreg command: the verbs of the catalogue for a shell. It
// asks the mount that runs, or does the same work itself where none does.
//
// It is thin: each verb has a file with its flags, one call of control.Client and
// the printing. It holds no state, and only [Main] reads the environment. Start at
// root.go; app.go is what the verbs have in common.
package sreg
