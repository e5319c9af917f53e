// SPDX-License-Identifier: Apache-2.0

// Package term is what the commands must know about the terminal: whether one is
// there, and how it can be asked for a password. It is no terminal library: it draws
// nothing.
package term
