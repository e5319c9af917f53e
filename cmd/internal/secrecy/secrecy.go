// SPDX-License-Identifier: Apache-2.0

// Package secrecy keeps what this process knows from the user's other processes,
// and from core dumps. It is no protection from root. Start at [Hide].
package secrecy
