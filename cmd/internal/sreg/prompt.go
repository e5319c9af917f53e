// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

// maxInput bounds what is read from the standard input, in bytes.
const maxInput = 64 << 10

// ask prints a question for a person and returns the line that is typed.
func (a *app) ask(ctx context.Context, question string) (string, error) {
	fmt.Fprint(a.err, backends.Printable(question))
	if a.lines == nil {
		a.lines = bufio.NewReader(io.LimitReader(a.in, maxInput))
	}
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	// The goroutine stays in its read if the question is interrupted; the process
	// ends then.
	go func() {
		line, err := a.lines.ReadString('\n')
		if line != "" {
			err = nil
		}
		answers <- answer{strings.TrimSpace(line), err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case got := <-answers:
		if got.err != nil {
			return "", fmt.Errorf("no answer: %w", got.err)
		}
		return got.text, nil
	}
}

// askSecret is ask for what must not be seen. The standard input is a terminal.
func (a *app) askSecret(ctx context.Context, question string) (string, error) {
	f, ok := a.in.(*os.File)
	if !ok || !term.Is(f) {
		return "", usagef("nobody can be asked: say --token-stdin")
	}
	restore, err := term.Silence(f)
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	defer func() {
		restore() // also when the question is interrupted
		fmt.Fprintln(a.err)
	}()
	return a.ask(ctx, question)
}

// readAll returns all of the standard input, without the space around it.
func (a *app) readAll() (string, error) {
	text, err := io.ReadAll(io.LimitReader(a.in, maxInput+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("standard input: %w", err)
	case len(text) > maxInput:
		return "", usagef("the standard input has more than %d bytes", maxInput)
	}
	return strings.TrimSpace(string(text)), nil
}
