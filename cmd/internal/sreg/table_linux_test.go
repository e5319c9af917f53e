// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-runewidth"
	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/cmd/internal/exit"
)

// onTerminal returns what print leaves on a terminal of so many columns.
func onTerminal(t *testing.T, columns uint16, print func(*exit.Output)) string {
	t.Helper()
	person, program := terminal(t)
	if err := unix.IoctlSetWinsize(int(program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	out := exit.NewOutput(program)
	go func() {
		print(out)
		io.WriteString(program, "\x04end\n")
	}()
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.Contains(seen.String(), "\x04end") {
		n, err := person.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, &seen)
		}
		seen.Write(buf[:n])
	}
	text, _, _ := strings.Cut(seen.String(), "\x04end")
	return strings.ReplaceAll(text, "\r\n", "\n")
}

func TestTable_width(t *testing.T) {
	t.Parallel()
	rows := func(w io.Writer) {
		tab := newTable(w, "URI", "SIZE", "STATE")
		tab.row("lab://a-collection-with-a-long-name/and-more/of-it/hello-world:2024-01-01", "2.0 MiB", "cached")
		tab.row("lab://研究室/画像処理のためのとても長い名前のコンテナ/イメージ:最新", "1.0 GiB", "partial")
		if err := tab.flush(); err != nil {
			t.Error(err)
		}
	}
	text := onTerminal(t, 50, func(out *exit.Output) { rows(out) })
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines: %q", len(lines), text)
	}
	for _, line := range lines {
		if n := runewidth.StringWidth(line); n > 50 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if !strings.Contains(text, "lab://") || !strings.Contains(text, "2024-01-01  2.0 MiB  cached") || strings.Count(text, "…") != 2 {
		t.Errorf("it is not the middle that is cut:\n%s", text)
	}
	var pipe bytes.Buffer
	rows(&pipe)
	if strings.Contains(pipe.String(), "…") || !strings.Contains(pipe.String(), "of-it/hello-world:2024-01-01 ") {
		t.Errorf("a pipe gets\n%s", &pipe)
	}
}

func TestTable_colours(t *testing.T) {
	t.Parallel()
	rows := func(out *exit.Output) {
		tab := newTable(out, "STATE", "IMAGE")
		tab.row("failed", "a/b")
		tab.row("cached,pinned", "\x1b[2J")
		_ = tab.flush()
	}
	plain := onTerminal(t, 80, rows)
	if strings.Contains(plain, "\x1b") {
		t.Errorf("colours without being asked for: %q", plain)
	}
	text := onTerminal(t, 80, func(out *exit.Output) { out.Colours = true; rows(out) })
	want := "\x1b[1mSTATE\x1b[0m          \x1b[1mIMAGE\x1b[0m\n\x1b[31mfailed\x1b[0m         a/b\n\x1b[32mcached,pinned\x1b[0m  \\x1b[2J\n"
	if text != want {
		t.Errorf("it shows %q, want %q", text, want)
	}
}

// Who wants no colours gets none.
func TestColours(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  map[string]string
		args []string
		want bool
	}{
		{nil, nil, true},
		{map[string]string{"NO_COLOR": "1"}, nil, false},
		{map[string]string{"TERM": "dumb"}, nil, false},
		{nil, []string{"--no-color"}, false},
	} {
		_, program := terminal(t)
		home := t.TempDir()
		a, _ := newApp(home, os.Stdin, io.Discard)
		inner := a.getenv
		a.getenv = func(name string) string {
			if v, ok := c.env[name]; ok {
				return v
			}
			return inner(name)
		}
		out := exit.NewOutput(program)
		a.out = out
		if err := a.run(t.Context(), append(c.args, "version")); err != nil || out.Colours != c.want {
			t.Errorf("%v %v: colours %v, %v", c.env, c.args, out.Colours, err)
		}
	}
}

func TestList_ages(t *testing.T) {
	t.Parallel()
	type thing struct{ when time.Time }
	columns := []column[thing]{{"USED", func(v thing) string { return moment(v.when) }, func(v thing) any { return v.when }}}
	all := allOf([]thing{{time.Now().Add(-73 * time.Hour)}})
	text := onTerminal(t, 80, func(out *exit.Output) {
		if err := printAll(&app{out: out, err: io.Discard}, all, columns...); err != nil {
			t.Error(err)
		}
	})
	if text != "USED\n3 days ago\n" {
		t.Errorf("a terminal shows %q", text)
	}
	var pipe bytes.Buffer
	if err := printAll(&app{out: &pipe, err: io.Discard}, all, columns...); err != nil || strings.Contains(pipe.String(), "ago") {
		t.Errorf("a pipe gets %q, %v", &pipe, err)
	}
}

// A transfer has a bar while it lasts, and leaves a line.
func TestTransfer(t *testing.T) {
	t.Parallel()
	text := onTerminal(t, 80, func(out *exit.Output) {
		a := &app{out: io.Discard, err: out}
		progress, end := a.transfer(transfer{done: "pulled", what: "lab://a-collection-with-a-long-name/hello:1"})
		for n := range int64(20) {
			progress(n<<20, 30<<20)
			time.Sleep(20 * time.Millisecond) // the bar draws by the clock
		}
		end(t.Context(), nil)
	})
	if !strings.Contains(text, "%") || !strings.Contains(text, "MiB/s") || !strings.Contains(text, "/30 MiB") {
		t.Errorf("the bar is %q", text)
	}
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if n := runewidth.StringWidth(line); !strings.Contains(line, "sreg:") && n > 90 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if last := text[strings.LastIndex(text, "sreg: "):]; !strings.HasPrefix(last, "sreg: pulled lab://a-collection-with-a-long-name/hello:1: 19 MiB in 0") {
		t.Errorf("the last line is %q", last)
	}
}
