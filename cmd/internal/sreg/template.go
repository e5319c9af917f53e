// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sregfs/sregfs/backends"
)

// templateFuncs are what a --format may call, beside what text/template has itself.
var templateFuncs = template.FuncMap{
	"json": func(v any) (string, error) {
		text, err := encodeJSON(v, "")
		return strings.TrimSuffix(string(text), "\n"), err
	},
	"size": func(v any) string {
		n, _ := v.(int64)
		return size(n)
	},
	"age": func(v any) string {
		t, err := time.Parse(time.RFC3339Nano, fmt.Sprint(v))
		if err != nil {
			return ""
		}
		return humanize.Time(t)
	},
	"join": func(sep string, v any) string {
		var all []string
		items, _ := v.([]any)
		for _, item := range items {
			all = append(all, fmt.Sprint(item))
		}
		return strings.Join(all, sep)
	},
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
}

// parseTemplate reads the flag --format. In a shell's quotes \t and \n are two characters each.
func parseTemplate(text string) (*template.Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("--format").Option("missingkey=error").Funcs(templateFuncs).Parse(text)
	if err != nil {
		return nil, usagef("--format: %s", strings.TrimPrefix(err.Error(), "template: --format:"))
	}
	return t, nil
}

// execute prints a value as --format has it, and a newline.
func (a *app) execute(v any) error {
	data, err := fieldsOf(v)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := a.template.Execute(&text, data); err != nil {
		if fields, ok := data.(map[string]any); ok && strings.Contains(err.Error(), "map has no entry") {
			return usagef("--format: %s; known: %s", missing(err), strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		}
		return usagef("--format: %s", strings.TrimPrefix(err.Error(), "template: --format:"))
	}
	lines := strings.Split(text.String(), "\n")
	for i, line := range lines {
		cells := strings.Split(line, "\t")
		for j := range cells {
			cells[j] = backends.Printable(cells[j])
		}
		lines[i] = strings.Join(cells, "\t")
	}
	_, err = io.WriteString(a.out, strings.Join(lines, "\n")+"\n")
	return err
}

// missing is what a template's error says of the field that there is not.
func missing(err error) string {
	_, key, _ := strings.Cut(err.Error(), "for key ")
	return "no field is called " + key
}

// fieldsOf returns a value as a template sees it: the fields of its JSON by their names
// there. What the JSON leaves out is there, empty, so that a name that is mistyped can be
// told from a field that has no value.
func fieldsOf(v any) (any, error) {
	text, err := encodeJSON(v, "")
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var data any
	if err := d.Decode(&data); err != nil {
		return nil, err
	}
	return filled(data, reflect.TypeOf(v)), nil
}

// filled adds the fields of a type to a decoded value, and makes its numbers numbers.
func filled(data any, t reflect.Type) any {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := data.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = filled(v[i], elemOf(t))
		}
	case map[string]any:
		types := map[string]reflect.Type{}
		jsonFields(t, types)
		for key := range v {
			if types[key] == nil {
				types[key] = elemOf(t)
			}
		}
		for key, t := range types {
			if value, ok := v[key]; ok {
				v[key] = filled(value, t)
			} else {
				v[key] = empty(t)
			}
		}
	}
	return data
}

// empty is the value of a field that the JSON leaves out.
func empty(t reflect.Type) any {
	switch t.Kind() {
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Uint32, reflect.Uint64:
		return int64(0)
	case reflect.Bool:
		return false
	case reflect.Slice:
		return []any{}
	case reflect.Map:
		return map[string]any{}
	}
	return ""
}

func elemOf(t reflect.Type) reflect.Type {
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Map || t.Kind() == reflect.Array) {
		return t.Elem()
	}
	return nil
}

// jsonFields notes the fields that a struct has in JSON.
func jsonFields(t reflect.Type, into map[string]reflect.Type) {
	if t == nil || t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		return
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && name == "":
			jsonFields(f.Type, into)
		case f.IsExported():
			if name == "" {
				name = f.Name
			}
			into[name] = f.Type
		}
	}
}
