// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/inspect"
	"github.com/sregfs/sregfs/catalog/verbs"
)

func (a *app) inspectCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "inspect URI",
		Aliases: []string{"info", "show"},
		Short:   "Show what an image says of itself",
		Long: `Show an image's labels, scripts, definition and signatures. Only the parts of the
image that hold them are fetched; nothing is run, and no signature is verified.

With -o json: {image, facts}; image is as "sreg images" has it.`,
		Args: needArgs(1, 1),

		ValidArgsFunction: a.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				in, err := c.Inspect(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if a.format == asJSON {
					return a.printJSON(in)
				}
				facts := in.Facts
				if facts == nil {
					facts = &inspect.Facts{}
				}
				return printInspection(a.out, in.Record, facts)
			})
		},
	}
}

// printInspection prints first what the registry says, then the image itself.
func printInspection(w io.Writer, r verbs.Record, f *inspect.Facts) error {
	t := newTable(w)
	field := func(name, value string) {
		if value != "" {
			t.row(name, value)
		}
	}
	field("uri", r.URI)
	field("size", size(r.Size)+" ("+strconv.FormatInt(r.Size, 10)+" bytes)")
	field("digest", r.Digest)
	if r.Version != r.Digest {
		field("version", r.Version)
	}
	field("modified", moment(r.Modified))
	field("state", state(r))
	field("path", r.Path)
	field("url", r.URL)
	field("format", f.Format)
	field("arch", f.Arch)
	field("id", f.ID)
	field("created", f.Created)
	if f.Base != nil {
		field("base", strings.TrimSpace(f.Base.Name+" "+f.Base.Digest))
	}
	for _, s := range f.Signatures {
		field("signature", s.Fingerprint+" of objects "+fmt.Sprint(s.Objects)+", not verified")
	}
	for _, note := range f.Notes {
		field("note", note)
	}
	if err := t.flush(); err != nil {
		return err
	}
	printMap(w, "told by the registry", r.Labels)
	printParts(w, f)
	return nil
}

func printParts(w io.Writer, f *inspect.Facts) {
	printMap(w, "labels", f.Labels)
	printConfig(w, f.Config)
	printLayers(w, f.Layers)
	printHistory(w, f.History)
	printDescriptors(w, f.Descriptors)
	for _, s := range [][2]string{{"help", f.Help}, {"runscript", f.RunScript}, {"startscript", f.StartScript}, {"test", f.Test},
		{"definition", f.Definition}} {
		printText(w, s[0], s[1])
	}
	for _, name := range slices.Sorted(maps.Keys(f.Environment)) {
		printText(w, "environment "+name, f.Environment[name])
	}
}

func printMap(w io.Writer, title string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	t := newTable(w)
	for _, k := range slices.Sorted(maps.Keys(m)) {
		t.row("  "+k, m[k])
	}
	_ = t.flush()
}

// printConfig prints how a container image wants to be run.
func printConfig(w io.Writer, c *inspect.Config) {
	if c == nil {
		return
	}
	fmt.Fprint(w, "\nconfiguration:\n")
	t := newTable(w)
	field := func(name, value string) {
		if value != "" {
			t.row("  "+name, value)
		}
	}
	command := func(name string, args []string) {
		if len(args) > 0 {
			field(name, fmt.Sprintf("%q", args))
		}
	}
	command("entrypoint", c.Entrypoint)
	command("cmd", c.Cmd)
	field("workdir", c.WorkingDir)
	field("user", c.User)
	for _, env := range c.Env {
		field("env", env)
	}
	for _, port := range c.Ports {
		field("port", port)
	}
	for _, volume := range c.Volumes {
		field("volume", volume)
	}
	field("stop signal", c.StopSignal)
	_ = t.flush()
}

// maxStep is how much of the command that made a layer is printed, in bytes.
const maxStep = 80

func printLayers(w io.Writer, all []inspect.Layer) {
	if len(all) == 0 {
		return
	}
	fmt.Fprint(w, "\nlayers:\n")
	t := newTable(w)
	for _, l := range all {
		t.row("  "+l.Digest, size(l.Size), shortStep(l.CreatedBy))
	}
	_ = t.flush()
}

// printHistory prints the steps of the build, if some made no layer: the others stand there.
func printHistory(w io.Writer, all []inspect.Step) {
	if !slices.ContainsFunc(all, func(s inspect.Step) bool { return s.Empty }) {
		return
	}
	fmt.Fprint(w, "\nhistory:\n")
	t := newTable(w)
	for _, s := range all {
		t.row("  "+s.Created, shortStep(cmp.Or(s.CreatedBy, s.Comment)))
	}
	_ = t.flush()
}

func shortStep(command string) string {
	step := strings.Join(strings.Fields(command), " ")
	if len(step) > maxStep {
		step = strings.ToValidUTF8(step[:maxStep], "") + "…"
	}
	return step
}

func printDescriptors(w io.Writer, all []inspect.Descriptor) {
	if len(all) == 0 {
		return
	}
	fmt.Fprint(w, "\nobjects:\n")
	t := newTable(w)
	for _, d := range all {
		kind := strings.TrimRight(strings.Join([]string{d.Type, d.FS, d.Part}, " "), " ")
		t.row(fmt.Sprintf("  %d", d.ID), kind, size(d.Size), d.Name)
	}
	_ = t.flush()
}

// printText prints a script, indented, with its lines kept.
func printText(w io.Writer, title, text string) {
	if strings.TrimSpace(text) == "" {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", backends.Printable(title))
	for line := range strings.Lines(strings.Trim(text, "\n")) {
		line = backends.Printable(strings.ReplaceAll(strings.TrimRight(line, " \t\r\n"), "\t", "    "))
		fmt.Fprintln(w, strings.TrimRight("  "+line, " "))
	}
}
