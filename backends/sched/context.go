// SPDX-License-Identifier: Apache-2.0

package sched

import "context"

type slotKey struct{}

// With returns a context for a request that has a slot already.
func With(ctx context.Context, t *Slot) context.Context {
	return context.WithValue(ctx, slotKey{}, t)
}

// Held returns the slot of With, nil if there is none.
func Held(ctx context.Context) *Slot {
	t, _ := ctx.Value(slotKey{}).(*Slot)
	return t
}
