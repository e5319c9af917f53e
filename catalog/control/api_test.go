// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"encoding"
	"flag"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/verbs"
)

var update = flag.Bool("update", false, "write docs/control-api.yaml anew")

const apiFile = "../../docs/control-api.yaml"

// The description of the API has the verbs that are served, and their requests and answers
// have the fields of the structs.
func TestAPI(t *testing.T) {
	t.Parallel()
	served := allVerbs(newVerbs(t), Options{})
	want := newAPI(t).document(served)
	if *update {
		if err := os.WriteFile(apiFile, want, 0o644); err != nil { //nolint:gosec // a document
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(apiFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is not what is served (go test ./catalog/control -run TestAPI -update writes it anew):\n%s", apiFile, diff)
	}
}

// Each path of the description is answered, and no other.
func TestAPI_paths(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(apiFile)
	if err != nil {
		t.Fatal(err)
	}
	var api struct{ Paths map[string]map[string]any }
	if err := yaml.Unmarshal(text, &api); err != nil {
		t.Fatal(err)
	}
	h := Handler(newVerbs(t), Options{})
	for _, at := range append(slices.Collect(maps.Keys(api.Paths)), "/v1/none") {
		r := httptest.NewRequest(http.MethodPost, at, strings.NewReader("[]")) // which no verb takes
		r.Header.Set(protocolHeader, strconv.Itoa(Protocol))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if unknown := strings.Contains(w.Body.String(), "no such verb"); unknown != (at == "/v1/none") {
			t.Errorf("%s: %s", at, w.Body)
		}
	}
}

// An api makes the description of the verbs out of the code: requests and answers out of
// their types, what they mean out of the comments.
type api struct {
	t        *testing.T
	schemas  map[string]any
	comments map[string]string // of "verbs.Record.Size", and "verbs.Verbs.Pull"
	calls    map[string]answer
}

// An answer is what the client expects of a verb.
type answer struct {
	method   string // of Client
	item     string // its type, as it is written in the code
	list     bool
	progress bool
}

// items are the types of answers by how they are written in the code.
var items = map[string]reflect.Type{"int64": reflect.TypeFor[int64](), "struct{}": nil}

func addItem[T any]() {
	t := reflect.TypeFor[T]()
	items[strings.TrimPrefix(t.String(), "control.")] = t
}

func newAPI(t *testing.T) *api {
	addItem[verbs.Record]()
	addItem[verbs.Label]()
	addItem[Inspection]()
	addItem[verbs.Warmed]()
	addItem[verbs.Cached]()
	addItem[verbs.CacheUse]()
	addItem[verbs.Shared]()
	addItem[verbs.Status]()
	addItem[verbs.Tags]()
	addItem[verbs.Change]()
	addItem[verbs.Meaning]()
	addItem[verbs.Hit]()
	addItem[verbs.Difference]()
	addItem[verbs.Entry]()
	addItem[backends.Imported]()
	addItem[verbs.Copied]()
	addItem[backends.Imported]()
	addItem[Reloaded]()
	a := &api{t: t, schemas: map[string]any{}, comments: map[string]string{}, calls: map[string]answer{}}
	for _, dir := range []string{".", "../verbs", "../inspect", "../../cache", "../../cache/spool", "../../backends"} {
		a.read(dir)
	}
	return a
}

// read takes up the comments and the calls of a package.
func (a *api) read(dir string) {
	files := token.NewFileSet()
	parsed, err := parser.ParseDir(files, dir, func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, parser.ParseComments) //nolint:staticcheck // one package, without its build tags
	if err != nil {
		a.t.Fatal(err)
	}
	for pkg, p := range parsed {
		ast.Inspect(p, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				if s, ok := n.Type.(*ast.StructType); ok {
					a.fields(pkg+"."+n.Name.Name, s)
				}
			case *ast.FuncDecl:
				if n.Recv != nil && n.Doc != nil {
					a.comments[pkg+"()."+n.Name.Name] = new(doc.Package).Synopsis(n.Doc.Text())
				}
				if pkg == "control" && n.Body != nil {
					a.callsOf(n)
				}
			}
			return true
		})
	}
}

func (a *api) fields(name string, s *ast.StructType) {
	for _, f := range s.Fields.List {
		for _, id := range f.Names {
			if text := strings.TrimSpace(f.Comment.Text()); text != "" {
				a.comments[name+"."+id.Name] = strings.Join(strings.Fields(text), " ")
			}
		}
	}
}

// callsOf notes what a method of Client calls: call[Item](ctx, c, "verb", request, progress).
func (a *api) callsOf(fn *ast.FuncDecl) {
	found := answer{method: fn.Name.Name, list: true}
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		c, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if id, ok := c.Fun.(*ast.Ident); ok && (id.Name == "one" || id.Name == "none") {
			found.list = false
		}
		index, ok := c.Fun.(*ast.IndexExpr)
		if !ok || len(c.Args) != 5 {
			return true
		}
		name, ok := c.Args[2].(*ast.BasicLit)
		if !ok {
			return true
		}
		found.item = typeText(index.Index)
		last, _ := c.Args[4].(*ast.Ident)
		found.progress = last != nil && last.Name != "nil"
		verb, _ := strconv.Unquote(name.Value)
		if _, known := a.calls[verb]; !known { // Images before ImagesBrief
			a.calls[verb] = found
		}
		return true
	})
}

func typeText(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		return typeText(e.X) + "." + e.Sel.Name
	case *ast.Ident:
		return e.Name
	case *ast.StructType:
		return "struct{}"
	}
	return ""
}

// A object is a mapping of YAML whose keys stay in their order: key, value, key, value.
type object []any

// MarshalYAML implements yaml.Marshaler.
func (o object) MarshalYAML() (any, error) {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, v := range o {
		var child yaml.Node
		if err := child.Encode(v); err != nil {
			return nil, err
		}
		n.Content = append(n.Content, &child)
	}
	return n, nil
}

const about = `What a running mount answers on the socket control.sock in its state directory, to the user who mounted. It is HTTP/1.1 over a Unix socket.
File names are absolute. An answer has the status 200 and is a line of JSON for each event; the last one has "end" or "error", and an answer that
breaks off before is a failure. Closing the connection ends the work. This file is made of the code: go test ./catalog/control -run TestAPI -update.`

func (a *api) document(served map[string]verb) []byte {
	paths := object{}
	for _, name := range slices.Sorted(maps.Keys(served)) {
		paths = append(paths, "/v1/"+name, object{"post", a.operation(name, served[name])})
	}
	paths = append(paths, "/v1/"+pingVerb, object{"post", object{
		"operationId", pingVerb, "summary", "Ping is answered at once by a process that is alive.",
		"parameters", []any{object{"$ref", "#/components/parameters/protocol"}},
		"responses", object{"204", object{"description", "It is alive."}}}})
	for _, v := range []any{frame{}.Progress, frame{}.Error} {
		a.schema(reflect.TypeOf(v).Elem())
	}
	schemas := object{}
	for _, name := range slices.Sorted(maps.Keys(a.schemas)) {
		schemas = append(schemas, name, a.schemas[name])
	}
	integer := object{"type", "integer", "const", Protocol}
	var text bytes.Buffer
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	err := e.Encode(object{
		"openapi", "3.1.0",
		"info", object{"title", "sregfs control", "version", strconv.Itoa(Protocol), "description", strings.ReplaceAll(about, "\n", " "),
			"license", object{"name", "Apache-2.0", "identifier", "Apache-2.0"}},
		"servers", []any{object{"url", "http://sregfs", "description", "by the Unix socket; the host means nothing"}},
		"security", []any{},
		"paths", paths,
		"components", object{
			"parameters", object{
				"protocol", object{"name", protocolHeader, "in", "header", "required", true, "schema", integer},
				"umask", object{"name", umaskHeader, "in", "header", "description", "of the caller, in octal: for the files that are written", "schema", object{"type", "string"}}},
			"schemas", schemas},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return text.Bytes()
}

func (a *api) operation(name string, v verb) object {
	call, ok := a.calls[name]
	item, known := items[call.item]
	if !ok || !known {
		a.t.Errorf("verb %q: no method of Client calls it, or its answer %q is not in items", name, call.item)
		return nil
	}
	line := object{}
	if item != nil {
		line = append(line, "item", a.schema(item))
	}
	if call.progress {
		line = append(line, "progress", object{"$ref", "#/components/schemas/progress"})
	}
	line = append(line, "error", object{"$ref", "#/components/schemas/wireError"}, "end", object{"type", "boolean"})
	what := "One item, and the end."
	switch {
	case call.list:
		what = "An item for each of the list, and the end."
	case item == nil:
		what = "The end."
	}
	return object{
		"operationId", name, "summary", a.summary(call.method),
		"parameters", []any{object{"$ref", "#/components/parameters/protocol"}, object{"$ref", "#/components/parameters/umask"}},
		"requestBody", object{"required", true, "content", object{"application/json", object{"schema", a.schema(v.request)}}},
		"responses", object{"200", object{"description", what + " Each line is one object with one of these fields.",
			"content", object{framesType, object{"schema", object{"type", "object", "properties", line}}}}}}
}

// summary is what a method of Client does: what it forwards to says that.
func (a *api) summary(method string) string {
	for _, of := range []string{"verbs().", "uploads().", "control()."} {
		if text := a.comments[of+method]; text != "" {
			return text
		}
	}
	return method
}

// schema describes a type as encoding/json writes it.
func (a *api) schema(t reflect.Type) any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type", "string", "format", "date-time"}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return object{"type", "string", "contentEncoding", "base64"}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return object{"type", "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return a.schema(t.Elem())
	case reflect.String:
		return object{"type", "string"}
	case reflect.Bool:
		return object{"type", "boolean"}
	case reflect.Int, reflect.Int64, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Int32:
		return object{"type", "integer"}
	case reflect.Float64:
		return object{"type", "number"}
	case reflect.Slice:
		return object{"type", "array", "items", a.schema(t.Elem())}
	case reflect.Map:
		return object{"type", "object", "additionalProperties", a.schema(t.Elem())}
	case reflect.Interface:
		return object{}
	case reflect.Struct:
		return a.structSchema(t)
	}
	a.t.Errorf("no schema for %v", t)
	return nil
}

func (a *api) structSchema(t reflect.Type) any {
	if t.NumField() == 0 {
		return object{"type", "object"}
	}
	name := t.Name()
	if pkg := path.Base(t.PkgPath()); pkg != "control" && pkg != "verbs" {
		name = pkg + "." + name
	}
	if _, done := a.schemas[name]; !done {
		a.schemas[name] = nil // of a type that has itself
		properties, required := object{}, []string{}
		a.properties(t, &properties, &required)
		s := object{"type", "object", "properties", properties}
		if len(required) > 0 {
			s = append(s, "required", required)
		}
		a.schemas[name] = s
	}
	return object{"$ref", "#/components/schemas/" + name}
}

func (a *api) properties(t reflect.Type, properties *object, required *[]string) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			a.properties(f.Type, properties, required)
			continue
		case !f.IsExported() || name == "-":
			continue
		case name == "":
			name = f.Name
		}
		s := a.schema(f.Type)
		if text := a.comments[t.String()+"."+f.Name]; text != "" {
			if o, ok := s.(object); ok {
				s = append(slices.Clone(o), "description", text)
			}
		}
		*properties = append(*properties, name, s)
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
}
