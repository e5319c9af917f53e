// SPDX-License-Identifier: Apache-2.0

// Package control carries what package catalog/verbs does over a Unix socket, so
// that the sreg command and a running mount do not open the same state twice.
//
// [Handler] serves them, [Client] calls it. A client from [Dial] talks to
// another process; one from [Local] calls a handler in its own, through the same
// code, so that a command behaves alike with and without a mount.
//
// # Protocol
//
// HTTP/1.1, POST /v1/<verb>, a JSON body of at most [MaxRequest] bytes. Both
// sides send their protocol number in the header Sregfs-Protocol and refuse
// another one. The answer is newline-delimited JSON, one frame a line: items of
// a list or the one result, progress, and at last either an end or an error; an
// answer that breaks off before that is an error too. While it waits the client asks
// the verb "ping", too: a process that does not answer that is given up. A client that closes the
// connection ends the work on the other side. Errors keep their text and the
// sentinels that they match.
//
// # Who may call
//
// The socket has mode 0600 in a directory with mode 0700 that belongs to the
// serving user, and on Linux both sides check the other's uid: the same one, or
// root.
//
// It is not a network protocol and has no other authentication. Start at
// client.go for the verbs and frame.go for the format.
package control
