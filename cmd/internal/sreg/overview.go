// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/engine"
	"github.com/sregfs/sregfs/cmd/internal/term"
	"github.com/sregfs/sregfs/fsys/fusefs"
)

// groups are the commands by what they are for. One that is in none is under "other".
var groups = []struct {
	id       string
	title    string
	commands []string
}{
	{"look", "Look", []string{"images", "search", "inspect", "verify", "labels", "tags", "diff", "history", "shell"}},
	{"bring", "Bring and run", []string{"pull", "get", "warm", "run", "exec"}},
	{"give", "Publish", []string{"push", "add", "record", "cp", "sync", "build", "share"}},
	{"change", "Change", []string{"mv", "rename", "tag", "untag", "rm", "rmi", "pin", "unpin"}},
	{"setup", "Registries", []string{"remote", "login", "logout", "backend", "config", "import"}},
	{"here", "This machine", []string{"status", "uploads", "cache", "log", "doctor", "mount", "unmount", "path"}},
}

// grouped sorts the commands into groups, for the help and the overview.
func grouped(root *cobra.Command) {
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title + ":"})
		for _, cmd := range root.Commands() {
			if slices.Contains(g.commands, cmd.Name()) {
				cmd.GroupID = g.id
			}
		}
	}
}

// overview is what "sreg" alone prints: what there is, what is set up, and what to do next,
// on one screen of 24 lines.
func (a *app) overview(cmd *cobra.Command) error {
	var text bytes.Buffer
	width := term.Width(a.out)
	if width == 0 {
		width = 80
	}
	fmt.Fprint(&text, "sreg works with container images on every registry, and on this machine.\n\n")
	for _, g := range groups {
		var names []string
		for _, name := range g.commands {
			if found, _, err := cmd.Find([]string{name}); err == nil && found != cmd && found.Name() == name {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			fmt.Fprintf(&text, "  %-14s %s\n", g.title, strings.Join(names, "  "))
		}
	}
	o, err := a.options()
	if err == nil {
		fmt.Fprintln(&text)
		a.printSetUp(&text, cmd.Context(), o, width)
	}
	fmt.Fprintln(&text, "\n\"sreg help\" tells more, \"sreg help COMMAND\" all about one.")
	if _, wrong := a.out.Write(text.Bytes()); wrong != nil {
		return wrong
	}
	return err
}

// printSetUp says what is configured, and what one may do next.
func (a *app) printSetUp(text *bytes.Buffer, ctx context.Context, o engine.Options, width int) {
	line := func(name, what string) {
		fmt.Fprintln(text, middleCut(fmt.Sprintf("  %-14s %s", name, backends.Printable(what)), width-1))
	}
	mount := runningMount(o)
	if mount == "" {
		line("mount", "none is running")
	} else {
		line("mount", mount)
	}
	for _, at := range fusefs.Dead(ctx) {
		line("dead mount", at+" (sreg status says what to do)")
	}
	names := []string{config.Local}
	for _, r := range o.Settings.Remotes {
		if r.Name != config.Local {
			names = append(names, r.Name)
		}
	}
	line("remotes", strings.Join(names, ", "))
	fmt.Fprintln(text, "\nNext:")
	next := func(command, why string) { fmt.Fprintf(text, "  %-32s %s\n", command, why) }
	if len(names) == 1 {
		next("sreg remote add docker docker", "name a registry: here Docker Hub")
		next("sreg add FILE lab/hello:1", "keep an image of yours")
	} else {
		next("sreg search WORD", "find an image")
		next("sreg pull REMOTE://NAME:TAG", "bring it to this machine")
	}
	if mount == "" {
		next("sregfs DIRECTORY", "use images without pulling them")
	} else {
		next("sreg status", "what the mount does")
	}
}
