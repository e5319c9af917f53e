// SPDX-License-Identifier: Apache-2.0

package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/sregfs/sregfs"
	root   = "../../.."
)

// A rule is one row of the table in docs/architecture.md.
type rule struct {
	pattern string
	allowed []string
}

var code = regexp.MustCompile("`([^`]+)`")

func rules(t *testing.T) []rule {
	t.Helper()
	text := read(t, "docs/architecture.md")
	_, table, ok := strings.Cut(text, "| package | may import, of ours |\n")
	if !ok {
		t.Fatal("docs/architecture.md has no import table")
	}
	var all []rule
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(line, "|")
		if len(cells) < 3 || strings.HasPrefix(cells[1], "---") {
			continue
		}
		name := code.FindStringSubmatch(cells[1])
		if name == nil {
			t.Fatalf("row without a package: %q", line)
		}
		r := rule{pattern: name[1]}
		for _, m := range code.FindAllStringSubmatch(cells[2], -1) {
			r.allowed = append(r.allowed, m[1])
		}
		all = append(all, r)
	}
	return all
}

func matches(pattern, pkg string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	return pattern == pkg
}

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestImports(t *testing.T) {
	t.Parallel()
	table := rules(t)
	used := make([]bool, len(table))
	for _, p := range packages(t) {
		pkg := strings.TrimPrefix(p.ImportPath, module+"/")
		// The longest pattern decides, so that a row for one package can be
		// stricter than the row for all below its parent.
		best := -1
		for i, r := range table {
			if matches(r.pattern, pkg) && (best < 0 || len(r.pattern) > len(table[best].pattern)) {
				best = i
			}
		}
		if best < 0 {
			t.Errorf("%s: no row in docs/architecture.md", pkg)
			continue
		}
		used[best] = true
		for _, path := range p.Imports {
			imp, ours := strings.CutPrefix(path, module+"/")
			if !ours {
				continue
			}
			if !slices.ContainsFunc(table[best].allowed, func(a string) bool { return matches(a, imp) }) {
				t.Errorf("%s imports %s: not in its row of docs/architecture.md", pkg, imp)
			}
			if strings.HasSuffix(imp, "test") && !strings.HasSuffix(pkg, "test") {
				t.Errorf("%s imports %s outside of tests", pkg, imp)
			}
		}
	}
	for i, r := range table {
		if !used[i] {
			t.Errorf("docs/architecture.md has a row for %s, which is no package", r.pattern)
		}
	}
}

// The top level is part of the project's contract.
func TestTopLevel(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-tree", "--name-only", "HEAD").Output()
	if err != nil {
		t.Skipf("not a git checkout: %v", err)
	}
	want := map[string]bool{"cmd": true, "fsys": true, "backends": true, "catalog": true, "cache": true, "docs": true,
		"go.mod": true, "go.sum": true, "Makefile": true, "README.md": true, "LICENSE": true, "CHANGELOG.md": true, "CONTRIBUTING.md": true}
	for name := range strings.FieldsSeq(string(out)) {
		if !want[name] && !strings.HasPrefix(name, ".") {
			t.Errorf("unexpected %s at the top level", name)
		}
	}
}

// Every Go file says under which licence it stands. One that was taken from Go has
// the licence of Go, whose text stands beside it.
func TestLicence(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if _, missing := os.Stat(filepath.Join(filepath.Dir(path), "LICENSE.go.txt")); missing == nil && bytes.HasPrefix(text, []byte("// SPDX-License-Identifier: BSD-3-Clause\n\n// Copyright")) {
			return nil
		}
		if err == nil && !bytes.HasPrefix(text, []byte("// SPDX-License-Identifier: Apache-2.0\n")) {
			t.Errorf("%s: no SPDX line at the top", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
