// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

func (a *app) logCmd() *cobra.Command {
	var follow, onlyPath bool
	var lines int
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Show the log of the mount",
		Long: `Show the log of the running mount, or of the last one. With --follow what is
written from then on is shown too, until Ctrl-C. More is logged with sregfs -v,
and every request and operation with sregfs -v -v.

Who runs sregfs in the foreground has its log on its standard error, or in the
journal of systemd.`,
		Args: needArgs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := a.logPath(cmd.Context())
			if err != nil {
				return err
			}
			if onlyPath {
				_, err := fmt.Fprintln(a.out, path)
				return err
			}
			if !cmd.Flags().Changed("lines") && term.Is(a.out) {
				lines = shownLines
			}
			return a.showLog(cmd.Context(), path, lines, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written, until Ctrl-C")
	cmd.Flags().IntVarP(&lines, "lines", "n", 0, "only the last `N` lines; 0 for all (on a terminal 100 if it is not said)")
	cmd.Flags().BoolVar(&onlyPath, "path", false, "print the name of the file instead")
	return cmd
}

const (
	shownLines = 100                    // on a terminal
	logPoll    = 250 * time.Millisecond // how long a new line waits
)

// logPath returns the log file of the running mount, or of the one that would run.
func (a *app) logPath(ctx context.Context) (string, error) {
	o, err := a.options()
	if err != nil {
		return "", err
	}
	path := o.Settings.LogFile
	if path == "" {
		path = filepath.Join(o.State, "sregfs.log")
	}
	if runningMount(o) == "" {
		return path, nil
	}
	err = a.with(ctx, func(c *control.Client) error {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if path = st.Details["log"]; st.Mount != "" && path == "" {
			return backends.NotFound("the mount at %s logs to its standard error: look where it was started, or into the journal of systemd", st.Mount)
		}
		return nil
	})
	return path, err
}

// showLog prints the last lines of a file, or all, and follows it by its name: a log that
// grows too large is put aside and begun anew.
func (a *app) showLog(ctx context.Context, path string, lines int, follow bool) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return backends.NotFound("there is no log: %s", path)
	}
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	a.watching = follow
	all := bufio.NewReader(f)
	if err := a.printLast(all, lines); err != nil || !follow {
		return err
	}
	for backends.Pause(ctx, logPoll, nil) {
		next, err := os.Open(path)
		if err == nil && !sameFile(f, next) {
			if err := a.printLines(all); err != nil {
				return err
			}
			f.Close()
			f, all = next, bufio.NewReader(next)
		} else if err == nil {
			next.Close()
		}
		if err := a.printLines(all); err != nil {
			return err
		}
	}
	return nil
}

func sameFile(a, b *os.File) bool {
	x, err := a.Stat()
	y, err2 := b.Stat()
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// printLast prints the last n lines that can be read now; all if n is 0.
func (a *app) printLast(r *bufio.Reader, n int) error {
	if n <= 0 {
		return a.printLines(r)
	}
	last := make([]string, 0, n)
	for {
		line, err := r.ReadString('\n')
		if line != "" {
			if len(last) == n {
				last = append(last[:0], last[1:]...)
			}
			last = append(last, line)
		}
		if err != nil {
			break
		}
	}
	return a.printLines(bufio.NewReader(strings.NewReader(strings.Join(last, ""))))
}

// printLines prints the lines that can be read now.
func (a *app) printLines(r *bufio.Reader) error {
	out := bufio.NewWriter(a.out)
	for {
		line, err := r.ReadString('\n')
		if line != "" {
			end := ""
			if strings.HasSuffix(line, "\n") {
				end = "\n"
			}
			_, _ = out.WriteString(backends.Printable(strings.TrimSuffix(line, "\n")) + end) // Flush keeps the error
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, out.Flush())
		}
	}
}
