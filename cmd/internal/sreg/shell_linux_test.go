// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What a person types at the prompt: Tab completes, Ctrl-C clears the line, an arrow brings
// back what was typed before.
func TestShell_terminal(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	run(t, home, "", "add", "../../../catalog/inspect/testdata/greet-signed.sif", "vsoch/greet:1.0")
	run(t, home, "", "add", "../../../catalog/inspect/testdata/greet-signed.sif", "vsoch/great:1.0")
	person, program := terminal(t)
	done := make(chan error, 1)
	a, _ := newApp(home, program, os.Stderr)
	a.out = program
	go func() { done <- a.run(t.Context(), []string{"shell"}) }()
	typed := func(keys, shown string) {
		t.Helper()
		fmt.Fprint(person, keys)
		after(t, person, shown)
	}
	typed("", "sreg> ")
	typed("cd loc\t", "cd local/")
	typed("vs\t", "vsoch/")
	typed("\r", "local://vsoch> ")
	typed("cat gr\t\t", "great:1.0  greet:1.0")
	typed("e\t", "greet:1.0 ")
	typed("\x03pw\t\r", "\nlocal://vsoch\r\n")
	typed("\x1b[A", "pwd")
	typed("\x03nonsense\r", "local://vsoch> ")
	typed("exit\r", "exit")
	if err := <-done; err == nil || err.Error() != "exit code 2" {
		t.Errorf("the shell ends with %v, want the code of the last command", err)
	}
	if !echoes(t, program) {
		t.Error("the terminal is left without echo")
	}
	files, err := filepath.Glob(filepath.Join(home, "state/history"))
	if err != nil || len(files) != 1 {
		t.Fatalf("history: %v, %v", files, err)
	}
	info, err := os.Stat(files[0])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("history: %v, %v", info.Mode(), err)
	}
	if h := openHistory(files[0]); h.Len() != 4 || h.At(3) != "cd local/vsoch/" {
		t.Errorf("history is %q", h.lines)
	}
}

func TestSplitWords(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		"":                       nil,
		"  a  b\tc ":             {"a", "b", "c"},
		`a 'b c' "d e"f`:         {"a", "b c", "d ef"},
		`a\ b \# \\ "\"" '\' ''`: {"a b", "#", `\`, `"`, `\`, ""},
		"a # b":                  {"a"},
		"a#b":                    {"a#b"},
	} {
		got, err := splitWords(line)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("splitWords(%q) = %q, %v, want %q", line, got, err, want)
		}
		for _, word := range got {
			if again, err := splitWords(quoteWord(word)); word != "" && (err != nil || len(again) != 1 || again[0] != word) {
				t.Errorf("splitWords(quoteWord(%q)) = %q, %v", word, again, err)
			}
		}
	}
	for _, line := range []string{"'a", `"a`, `a\`} {
		if got, err := splitWords(line); err == nil {
			t.Errorf("splitWords(%q) = %q", line, got)
		}
	}
}

func TestPosition(t *testing.T) {
	t.Parallel()
	at := position{"lab", "a/b"}
	for path, want := range map[string]string{
		"": "lab://a/b", ".": "lab://a/b", "c": "lab://a/b/c", "..": "lab://a", "../..": "lab://", "../../..": "/", "../../../..": "/",
		"/": "/", "/x/y/": "x://y", "x://y/z": "x://y/z", "quay.io://a": "quay.io://a", "c%25d": "lab://a/b/c%25d",
	} {
		got, err := at.to(path)
		if err != nil || got.String() != want {
			t.Errorf("to(%q) = %v, %v, want %s", path, got, err, want)
		}
	}
	for _, path := range []string{"a%zz", "c%2Fd", "/-x", "x y://"} {
		if got, err := at.to(path); err == nil {
			t.Errorf("to(%q) = %v", path, got)
		}
	}
}
