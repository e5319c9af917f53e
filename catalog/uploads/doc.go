// SPDX-License-Identifier: Apache-2.0

// Package uploads publishes files: the drafts that were copied into the tree, and files
// that the user names. It decides what a new name may replace, waits for turns, retries in
// the background, and stops an upload that is removed.
//
// It does not keep the bytes, nor the state of a draft: both are in cache/spool, and
// spool.State has the drawing of a draft's life. Nor does it know what a name means: it
// asks package catalog, and tells it what was published.
//
// # How an image is published
//
// [Uploads.Create] refuses what can be refused before a byte is copied, and
// notes which version the name means. [Uploads.Publish] makes the draft durable
// (spool.Draft.Seal), looks whether the registry has these bytes already or another
// version than the noted one, pushes, compares what the registry says it stored, and
// only then gives the draft's file to the cache. If anything fails before that, the
// draft stays; if anything fails after it, the image is published. A process that is
// killed in between finds the draft again, pushes it once more, and learns that the
// registry has it.
//
// Begin with uploads.go, then publish.go; runs.go joins callers that
// publish the same draft, queue.go publishes in the background.
//
//	lock       guards                                     order
//	turns      one push to a name at a time               first, held during the whole push
//	runs.mu    the runs with their callers, the queue        before the locks of the spool and the catalogue
package uploads
