// SPDX-License-Identifier: Apache-2.0

package badger_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/sregfs/sregfs/catalog/badger"
)

// A test binary with this set opens the index it names and does what its stdin
// says. Some damage ends the process, on goroutines that are Badger's.
const serveEnv = "SREGFS_TEST_SERVE"

// serve answers one line for each command:
//
//	put FROM TO GEN     ok, or the kind of error
//	get FROM TO GEN     right=N old=N missing=N wrong=N
//	scan GEN            the same, of all there is
//	stream FROM         the number of each record once it is stored, for ever
//	close               ok
func serve(dir string) {
	db, err := badger.Open(dir, badger.Options{})
	if err != nil {
		fmt.Println(kind(err))
		return
	}
	fmt.Println("open", "damaged:", db.Damage() != nil)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var cmd string
		var a, b, gen int
		fmt.Sscan(in.Text(), &cmd, &a, &b, &gen)
		switch cmd {
		case "put":
			fmt.Println(kind(db.Apply(records(a, b, gen)...)))
		case "get":
			var c counts
			for i := a; i < b; i++ {
				got, err := db.Get(record(i, 1).Key)
				c.add(i, gen, got, err)
			}
			fmt.Println(c)
		case "scan":
			fmt.Println(scanAll(db, a))
		case "stream":
			for ; ; a++ {
				if err := db.Apply(record(a, 1)); err != nil {
					fmt.Println("error:", err)
					return
				}
				fmt.Println(a)
			}
		case "close":
			fmt.Println(kind(db.Close()))
		}
	}
}

func scanAll(db *badger.DB, gen int) string {
	var c counts
	for pair, err := range db.Scan(nil, nil) {
		if err != nil {
			return kind(err)
		}
		i := -1
		fmt.Sscanf(string(pair.Key), "key/%d", &i)
		c.add(i, gen, pair.Value, nil)
	}
	return c.String()
}

func kind(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, syscall.ENOSPC):
		return "ENOSPC"
	case errors.Is(err, syscall.EIO):
		return "EIO"
	case errors.Is(err, syscall.EROFS):
		return "EROFS"
	case errors.Is(err, syscall.EMFILE):
		return "EMFILE"
	}
	return "error: " + err.Error()
}

// counts are of answers: the record in its last generation, in an earlier one,
// none, or something else.
type counts struct{ right, old, missing, wrong int }

func (c *counts) add(i, gen int, got []byte, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.missing++
	case err != nil || i < 0:
		c.wrong++
	case string(got) == string(record(i, gen).Value):
		c.right++
	case gen > 1 && string(got) == string(record(i, gen-1).Value):
		c.old++
	default:
		c.wrong++
	}
}

func (c counts) String() string {
	return fmt.Sprintf("right=%d old=%d missing=%d wrong=%d", c.right, c.old, c.missing, c.wrong)
}

func parseCounts(t *testing.T, line string) (c counts) {
	t.Helper()
	if _, err := fmt.Sscanf(line, "right=%d old=%d missing=%d wrong=%d", &c.right, &c.old, &c.missing, &c.wrong); err != nil {
		t.Fatalf("counts %q: %v", line, err)
	}
	return c
}

// A child is a process that serves an index.
type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr strings.Builder
	opened string // its first line
}

// start runs a child; opened is "" if it died.
func start(t testing.TB, dir string) *child {
	t.Helper()
	return startCommand(t, dir, exec.Command(os.Args[0])) // its end is a cleanup
}

func startCommand(t testing.TB, dir string, cmd *exec.Cmd) *child {
	t.Helper()
	c := &child{cmd: cmd}
	c.cmd.Env = append(os.Environ(), serveEnv+"="+dir)
	c.cmd.Stderr = &c.stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.out = in, bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.end() })
	c.opened = c.line()
	return c
}

func (c *child) line() string {
	line, err := c.out.ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimSpace(line)
}

// do gives the answer to a command; "" if the child died.
func (c *child) do(format string, args ...any) string {
	fmt.Fprintf(c.in, format+"\n", args...)
	return c.line()
}

// must is do with an expected answer.
func (c *child) must(t testing.TB, want, format string, args ...any) {
	t.Helper()
	if got := c.do(format, args...); got != want {
		t.Fatalf("%s: %q, want %q\n%s", fmt.Sprintf(format, args...), got, want, head(c.stderr.String()))
	}
}

func (c *child) kill() {
	c.cmd.Process.Kill()
	c.end()
}

func (c *child) end() {
	c.in.Close()
	c.cmd.Wait()
}

func head(text string) string { return text[:min(len(text), 1500)] }
