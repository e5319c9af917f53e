// SPDX-License-Identifier: Apache-2.0

// Package records keeps what no registry knows: which blobs are pinned,
// what names mean to the runs that pinned them, and which collections were made by hand and
// have no image yet. They are small files beside the local images, which other processes may
// write too.
//
// It does not pin anything in the cache, nor does it know which collections there are
// otherwise: that is package catalog's. Begin with [Records].
//
//	lock             guards                         order
//	Records.mu       the pins and their file        alone
//	collections.mu   the collections and their file alone
//	runs.mu          the pins of runs, their files  alone
package records
