// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
)

// Collect gathers seq into a slice, up to its first error.
func Collect[T any](seq iter.Seq2[T, error]) ([]T, error) {
	var all []T
	for v, err := range seq {
		if err != nil {
			return all, err
		}
		all = append(all, v)
	}
	return all, nil
}

// Fail returns a sequence of one error.
func Fail[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		yield(zero, err)
	}
}

// BrokenOff is for err, which ended a listing or a search after its first page: a
// service that says "not found" or "not for you" there says it of that page, not of
// the collection. What stays an ErrUnauthorized is a login that lapsed meanwhile.
func BrokenOff(err error) error {
	if errors.Is(err, ErrUnauthorized) {
		return err
	}
	for _, s := range []error{fs.ErrNotExist, fs.ErrPermission, errors.ErrUnsupported} {
		if errors.Is(err, s) {
			return fmt.Errorf("%w: the listing broke off: %v", ErrUnavailable, err)
		}
	}
	return err
}
