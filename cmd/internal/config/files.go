// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// files are all configuration files of a run; what an earlier one says counts before
// what a later one says.
type files []*file

// readFiles reads the user's file, then those of the machine. The warnings are about
// files of the machine that this user may not read.
func readFiles(in Inputs) (all files, warnings []string, err error) {
	path, named := configFile(in)
	if path != "" {
		f, err := readFile(path, named)
		if err != nil {
			return nil, nil, err
		}
		if f != nil {
			all = append(all, f)
		}
	}
	machine, warnings, err := readSystem(in, path)
	return append(all, machine...), warnings, err
}

// readSystem reads the machine's files: those of conf.d, of which the last in the order
// of their names counts most, then config.toml. The one called user was read already.
func readSystem(in Inputs, user string) (all files, warnings []string, err error) {
	if in.System == "" {
		return nil, nil, nil
	}
	dir := filepath.Join(in.System, "conf.d")
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		warnings = append(warnings, fmt.Sprintf("the configuration in %s is passed over: this user may not read it", dir))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, nil, err
	}
	var paths []string
	for _, e := range slices.Backward(entries) {
		if strings.HasSuffix(e.Name(), ".toml") && !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	for _, path := range append(paths, filepath.Join(in.System, "config.toml")) {
		if path == user {
			continue
		}
		f, err := readFile(path, false)
		switch {
		case errors.Is(err, fs.ErrPermission):
			warnings = append(warnings, fmt.Sprintf("the configuration in %s is passed over: this user may not read it", path))
		case err != nil:
			return nil, warnings, err
		case f != nil:
			all = append(all, f)
		}
	}
	return all, warnings, nil
}

// A remoteTable is the settings of one remote.
type remoteTable map[string]said

// said is the value of a key, and the file that says it.
type said struct {
	value any
	from  *file
}

// secretKeys say where a secret is: the one that counts most has the word alone.
var secretKeys = []string{"token", "token_file", "token_env", "token_command"}

// overlay puts the table of a file that counts more over t. With another type nothing of
// t fits; and what logs in at one address is not sent to another.
func (t remoteTable) overlay(f *file, table map[string]any) remoteTable {
	differs := func(key string) bool {
		v, ok := table[key]
		return ok && t[key].from != nil && !reflect.DeepEqual(t[key].value, v)
	}
	has := func(key string) bool { _, ok := table[key]; return ok }
	if differs("type") || t == nil {
		t = remoteTable{}
	}
	if differs("url") || slices.ContainsFunc(secretKeys, has) {
		maps.DeleteFunc(t, func(key string, _ said) bool { return slices.Contains(secretKeys, key) })
	}
	for key, v := range table {
		t[key] = said{v, f}
	}
	return t
}

// remotes returns the remotes of all files: of one that several name, each key is what
// the first of these files says that has it.
func (all files) remotes(in Inputs) ([]Remote, error) {
	merged, last := map[string]remoteTable{}, map[string]*file{}
	for _, f := range slices.Backward(all) {
		tables, err := f.tables()
		if err != nil {
			return nil, err
		}
		for name, table := range tables {
			merged[name], last[name] = merged[name].overlay(f, table), f
		}
	}
	var found []Remote
	for _, name := range slices.Sorted(maps.Keys(merged)) {
		origin := last[name].at("remotes", name)
		r, err := merged[name].remote(name, in)
		if err != nil {
			return nil, fmt.Errorf("%s: remote %s: %w", r.At(err, origin), name, err)
		}
		r.Origin = origin
		found = append(found, r)
	}
	return found, nil
}

// remote makes the remote. What is returned with an error has its Origins.
func (t remoteTable) remote(name string, in Inputs) (Remote, error) {
	table, origins := map[string]any{}, map[string]string{}
	local := name == Local || t["type"].value == localType()
	for key, v := range t {
		origins[key] = v.from.at("remotes", name, key)
		table[key] = v.value
		if text, ok := v.value.(string); ok && (IsFileKey(key) || key == "path" && local) {
			table[key] = expand(text, in.Home, filepath.Dir(v.from.path))
		}
	}
	r, err := newRemote(name, table)
	r.Origins = origins
	if from := t["token"].from; err == nil && r.Token != "" && from.mode&0o077 != 0 {
		err = &backends.SettingError{Key: "token", Err: fmt.Errorf(
			"this file holds a token and can be read by others (mode %#o): chmod 600 it, or use token_file", from.mode)}
	}
	return r, err
}
