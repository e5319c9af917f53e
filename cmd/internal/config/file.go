// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/sregfs/sregfs/backends"
)

// maxFile bounds a configuration file in bytes.
const maxFile = 1 << 20

// A file is a configuration file: its tables, and where each key was.
type file struct {
	path  string
	mode  fs.FileMode
	top   map[string]any
	lines map[string]int // of dotted keys
}

// isNull reports whether path is the null device, the usual way to say "no file".
func isNull(path string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&fs.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err == nil && os.SameFile(info, null)
}

// readFile reads the file at path, which may be the null device. A missing one is nil
// unless it is required.
func readFile(path string, required bool) (*file, error) {
	if isNull(path) {
		return parseFile(path, 0o600, nil)
	}
	in, err := backends.OpenRegular(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkTrust(path, info, os.Geteuid()); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: more than %d bytes", path, maxFile)
	}
	return parseFile(path, info.Mode().Perm(), text)
}

func parseFile(path string, mode fs.FileMode, text []byte) (*file, error) {
	f := &file{path: path, mode: mode, lines: map[string]int{}}
	if err := toml.Unmarshal(text, &f.top); err != nil {
		if d, ok := errors.AsType[*toml.DecodeError](err); ok {
			row, col := d.Position()
			return nil, fmt.Errorf("%s:%d:%d: %s", path, row, col, strings.TrimPrefix(d.Error(), "toml: "))
		}
		return nil, fmt.Errorf("%s: %v", path, err)
	}
	f.findLines(text)
	f.flatten("cache")
	f.flatten("local")
	return f, nil
}

// flatten lets cache_dir, cache_size and so on be written as keys of a table.
func (f *file) flatten(name string) {
	table, ok := f.top[name].(map[string]any)
	if !ok {
		return
	}
	delete(f.top, name)
	for key, v := range table {
		f.top[name+"_"+key] = v
		f.lines[name+"_"+key] = f.lines[name+"."+key]
	}
}

// findLines notes the line of every key. The text is known to be valid TOML.
func (f *file) findLines(text []byte) {
	var p unstable.Parser
	p.Reset(text)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		var key []string
		line := 0
		for it := e.Key(); it.Next(); {
			n := it.Node()
			key = append(key, string(n.Data))
			if line == 0 {
				line = p.Shape(n.Raw).Start.Line
			}
		}
		if e.Kind == unstable.KeyValue {
			key = append(table[:len(table):len(table)], key...)
		} else {
			table = key
		}
		f.lines[strings.Join(key, ".")] = line
	}
}

// at returns "path:line" of a key.
func (f *file) at(key ...string) string {
	for n := len(key); n > 0; n-- {
		if line := f.lines[strings.Join(key[:n], ".")]; line > 0 {
			return f.path + ":" + strconv.Itoa(line)
		}
	}
	return f.path
}

// tables returns the [remotes.NAME] tables.
func (f *file) tables() (map[string]map[string]any, error) {
	remotes, ok := f.top["remotes"].(map[string]any)
	if !ok && f.top["remotes"] != nil {
		return nil, fmt.Errorf("%s: remotes is not a table", f.at("remotes"))
	}
	all := map[string]map[string]any{}
	for name, v := range remotes {
		table, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: remotes.%s is not a table: write [remotes.%s]", f.at("remotes", name), name, name)
		}
		all[name] = table
	}
	return all, nil
}

// setting returns the value of a key as a flag would spell it.
func (f *file) setting(key string) (string, error) {
	switch v := f.top[key].(type) {
	case string:
		return v, nil
	case bool, int64, float64:
		return fmt.Sprint(v), nil
	case []any:
		var all []string
		for _, one := range v {
			text, ok := one.(string)
			if !ok {
				return "", fmt.Errorf("%s: %s is not a simple value", f.at(key), key)
			}
			all = append(all, text)
		}
		if key == "hosts" { // whose names can have a colon
			return strings.Join(all, ","), nil
		}
		return strings.Join(all, string(filepath.ListSeparator)), nil
	}
	return "", fmt.Errorf("%s: %s is not a simple value", f.at(key), key)
}

// checkKeys returns an error for a key that is not in known.
func (f *file) checkKeys(known []string) error {
	for key := range f.top {
		ok := key == "remotes"
		for _, k := range known {
			ok = ok || k == key
		}
		if !ok {
			return fmt.Errorf("%s: unknown setting %q%s", f.at(key), key, backends.DidYouMean(key, append(known, "remotes")))
		}
	}
	return nil
}

// expand makes path absolute: "~/" is home, and anything else relative is below dir.
func expand(path, home, dir string) string {
	switch rest, ok := strings.CutPrefix(path, "~/"); {
	case path == "" || filepath.IsAbs(path):
		return path
	case ok && home != "":
		return filepath.Join(home, rest)
	}
	return filepath.Join(dir, path)
}
