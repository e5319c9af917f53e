// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"context"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/cmd/internal/buildtest"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/sreg"
	"github.com/sregfs/sregfs/cmd/internal/sregfs"
)

const docs = "../../../docs"

var (
	update = flag.Bool("update", false, "write docs/commands.md")
	bin    string // where the built programs are
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(buildtest.Run(m, &bin))
}

// need skips the test where a program is missing.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("SREGFS_NOSKIP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// Every command and every flag says what it is for.
func TestText(t *testing.T) {
	t.Parallel()
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: Short is %q, want a line without a full stop", cmd.CommandPath(), cmd.Short)
		}
		if cmd.Long == "" && cmd.Example == "" && (cmd.HasLocalFlags() || strings.Contains(cmd.Use, " ")) {
			t.Errorf("%s: what its flags and arguments mean is said nowhere: Long and Example are empty", cmd.CommandPath())
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if strings.TrimSpace(f.Usage) == "" {
				t.Errorf("%s: --%s has no text", cmd.CommandPath(), f.Name)
			}
		})
		for _, c := range cmd.Commands() {
			check(c)
		}
	}
	check(sreg.Command())
	check(sregfs.Command())
}

func TestCommandsPage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(docs, "commands.md")
	want := commandsPage(allCommandPages())
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/commands.md is not what the commands say; run: make docs\n%s", diff)
	}
}

// written writes all files below a new directory, with the units for the built programs.
func written(t *testing.T) (dir string) {
	t.Helper()
	files, err := files(docs, bin, "2026-11-30")
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := write(dir, files); err != nil {
		t.Fatal(err)
	}
	return dir
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil || len(all) == 0 {
		t.Fatalf("%s: no files (%v)", pattern, err)
	}
	return all
}

// run runs a program that is to say nothing on the standard error.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	need(t, name)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a shell that offers nothing waits
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80", "MANPAGER=cat", "XDG_RUNTIME_DIR="+t.TempDir(), "PATH="+bin+":"+os.Getenv("PATH"))
	var out, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil || stderr.Len() > 0 {
		t.Errorf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.String(), stderr.String())
	}
	return out.String()
}

func TestManPages(t *testing.T) {
	t.Parallel()
	pages := glob(t, filepath.Join(written(t), "man/man?/*"))
	t.Run("mandoc", func(t *testing.T) {
		run(t, "mandoc", append([]string{"-T", "lint", "-W", "warning"}, pages...)...)
	})
	t.Run("man", func(t *testing.T) {
		out := run(t, "man", append([]string{"--warnings", "-E", "UTF-8", "-l"}, pages...)...)
		for _, want := range []string{"sreg-cache-ls - List", "sregfs - Mount", "sregfs.toml - config", "cache_size", "push_by"} {
			if !strings.Contains(out, want) {
				t.Errorf("the pages do not say %q", want)
			}
		}
	})
}

// sregfs.toml(5) has every key that a configuration can have.
func TestConfigPage(t *testing.T) {
	t.Parallel()
	p, err := configPage(docs)
	if err != nil {
		t.Fatal(err)
	}
	text := p.roff("2026-11-30")
	for _, key := range config.CommonKeys() {
		if !strings.Contains(text, roffText(key)) {
			t.Errorf("no word on %s", key)
		}
	}
}

// The example of a configuration loads, as it is and with its comments taken away.
func TestExampleConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	lines := strings.Split(exampleConfig(), "\n")
	start := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "# cache_size =") })
	for i := range lines[start:] {
		lines[start+i] = strings.TrimPrefix(strings.TrimPrefix(lines[start+i], "#"), " ")
	}
	for _, text := range []string{exampleConfig(), strings.Join(lines, "\n")} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "sreg"), "--config", path, "remote", "ls", "-o", "json")
		cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s\n%s", err, out, text)
		}
	}
}

func TestUnits(t *testing.T) {
	t.Parallel()
	dir := written(t)
	// The instance's name is "scratch/images" in the way of units.
	run(t, "systemd-analyze", "--man=no", "verify", filepath.Join(dir, "systemd/system/sregfs@scratch-images.service"))
	run(t, "systemd-analyze", "--man=no", "--user", "verify",
		filepath.Join(dir, "systemd/user/sregfs.service"), filepath.Join(dir, "systemd/user/sregfs@scratch-images.service"))
}

func TestBlocksOf(t *testing.T) {
	t.Parallel()
	got := blocksOf("one\ntwo\n\n  a  b\n    c\n\n  d\n\nthree:\n\tcode")
	want := []block{
		{text: "one\ntwo"}, {kind: literal, text: "a  b\n  c\n\nd"}, {text: "three:"}, {kind: literal, text: "code"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(block{})); diff != "" {
		t.Error(diff)
	}
}

func TestRoff(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		".profile":             `\&.profile`,
		"it's\n'quoted'":       `it\(aqs` + "\n" + `\(aqquoted\(aq`,
		`a\b --flag ~/x`:       `a\eb \-\-flag \(ti/x`,
		"say `-x` or `--long`": `say \fB\-x\fR or \fB\-\-long\fR`,
	} {
		if got := roffSpans(in); got != want {
			t.Errorf("roffSpans(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestFilesAreTheSame(t *testing.T) {
	t.Parallel()
	a, err := files(docs, "/usr/bin", "2026-11-30")
	if err != nil {
		t.Fatal(err)
	}
	b, err := files(docs, "/usr/bin", "2026-11-30")
	if err != nil || !maps.Equal(a, b) {
		t.Errorf("two runs are not the same: %v", err)
	}
}
