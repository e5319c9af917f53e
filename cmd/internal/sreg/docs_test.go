// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

var (
	codeSpan  = regexp.MustCompile("`(sreg [^`\n]+)`")
	codeBlock = regexp.MustCompile("(?s)```(?:console|sh|bash)\n(.*?)```")
	inLine    = regexp.MustCompile(`(?:^|[|$(&;] *)(sreg [^|;&>)#]+)`)
)

// Each command in the documents is one that there is, with flags that it has.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	n := 0
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/backends/*.md"} {
		pages, err := filepath.Glob(filepath.Join("../../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range documented(string(text)) {
				n++
				if err := parses(line); err != nil {
					t.Errorf("%s: %s: %v", page, line, err)
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("%d commands were found: the test looks for them in vain", n)
	}
}

// documented returns the commands in a page.
func documented(page string) (lines []string) {
	for _, m := range codeSpan.FindAllStringSubmatch(page, -1) {
		lines = append(lines, m[1])
	}
	for _, m := range codeBlock.FindAllStringSubmatch(page, -1) {
		for line := range strings.Lines(m[1]) {
			for _, m := range inLine.FindAllStringSubmatch(strings.TrimSpace(line), -1) {
				lines = append(lines, m[1])
			}
		}
	}
	return lines
}

func parses(line string) error {
	a := &app{getenv: func(string) string { return "" }, out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	root := a.root()
	root.InitDefaultCompletionCmd()
	cmd, rest, err := root.Find(strings.Fields(line)[1:])
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil && !errors.Is(err, pflag.ErrHelp) {
		return flagError(cmd, err)
	}
	if args := cmd.Flags().Args(); cmd.HasSubCommands() && len(args) > 0 && !isWord(args[0]) {
		return group(cmd, args)
	}
	return nil
}

// isWord reports whether a documented argument stands for a command: COMMAND, "…".
func isWord(arg string) bool { return strings.ToUpper(arg) == arg || arg == "…" }
