// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/cmd/internal/sreg"
	"github.com/sregfs/sregfs/cmd/internal/sregfs"
)

// Main writes all files below the directory that it is given, and returns the exit code:
//
//	man/man1/…, man5/…, man8/…
//	completions/{bash,zsh,fish}/…, by the names that the shells look for
//	systemd/{user,system}/…
//	config.toml, an example
//	commands.md
func Main(args []string) int {
	fs := pflag.NewFlagSet("manual", pflag.ContinueOnError)
	docs := fs.String("docs", "docs", "`directory` of the documentation")
	bin := fs.String("bin", "/usr/local/bin", "`directory` of the programs, for the units")
	epoch := fs.Int64("date", 0, "the manual's date, in `seconds` since 1970")
	if err := fs.Parse(args); err != nil || fs.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: manual [--docs DIR] [--bin DIR] [--date SECONDS] DIR")
		return 2
	}
	files, err := files(*docs, *bin, time.Unix(*epoch, 0).UTC().Format(time.DateOnly))
	if err == nil {
		err = write(fs.Arg(0), files)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "manual:", err)
		return 1
	}
	return 0
}

// files returns the text of each file, by its path.
func files(docs, bin, date string) (map[string]string, error) {
	all := map[string]string{"config.toml": exampleConfig()}
	commands := allCommandPages()
	all["commands.md"] = commandsPage(commands)
	config, err := configPage(docs)
	if err != nil {
		return nil, err
	}
	for _, p := range append(commands, config) {
		all["man/man"+p.section+"/"+p.name+"."+p.section] = p.roff(date)
	}
	units, err := units(bin)
	if err != nil {
		return nil, err
	}
	for file, text := range units {
		all["systemd/"+file] = text
	}
	for _, cmd := range []*cobra.Command{sreg.Command(), sregfs.Command()} {
		if err := completions(all, cmd); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func allCommandPages() []page {
	return append(commandPages(sreg.Command()), commandPages(sregfs.Command())...)
}

// completions adds the scripts that complete cmd.
func completions(all map[string]string, cmd *cobra.Command) error {
	name := cmd.Name()
	for file, generate := range map[string]func(io.Writer) error{
		"bash/" + name:           func(w io.Writer) error { return cmd.GenBashCompletionV2(w, true) },
		"zsh/_" + name:           cmd.GenZshCompletion,
		"fish/" + name + ".fish": func(w io.Writer) error { return cmd.GenFishCompletion(w, true) },
	} {
		var w bytes.Buffer
		if err := generate(&w); err != nil {
			return err
		}
		all["completions/"+file] = w.String()
	}
	return nil
}

// exampleConfig is a configuration in which every setting stands as a comment.
func exampleConfig() string {
	var w strings.Builder
	fmt.Fprint(&w, "# An example: every setting, with nothing set. It belongs in ~/.config/sregfs/config.toml\n"+
		"# for one user; sregfs.toml(5) explains it.\n\n")
	for _, s := range settingItems() {
		usage, _, _ := strings.Cut(s.text, ". The variable is")
		fmt.Fprintf(&w, "# %s: %s\n", s.term, usage)
	}
	for line := range strings.SplitSeq(configExample, "\n") {
		fmt.Fprintln(&w, strings.TrimRight("# "+line, " "))
	}
	return w.String()
}

func write(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
