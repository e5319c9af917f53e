// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/cmd/internal/config"
)

// commandPages returns a page for root and each command below it, in the order of their names.
func commandPages(root *cobra.Command) []page {
	root.InitDefaultCompletionCmd()
	var all []page
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		all = append(all, commandPage(cmd))
		for _, c := range commandsOf(cmd) {
			walk(c)
		}
	}
	walk(root)
	return all
}

// commandsOf returns the subcommands that are documented.
func commandsOf(cmd *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(cmd.Commands()), func(c *cobra.Command) bool {
		return !c.IsAvailableCommand() || c.Name() == "help" || c.Name() == "powershell"
	})
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

func commandPage(cmd *cobra.Command) page {
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	p := page{name: pageName(cmd), title: cmd.CommandPath(), section: "1", short: cmd.Short, synopsis: []string{cmd.UseLine()}}
	if cmd.Name() == "sregfs" {
		p.section = "8"
	}
	help := cmd.Long
	if help == "" {
		help = cmd.Short + "."
	}
	p.add("Description", blocksOf(help)...)
	if len(cmd.Aliases) > 0 {
		p.add("Other names", block{text: "`" + strings.Join(cmd.Aliases, "`, `") + "`"})
	}
	p.add("Commands", commandItems(cmd)...)
	p.add("Options", flagItems(cmd.NonInheritedFlags())...)
	p.add("Examples", exampleOf(cmd)...)
	if cmd.HasParent() {
		p.also = append(p.also, pageName(cmd.Parent())+"(1)")
	}
	for _, c := range commandsOf(cmd) {
		p.also = append(p.also, pageName(c)+"(1)")
	}
	if !cmd.HasParent() {
		p.also = append(p.also, map[string]string{"sreg": "sregfs(8)", "sregfs": "sreg(1)"}[cmd.Name()], "sregfs.toml(5)")
	}
	return p
}

// add appends a part, if there is something in it.
func (p *page) add(heading string, blocks ...block) {
	if len(blocks) > 0 {
		p.parts = append(p.parts, part{heading, blocks})
	}
}

func commandItems(cmd *cobra.Command) []block {
	var all []block
	for _, c := range commandsOf(cmd) {
		all = append(all, block{kind: item, term: c.CommandPath(), text: c.Short})
	}
	return all
}

func exampleOf(cmd *cobra.Command) []block {
	if cmd.Example == "" {
		return nil
	}
	return []block{{kind: literal, text: unindent(strings.Split(strings.Trim(cmd.Example, "\n"), "\n"))}}
}

func flagItems(fs *pflag.FlagSet) []block {
	var all []block
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Deprecated == "" && f.Name != "help" {
			all = append(all, flagItem(f))
		}
	})
	return all
}

func flagItem(f *pflag.Flag) block {
	arg, usage := pflag.UnquoteUsage(f)
	term := "--" + f.Name
	if f.Shorthand != "" {
		term = "-" + f.Shorthand + ", " + term
	}
	switch {
	case f.NoOptDefVal != "" && arg != "":
		term += "[=" + arg + "]"
	case arg != "":
		term += " " + arg
	}
	if d := defaultOf(f); d != "" {
		usage += " (default " + d + ")"
	}
	return block{kind: item, term: term, text: usage}
}

// defaultOf returns the default of a flag as its help says it, "" if it goes without saying.
func defaultOf(f *pflag.Flag) string {
	switch f.DefValue {
	case "", "0", "false", "[]", "0s":
		return ""
	}
	if strings.Contains(f.Usage, "(default ") {
		return ""
	}
	return f.DefValue
}

// settingItems says of each setting what its key, variable and flag are.
func settingItems() []block {
	var s config.Settings
	fs := pflag.NewFlagSet("settings", pflag.ContinueOnError)
	fs.SortFlags = false
	s.Flags(fs)
	var all []block
	fs.VisitAll(func(f *pflag.Flag) {
		b := flagItem(f)
		b.term = config.KeyOf(f.Name)
		b.text += ". The variable is `" + config.VariableOf(f.Name) + "`."
		all = append(all, b)
	})
	return all
}
