// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/sregfs/sregfs/backends"
)

// nodeOf returns a value as YAML. It has the fields of the JSON, in their order; its
// strings stay strings whatever they look like.
func nodeOf(v any) (*yaml.Node, error) {
	text, err := encodeJSON(v, "")
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return readNode(d)
}

func readNode(d *json.Decoder) (*yaml.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch v := token.(type) {
	case json.Delim:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		if v == '{' {
			n.Kind = yaml.MappingNode
		}
		for d.More() { // keys of an object are tokens like its values
			child, err := readNode(d)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		if len(n.Content) == 0 {
			n.Style = yaml.FlowStyle
		}
		_, err = d.Token()
		return n, err
	case string:
		return textNode(v), nil
	case json.Number:
		tag := "!!int"
		if strings.ContainsAny(v.String(), ".eE") {
			tag = "!!float"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: v.String()}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(v)}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
}

// textNode is a string whose hidden characters can be written as \u and four digits.
func textNode(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if backends.Printable(s) != s && !onlyBreaks(s) {
		n.Style = yaml.DoubleQuotedStyle
		n.Value = strings.Map(func(r rune) rune {
			if r > 0xffff && !unicode.IsPrint(r) {
				return unicode.ReplacementChar
			}
			return r
		}, s)
	}
	return n
}

// onlyBreaks reports whether nothing in a text is hidden but the ends of its lines.
func onlyBreaks(s string) bool {
	s = strings.ReplaceAll(s, "\n", "")
	return backends.Printable(s) == s
}
