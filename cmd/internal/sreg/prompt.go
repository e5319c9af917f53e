// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

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
	return interruptible(ctx, func() (string, error) {
		line, err := a.lines.ReadString('\n')
		if err != nil && line == "" {
			return "", fmt.Errorf("no answer: %w", err)
		}
		return strings.TrimSpace(line), nil
	})
}

// dryRunFlag adds the flag -n.
func (a *app) dryRunFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&a.onlySays, "dry-run", "n", false, "only say what it would be done to, and do nothing")
}

// agree asks a question that "y" answers with yes; nothing was done when it returns an error.
func (a *app) agree(ctx context.Context, question string) error {
	text, err := a.ask(ctx, question+" [y/N] ")
	switch {
	case err != nil:
		return err
	case strings.EqualFold(text, "y"), strings.EqualFold(text, "yes"):
		return nil
	}
	return errors.New("not agreed: nothing was done")
}

// interruptible returns the result of read, or ctx's error. open(2) and read(2) of a pipe
// without a writer block and cannot be interrupted, so read goes on in a goroutine, perhaps
// until the process ends.
func interruptible[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := read()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

// askSecret is ask without echo. The standard input is a terminal.
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

// readAll returns all of the standard input, without the space around it. Errors: also
// ctx's.
func (a *app) readAll(ctx context.Context) (string, error) {
	text, err := interruptible(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(a.in, maxInput+1)) })
	switch {
	case err != nil:
		return "", fmt.Errorf("standard input: %w", err)
	case len(text) > maxInput:
		return "", usagef("the standard input has more than %d bytes", maxInput)
	}
	return strings.TrimSpace(string(text)), nil
}
