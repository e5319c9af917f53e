// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	xterm "golang.org/x/term"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/cmd/internal/exit"
)

// An editor reads lines from a terminal, with history and completion.
type editor struct {
	shell *shell
	in    *os.File
	line  *xterm.Terminal
	names map[position][]string // what is at a position, until the next line
}

func newEditor(ctx context.Context, s *shell) (*editor, error) {
	in, ok := s.in.(*os.File)
	if !ok {
		return nil, errors.New("the standard input is no file")
	}
	o, err := s.options()
	if err != nil {
		return nil, err
	}
	e := &editor{shell: s, in: in}
	e.line = xterm.NewTerminal(struct {
		io.Reader
		io.Writer
	}{&clearing{r: in}, s.out}, "")
	e.line.History = openHistory(filepath.Join(o.State, "history"))
	e.line.AutoCompleteCallback = func(line string, pos int, key rune) (string, int, bool) {
		if key != '\t' {
			return "", 0, false
		}
		return e.complete(ctx, line, pos)
	}
	return e, nil
}

// clearing makes Ctrl-C clear the line, as at any prompt: to the end of the line, and all
// before that.
type clearing struct {
	r       io.Reader
	pending []byte
}

func (c *clearing) Read(p []byte) (int, error) {
	if len(c.pending) == 0 {
		var buf [256]byte
		n, err := c.r.Read(buf[:])
		c.pending = bytes.ReplaceAll(buf[:n], []byte{'C' - '@'}, []byte{'E' - '@', 'U' - '@'})
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, c.pending)
	c.pending = c.pending[n:]
	return n, nil
}

// read reads a line. The terminal is as it was when it returns.
//
// Errors: io.EOF; ctx's.
func (e *editor) read(ctx context.Context, prompt string) (string, error) {
	fd := int(e.in.Fd())
	old, err := xterm.MakeRaw(fd)
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	defer func() { _ = xterm.Restore(fd, old) }()
	if width, height, err := xterm.GetSize(fd); err == nil && width > 0 {
		_ = e.line.SetSize(width, height)
	}
	e.names = map[position][]string{}
	e.line.SetPrompt(prompt)
	line, err := interruptible(ctx, e.line.ReadLine)
	if errors.Is(err, xterm.ErrPasteIndicator) {
		err = nil
	}
	if errors.Is(err, io.EOF) {
		fmt.Fprint(e.shell.out, "\r\n")
	}
	return line, err
}

// complete completes the word before the cursor: what all that it can be have in common, and
// where that is no more than is typed it lists them.
func (e *editor) complete(ctx context.Context, line string, pos int) (string, int, bool) {
	before, after := line[:pos], line[pos:]
	words, err := splitWords(before)
	if err != nil {
		return line, pos, true
	}
	typed := ""
	if len(words) > 0 && !strings.HasSuffix(before, " ") {
		typed, words = words[len(words)-1], words[:len(words)-1]
	}
	ctx, cancel := context.WithTimeout(ctx, completeWait)
	defer cancel()
	all := e.candidates(ctx, words, typed)
	if len(all) == 0 {
		return line, pos, true
	}
	common := all[0]
	for _, c := range all[1:] {
		for !strings.HasPrefix(c, common) {
			common = common[:len(common)-1]
		}
	}
	if len(all) > 1 && common == typed {
		e.list(all)
		return line, pos, true
	}
	start := strings.TrimSuffix(before, quoteWord(typed))
	if start == before && typed != "" {
		return line, pos, true // it is quoted in another way
	}
	common = quoteWord(common)
	if len(all) == 1 && !strings.HasSuffix(common, "/") {
		common += " "
	}
	return start + common + after, len(start) + len(common), true
}

// maxShown is how many candidates are listed.
const maxShown = 100

// list shows candidates, below the line.
func (e *editor) list(all []string) {
	var text strings.Builder
	for _, c := range all[:min(len(all), maxShown)] {
		text.WriteString(backends.Printable(c) + "  ")
	}
	if more := len(all) - maxShown; more > 0 {
		fmt.Fprintf(&text, "… and %d more", more)
	}
	fmt.Fprintln(e.line, strings.TrimSpace(text.String()))
}

// candidates returns what a word that begins so can be, after others, sorted.
func (e *editor) candidates(ctx context.Context, words []string, typed string) (all []string) {
	s := e.shell
	own := false
	if len(words) == 0 {
		all = slices.Concat(s.builtinNames(), s.commands)
	} else {
		_, own = s.builtins()[words[0]]
	}
	if len(words) > 0 && !own {
		all = s.askCobra(ctx, words, typed)
	}
	if len(words) > 0 && !strings.Contains(typed, "://") && !strings.HasPrefix(typed, "-") {
		cut := strings.LastIndexByte(typed, '/') + 1
		if at, err := s.at.to(typed[:cut]); err == nil {
			for _, name := range e.namesAt(ctx, at) {
				if words[0] != "cd" || strings.HasSuffix(name, "/") {
					all = append(all, typed[:cut]+name)
				}
			}
		}
	}
	all = slices.DeleteFunc(all, func(c string) bool { return !strings.HasPrefix(c, typed) })
	slices.Sort(all)
	return slices.Compact(all)
}

// namesAt returns what is at a position, as far as it is told in time.
func (e *editor) namesAt(ctx context.Context, at position) []string {
	if names, ok := e.names[at]; ok {
		return names
	}
	var names []string
	for entry, err := range e.shell.entries(ctx, at) {
		if err != nil {
			return names
		}
		names = append(names, entry.Name)
	}
	e.names[at] = names
	return names
}

// askCobra returns what a command of sreg offers for an argument, as it does to bash.
func (s *shell) askCobra(ctx context.Context, words []string, typed string) (all []string) {
	var out bytes.Buffer
	other := &app{in: strings.NewReader(""), out: &out, err: io.Discard, getenv: s.getenv, quiet: true}
	if err := other.run(ctx, slices.Concat(s.own, []string{cobra.ShellCompNoDescRequestCmd}, words, []string{typed})); exit.Code(err) != exit.OK {
		return nil
	}
	for line := range strings.Lines(out.String()) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, ":") {
			all = append(all, line)
		}
	}
	return all
}

// history is what was typed, in a file that the user alone can read. It implements
// xterm.History.
type history struct {
	path  string
	lines []string
}

const (
	maxHistory     = 1000
	maxHistoryFile = 1 << 20 // bytes
)

func openHistory(path string) *history {
	h := &history{path: path}
	text, err := backends.ReadRegular(path, backends.NoFollow, maxHistoryFile)
	if err != nil {
		return h // it begins anew
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimRight(line, "\n"); line != "" {
			h.lines = append(h.lines, line)
		}
	}
	h.lines = h.lines[max(0, len(h.lines)-maxHistory):]
	return h
}

// Add implements xterm.History. What cannot be written is lost with the process.
func (h *history) Add(line string) {
	if line = strings.TrimSpace(line); line == "" || h.Len() > 0 && h.At(0) == line {
		return
	}
	h.lines = append(h.lines, line)
	h.lines = h.lines[max(0, len(h.lines)-maxHistory):]
	if err := os.MkdirAll(filepath.Dir(h.path), 0o700); err != nil {
		return
	}
	_ = disk.Replace(h.path, []byte(strings.Join(h.lines, "\n")+"\n"), disk.Replacement{Perm: 0o600})
}

// Len implements xterm.History.
func (h *history) Len() int { return len(h.lines) }

// At implements xterm.History.
func (h *history) At(i int) string { return h.lines[len(h.lines)-1-i] }
