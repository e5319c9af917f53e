// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

// watchEvery is how often what is watched is shown again. Without a mount each time takes
// the state, which another sreg waits for meanwhile.
const watchEvery = 2 * time.Second

// A screen collects what is printed for a terminal, whose properties it has.
type screen struct {
	*exit.Output
	text bytes.Buffer
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) { return s.text.Write(p) }

// WriteString implements io.StringWriter.
func (s *screen) WriteString(text string) (int, error) { return s.text.WriteString(text) }

// watch prints again and again until ctx ends, which is no error: on a terminal always in
// the same place, elsewhere one below the other.
func (a *app) watch(ctx context.Context, show func(context.Context) error) error {
	a.watching = true
	out, ok := a.out.(*exit.Output)
	redraw := ok && term.Is(out) && a.format != asJSON
	for first := true; ; first = false {
		var err error
		if redraw {
			s := &screen{Output: out}
			a.out = s
			err = show(ctx)
			a.out = out
			if err == nil {
				err = draw(out, s.text.String())
			}
		} else {
			if !first && a.format != asJSON {
				fmt.Fprintln(a.out)
			}
			err = show(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if !backends.Pause(ctx, watchEvery, nil) {
			return nil
		}
	}
}

// draw replaces what a terminal shows, without a moment of nothing. What does not fit is
// left out.
func draw(w io.Writer, text string) error {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if rows := term.Height(w); rows > 1 && len(lines) > rows-1 {
		lines = append(lines[:rows-2], "…")
	}
	const home, restOfLine, restOfScreen = "\x1b[H", "\x1b[K", "\x1b[J"
	_, err := io.WriteString(w, home+strings.Join(lines, restOfLine+"\n")+restOfLine+"\n"+restOfScreen)
	return err
}
