// SPDX-License-Identifier: Apache-2.0

package backends_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// A value of the wrong kind is told in the words of the configuration, not of Go.
func TestDecode_wrongKind(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		key, want string
		value     any
	}{
		{"names", `a list is wanted, as in names = ["one", "two"]`, "one"},
		{"names", `a list is wanted, as in names = ["one", "two"]`, []any{1}},
		{"word", `text in quotes is wanted, as in word = "…"`, int64(1)},
		{"word", `text in quotes is wanted, as in word = "…"`, []any{"one"}},
		{"yes", `true or false is wanted, as in yes = true`, "yes"},
		{"many", `a number is wanted, as in many = 1`, "many"},
	} {
		var cfg struct {
			Names []string
			Word  string `toml:"word"`
			Yes   bool
			Many  *int
		}
		err := backends.Env{Remote: "lab", Config: map[string]any{tc.key: tc.value}}.Decode(&cfg)
		if want := "invalid argument: remote lab: " + tc.key + ": " + tc.want; !errors.Is(err, fs.ErrInvalid) || err.Error() != want {
			t.Errorf("%s = %v: %v, want %s", tc.key, tc.value, err, want)
		}
	}
}

// An unknown key is told with the one that was meant.
func TestDecode_unknownKey(t *testing.T) {
	t.Parallel()
	var cfg struct{ Names []string }
	err := backends.Env{Remote: "lab", Type: "x", Config: map[string]any{"name": "one"}}.Decode(&cfg)
	if want := `invalid argument: remote lab has no setting "name" for type "x" (did you mean "names"?)`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
