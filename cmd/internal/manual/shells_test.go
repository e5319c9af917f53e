// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The scripts load in the shells that they are for, and complete what is typed there.

const bashCompletion = "/usr/share/bash-completion/bash_completion"

func TestBash(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(bashCompletion); err != nil {
		need(t, bashCompletion)
	}
	dir := filepath.Join(written(t), "completions/bash")
	pressTab(t, "bash --norc -i", "source "+bashCompletion+"; source "+dir+"/sreg; source "+dir+"/sregfs")
}

func TestZsh(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(written(t), "completions/zsh")
	pressTab(t, "zsh -f -i", "fpath=("+dir+" $fpath); autoload -U compinit; compinit -u -D; LISTMAX=1000")
}

func TestFish(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(written(t), "completions/fish")
	for typed, want := range typedWords {
		name, _, _ := strings.Cut(typed, " ")
		out := run(t, "fish", "--no-config", "-c", "source "+dir+"/"+name+".fish; complete --do-complete '"+typed+"'")
		checkWords(t, "fish", typed, out, want)
	}
}

// pressTab types into a shell at a terminal, for which zsh has a module, and presses the Tab
// key twice. setup is the shell's first line.
func pressTab(t *testing.T, shell, setup string) {
	for typed, want := range typedWords {
		out := run(t, "zsh", "-f", "-c", `zmodload zsh/zpty
zpty -e shell "TERM=dumb exec $1"
zpty -w shell "$2; PS1='rea''dy>'"
zpty -r -m shell out '*ready>*'
zpty -w -n shell "$3"$'\t\t'
for word in ${=4}; do
	[[ $out == *$word* ]] || zpty -r -m shell more "*$word*"
	out+=$more
done
print -r -- $out
zpty -d shell`, "zsh", shell, setup, typed, strings.Join(want, " "))
		checkWords(t, shell, typed, out, want)
	}
}

// typedWords is what is offered for what was typed, among others.
var typedWords = map[string][]string{
	"sreg pu":           {"pull", "push"},
	"sreg cache ":       {"clean", "verify"},
	"sregfs --cache-s":  {"--cache-size", "--cache-shared"},
	"sreg pull --compa": {"--compact"},
}

func checkWords(t *testing.T, shell, typed, out string, want []string) {
	t.Helper()
	for _, word := range want {
		if !strings.Contains(out, word) {
			t.Errorf("%s: %q offers %q, want %q too", shell, typed, out, word)
		}
	}
}
