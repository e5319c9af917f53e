// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// travel sends an error to the other side.
func travel(t *testing.T, err error) error {
	t.Helper()
	text, jsonErr := json.Marshal(encodeError(err))
	if jsonErr != nil {
		t.Fatal(jsonErr)
	}
	var w wireError
	if err := json.Unmarshal(text, &w); err != nil {
		t.Fatal(err)
	}
	return w.decode()
}

func TestErrorsKeepTheirSentinels(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range codes {
		if seen[c.name] {
			t.Errorf("code %q stands for two errors", c.name)
		}
		seen[c.name] = true
		for _, err := range []error{
			c.err,
			fmt.Errorf("%w: detail", c.err),
			&backends.Error{Op: "stat", Remote: "lab", Err: c.err},
			errors.Join(errors.New("another"), c.err),
		} {
			got := travel(t, err)
			if got.Error() != err.Error() {
				t.Errorf("%q arrives as %q", err, got)
			}
			for _, other := range codes {
				if errors.Is(got, other.err) != errors.Is(err, other.err) {
					t.Errorf("%v arrives, but errors.Is(%v) = %v", err, other.err, !errors.Is(err, other.err))
				}
			}
		}
	}
}

func TestErrorsKeepTheDelay(t *testing.T) {
	t.Parallel()
	err := travel(t, &backends.DelayError{Err: backends.ErrRateLimited, After: 90 * time.Second})
	if got := backends.RetryAfter(err); got != 90*time.Second || !errors.Is(err, backends.ErrRateLimited) {
		t.Errorf("arrives as %v with a delay of %v", err, got)
	}
}

// A newer program may have sentinels that this one lacks.
func TestUnknownCode(t *testing.T) {
	t.Parallel()
	err := (&wireError{Message: "of the future", Codes: []string{"paradox", "not-exist"}}).decode()
	if !errors.Is(err, codes[0].err) || err.Error() != "of the future" {
		t.Errorf("decoded as %v", err)
	}
}
