// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sregfs/sregfs/backends"
)

// A format is how the answer is printed.
type format string

const (
	asText format = "text"
	asJSON format = "json" // as data: the JSON fields, in the encoding that was asked for
)

// An encoding is how data is written.
type encoding string

const (
	inJSON     encoding = "json"
	inYAML     encoding = "yaml"
	inCSV      encoding = "csv"
	inNames    encoding = "name"
	inTemplate encoding = "template"
)

// outputFlag is the flag -o.
type outputFlag struct{ a *app }

// Set implements pflag.Value.
func (f outputFlag) Set(s string) error {
	switch e := encoding(s); e {
	case encoding(asText):
		f.a.format = asText
	case inJSON, inYAML, inCSV, inNames:
		f.a.format, f.a.encoding = asJSON, e
	default:
		return errors.New("must be text, json, yaml, csv or name")
	}
	return nil
}

// String implements pflag.Value.
func (f outputFlag) String() string {
	if f.a == nil || f.a.format != asJSON {
		return string(asText)
	}
	return string(f.a.encoding)
}

// Type implements pflag.Value.
func (f outputFlag) Type() string { return "format" }

// errorsAsJSON reports whether a failure is for a program. The arguments are looked at, too,
// because a wrong flag may stand before -o.
func (a *app) errorsAsJSON(args []string) bool {
	for i, arg := range args {
		value, joined := strings.CutPrefix(arg, "--output=")
		switch {
		case arg == "--":
			args = nil
		case (arg == "-o" || arg == "--output") && i+1 < len(args):
			value = args[i+1]
		case !joined && strings.HasPrefix(arg, "-o"):
			value = strings.TrimPrefix(arg[2:], "=")
		case !joined:
			continue
		}
		if args == nil {
			break
		}
		if value == string(inJSON) || value == string(inYAML) {
			return true
		}
	}
	return false
}

// printJSON prints one value as data.
func (a *app) printJSON(v any) error {
	switch a.encoding {
	case inYAML:
		return writeYAML(a.out, v)
	case inCSV:
		return writeValueCSV(a.out, v)
	case inNames:
		return a.printName(v)
	case inTemplate:
		return a.execute(v)
	}
	return writeJSON(a.out, v, "  ")
}

// writeJSON writes one value, with control characters escaped: a terminal may show it.
func writeJSON(w io.Writer, v any, indent string) error {
	text, err := encodeJSON(v, indent)
	if err != nil {
		return err
	}
	_, err = w.Write(backends.PrintableJSON(text))
	return err
}

func encodeJSON(v any, indent string) ([]byte, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", indent)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return text.Bytes(), err
}

// writeYAML writes one document.
func writeYAML(w io.Writer, v any) error {
	node, err := nodeOf(v)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(node), e.Close()); err != nil {
		return err
	}
	_, err = w.Write(backends.PrintableJSON(text.Bytes()))
	return err
}

// writeValueCSV writes the fields of one value as a header and a row; what has fields itself
// is JSON in its cell.
func writeValueCSV(w io.Writer, v any) error {
	node, err := nodeOf(v)
	if err != nil {
		return err
	}
	if node.Kind != yaml.MappingNode {
		return usagef("-o csv: this answer is no list; -o json has it")
	}
	var header, row []string
	for i := 0; i+1 < len(node.Content); i += 2 {
		cell := node.Content[i+1].Value
		if node.Content[i+1].Kind != yaml.ScalarNode {
			var nested any
			if err := node.Content[i+1].Decode(&nested); err != nil {
				return err
			}
			text, err := encodeJSON(nested, "")
			if err != nil {
				return err
			}
			cell = strings.TrimSpace(string(text))
		}
		header = append(header, node.Content[i].Value)
		row = append(row, backends.Printable(cell))
	}
	out := csv.NewWriter(w)
	return errors.Join(out.WriteAll([][]string{header, row}))
}

// nameFields are the fields that name a thing, the best first.
var nameFields = []string{"uri", "name", "id", "path", "link"}

// printName prints what a value is called.
func (a *app) printName(v any) error {
	node, err := nodeOf(v)
	if err != nil {
		return err
	}
	if node.Kind == yaml.SequenceNode {
		return usagef("-o name: this list has no names; -o json has all of it")
	}
	best, name := len(nameFields), ""
	for i := 0; i+1 < len(node.Content); i += 2 {
		if at := slices.Index(nameFields, node.Content[i].Value); at >= 0 && at < best && node.Content[i+1].Kind == yaml.ScalarNode {
			best, name = at, node.Content[i+1].Value
		}
	}
	if best == len(nameFields) {
		return usagef("-o name: this answer has no name; -o json has all of it")
	}
	_, err = fmt.Fprintln(a.out, backends.Printable(name))
	return err
}
