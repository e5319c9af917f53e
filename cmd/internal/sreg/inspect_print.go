// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/inspect"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// inspectParts are the parts of an image that are asked for; the zero value is the overview.
type inspectParts struct {
	all                                                     bool
	labels, runscript, startscript, definition, environment bool
	help, test                                              bool
}

func (p *inspectParts) flags(fs *pflag.FlagSet) {
	fs.BoolVar(&p.all, "all", false, "also what the author did not write")
	fs.BoolVarP(&p.definition, "deffile", "d", false, "only the definition file")
	fs.BoolVarP(&p.environment, "environment", "e", false, "only the environment")
	fs.BoolVarP(&p.help, "helpfile", "H", false, "only the help")
	fs.BoolVarP(&p.labels, "labels", "l", false, "only the labels")
	fs.BoolVarP(&p.runscript, "runscript", "r", false, "only the run script")
	fs.BoolVarP(&p.startscript, "startscript", "s", false, "only the start script")
	fs.BoolVarP(&p.test, "test", "t", false, "only the test script")
}

// printInspection prints what the author wrote, or all, or single parts.
func (a *app) printInspection(in inspection, parts inspectParts) error {
	if parts != (inspectParts{all: parts.all}) {
		return a.printParts(in, parts)
	}
	f, left := in.Facts, 0
	if !parts.all {
		f, left = f.Own()
	}
	if err := printHead(a.out, in.Record, f, parts.all); err != nil {
		return err
	}
	printMap(a.out, "told by the registry", in.Record.Labels)
	printMap(a.out, "labels", f.Labels)
	printConfig(a.out, f.Config)
	printLayers(a.out, f.Layers, parts.all)
	if parts.all {
		printHistory(a.out, f.History)
		printDescriptors(a.out, f.Descriptors)
	}
	most := maxLines
	if parts.all {
		most = math.MaxInt
	}
	cut := 0
	for _, s := range scriptsOf(f, parts.all) {
		cut += printText(a.out, s.title, s.text, most)
	}
	return printRest(a.out, left, cut)
}

// maxLines is how much of a script the overview has: all of it shall fit on a screen.
const maxLines = 12

// printRest tells what the overview left out.
func printRest(w io.Writer, left, cut int) error {
	var rest []string
	if cut > 0 {
		rest = append(rest, plural(cut, "line"))
	}
	if left > 0 {
		rest = append(rest, fmt.Sprintf("%d of the build tool's labels and scripts", left))
	}
	if len(rest) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nmore  %s (--all shows them)\n", strings.Join(rest, ", "))
	return err
}

// A script is one text of an image.
type script struct {
	title, text string
}

// scriptsOf are the texts of an image. What is alone of its kind needs no name of a file.
func scriptsOf(f *inspect.Facts, all bool) []script {
	scripts := []script{{"help", f.Help}, {"runscript", f.RunScript}, {"startscript", f.StartScript}, {"test", f.Test}}
	for _, name := range slices.Sorted(maps.Keys(f.Environment)) {
		title := "environment " + name
		if !all && len(f.Environment) == 1 {
			title = "environment"
		}
		scripts = append(scripts, script{title, f.Environment[name]})
	}
	return append(scripts, script{"definition", f.Definition})
}

// printParts prints the parts that are asked for, whole and as they stand in the image, in
// the order and form that "apptainer inspect" has.
func (a *app) printParts(in inspection, parts inspectParts) error {
	f := in.Facts
	var missing []string
	text := func(wanted bool, name, text string) {
		switch {
		case !wanted:
		case text == "":
			missing = append(missing, name)
		default:
			printRaw(a.out, text)
		}
	}
	text(parts.help, "help", f.Help)
	text(parts.definition, "definition", f.Definition)
	text(parts.runscript, "run script", f.RunScript)
	text(parts.startscript, "start script", f.StartScript)
	text(parts.test, "test", f.Test)
	if parts.environment {
		own, _ := f.Own()
		for _, name := range slices.Sorted(maps.Keys(f.Environment)) {
			if _, ok := own.Environment[name]; ok || parts.all {
				printRaw(a.out, "=== /.singularity.d/env/"+name+" ===\n"+f.Environment[name]+"\n")
			}
		}
	}
	if parts.labels {
		for _, name := range slices.Sorted(maps.Keys(f.Labels)) {
			printRaw(a.out, name+": "+f.Labels[name])
		}
	}
	for _, name := range missing {
		a.notice(cmp.Or(in.Record.URI, in.Record.Path) + " has no " + name)
	}
	return nil
}

// printRaw prints a text with its lines and its margin. Other control characters are escaped:
// a terminal would obey them.
func printRaw(w io.Writer, text string) {
	for line := range strings.Lines(text) {
		for i, cell := range strings.Split(strings.TrimRight(line, "\r\n"), "\t") {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, backends.Printable(cell))
		}
		fmt.Fprintln(w)
	}
}

// printHead prints first what the registry says, then the image itself.
func printHead(w io.Writer, r verbs.Record, f *inspect.Facts, all bool) error {
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
	if all {
		field("id", f.ID)
	}
	field("created", f.Created)
	if f.Base != nil {
		field("base", strings.TrimSpace(f.Base.Name+" "+f.Base.Digest))
	}
	for _, s := range f.Signatures {
		field("signature", signatureText(s, f.Verification))
	}
	for _, note := range f.Notes {
		field("note", note)
	}
	return t.flush()
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

// printLayers lists the layers, or says how many there are.
func printLayers(w io.Writer, layers []inspect.Layer, all bool) {
	if len(layers) == 0 {
		return
	}
	if !all {
		sum := int64(0)
		for _, l := range layers {
			sum += l.Size
		}
		fmt.Fprintf(w, "\nlayers: %d, %s (--all lists them)\n", len(layers), size(sum))
		return
	}
	fmt.Fprint(w, "\nlayers:\n")
	t := newTable(w)
	for _, l := range layers {
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
		kind := strings.TrimRight(strings.Join([]string{d.Type, d.FS, d.Part, d.Detail}, " "), " ")
		t.row(fmt.Sprintf("  %d", d.ID), kind, size(d.Size), d.Name)
	}
	_ = t.flush()
}

// printText prints a script, indented, with its lines kept, up to a number of them. It returns
// how many it left out.
func printText(w io.Writer, title, text string, most int) (left int) {
	if strings.TrimSpace(text) == "" {
		return 0
	}
	fmt.Fprintf(w, "\n%s:\n", backends.Printable(title))
	n := 0
	for line := range strings.Lines(strings.Trim(text, "\n")) {
		if n++; n > most {
			continue
		}
		line = backends.Printable(strings.ReplaceAll(strings.TrimRight(line, " \t\r\n"), "\t", "    "))
		fmt.Fprintln(w, strings.TrimRight("  "+line, " "))
	}
	if left = max(n-most, 0); left > 0 {
		fmt.Fprintln(w, "  …")
	}
	return left
}
