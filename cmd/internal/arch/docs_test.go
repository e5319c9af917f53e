// SPDX-License-Identifier: Apache-2.0

package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends/all"
)

func TestBackendPages(t *testing.T) {
	t.Parallel()
	for _, name := range all.Names() {
		page := read(t, "docs/backends/"+name+".md")
		if !strings.Contains(page, "type") || !strings.Contains(page, name) {
			t.Errorf("docs/backends/%s.md does not say how to configure it", name)
		}
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs/backends/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		if _, ok := all.Types.Named(name); !ok {
			t.Errorf("%s describes no backend", page)
		}
	}
}

// The Go code in docs/adding-a-backend.md is code that compiles and runs: each piece
// of it, up to a line "…", stands in one of these files, white space aside. And the
// page knows all that a backend can be.
func TestAddingABackend(t *testing.T) {
	t.Parallel()
	page := read(t, "docs/adding-a-backend.md")
	var sources []string
	for _, path := range []string{
		"backends/backendtest/plain_read_test.go", "backends/backendtest/plain_test.go", "backends/http/login.go",
	} {
		sources = append(sources, squeeze(read(t, path)))
	}
	pieces := 0
	for _, block := range goBlock.FindAllStringSubmatch(page, -1) {
		for piece := range strings.SplitSeq(block[1], "\n…\n") {
			pieces++
			want := squeeze(piece)
			if want == "" || !slices.ContainsFunc(sources, func(s string) bool { return strings.Contains(s, want) }) {
				t.Errorf("docs/adding-a-backend.md has code that is nowhere:\n%s", piece)
			}
		}
	}
	if pieces == 0 {
		t.Error("docs/adding-a-backend.md has no code")
	}
	for _, m := range oneMethod.FindAllStringSubmatch(read(t, "backends/backend.go"), -1) {
		if !strings.Contains(page, "| `"+m[1]+"` | `"+m[2]+"` |") {
			t.Errorf("docs/adding-a-backend.md does not mention %s.%s", m[1], m[2])
		}
	}
}

var (
	goBlock   = regexp.MustCompile("(?s)```go\n(.*?)\n```")
	oneMethod = regexp.MustCompile(`(?m)^type (\w+) interface \{\n(?:\t//.*\n)*\t(\w+)\([^\n]*\n\}`)
)

func squeeze(text string) string { return strings.Join(strings.Fields(text), " ") }

// Every exported sentinel of ours is explained in docs/errors.md.
func TestErrorsPage(t *testing.T) {
	t.Parallel()
	page := read(t, "docs/errors.md")
	for _, dir := range []string{"backends", "cache", "catalog", "catalog/inspect", "fsys"} {
		for _, name := range sentinels(t, filepath.Join(root, dir)) {
			if want := filepath.Base(dir) + "." + name; !strings.Contains(page, want) {
				t.Errorf("docs/errors.md does not mention %s", want)
			}
		}
	}
}

// sentinels returns the exported package variables named Err….
func sentinels(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, spec := range gen.Specs {
				for _, id := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(id.Name, "Err") {
						names = append(names, id.Name)
					}
				}
			}
		}
	}
	return names
}

// docs/README.md lists every page.
func TestIndex(t *testing.T) {
	t.Parallel()
	index := read(t, "docs/README.md")
	for _, pattern := range []string{"*.md", "backends/*.md"} {
		pages, err := filepath.Glob(filepath.Join(root, "docs", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			page, err := filepath.Rel(filepath.Join(root, "docs"), page)
			if err != nil {
				t.Fatal(err)
			}
			if page != "README.md" && !strings.Contains(index, "]("+filepath.ToSlash(page)+")") {
				t.Errorf("docs/README.md does not list %s", page)
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

// A link between our own pages leads somewhere.
func TestLinks(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		more, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, more...)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: dead link to %s", page, m[1])
			}
		}
	}
}
