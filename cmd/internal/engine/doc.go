// SPDX-License-Identifier: Apache-2.0

// Package engine puts the parts together for the two commands: remotes with
// their HTTP clients and secrets, the state directory with its lock, index, cache
// and spool, and the catalogue over all of it.
//
// [Configure] reads the configuration, [New] builds an engine in this process,
// and [Connect] gives sreg a client of whichever process has the engine. The
// package knows no verb and no flag of its own.
package engine
