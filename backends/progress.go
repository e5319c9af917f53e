// SPDX-License-Identifier: Apache-2.0

package backends

import "context"

type progressKey struct{}

// OnProgress returns a context for whose requests fn is called whenever bytes of an
// answer come in, from any goroutine: an answer that takes its time, such as a list of
// a hundred thousand names, is no silence. What ctx had calls stays.
func OnProgress(ctx context.Context, fn func()) context.Context {
	if outer, ok := ctx.Value(progressKey{}).(func()); ok {
		inner := fn
		fn = func() { outer(); inner() }
	}
	return context.WithValue(ctx, progressKey{}, fn)
}

// progressed tells those whom OnProgress named.
func progressed(ctx context.Context) {
	if fn, ok := ctx.Value(progressKey{}).(func()); ok {
		fn()
	}
}
