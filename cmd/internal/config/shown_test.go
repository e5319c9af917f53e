// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"
)

// No secret is shown, whatever key it stands in.
func TestShown_secrets(t *testing.T) {
	t.Parallel()
	for key, tt := range map[string]struct{ value, want string }{
		"token":         {"hunter2", Redacted},
		"client_secret": {"hunter2", Redacted},
		"token_command": {"pass hunter2", "pass " + Redacted},
		"url":           {"https://me:hunter2@lab.example/x", "https://me:xxxxx@lab.example/x"},
		"user":          {"me@lab", "me@lab"},
		"token_file":    {"/home/me/token", "/home/me/token"},
	} {
		if got := redacted(key, tt.value); got != tt.want || strings.Contains(got.(string), "hunter2") {
			t.Errorf("%s: %v, want %s", key, got, tt.want)
		}
	}
}

// A size is the same when it was written and read again.
func TestSize_again(t *testing.T) {
	t.Parallel()
	for _, n := range []Size{0, 1, 1 << 20, 1501 << 20, 3 << 30, 1<<62 - 1<<21} {
		var again Size
		if err := again.Set(n.String()); err != nil || again != n {
			t.Errorf("%d is %q, which is %d, %v", n, n.String(), again, err)
		}
	}
}
