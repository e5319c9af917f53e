// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"slices"
	"testing"
)

func TestWatchers(t *testing.T) {
	t.Parallel()
	var w watchers
	var got []string
	stopA := w.add(func(Event) { got = append(got, "a") })
	stopB := w.add(func(Event) { got = append(got, "b") })
	stopA()
	w.emit(Event{})
	stopB()
	w.emit(Event{})
	if !slices.Equal(got, []string{"b"}) {
		t.Errorf("calls = %v", got)
	}
}
