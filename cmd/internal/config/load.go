// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/all"
	"github.com/sregfs/sregfs/backends/dir/clientdb"
)

// Inputs is where Load looks, apart from the flags.
type Inputs struct {
	Getenv  func(string) string
	Home    string   // home directory; "" if there is none
	Dir     string   // working directory, for relative names in flags
	File    string   // configuration file from --config; "" finds it
	Remotes []string // of --remote
	System  string   // directory of the machine's files, below the user's; "" has none
}

// SystemDir is Inputs.System where nothing else is meant. No variable of the environment
// changes it: a user could have root's programs obey a file of his own.
const SystemDir = "/etc/sregfs"

// Load completes s, whose flags were declared on fs and parsed: what no flag said
// comes from the environment, then the user's file, then the machine's files, then
// stays the default.
//
// Errors say where the mistake is: "config.toml:3: …", "SREGFS_PUSH: …".
func Load(s *Settings, fs *pflag.FlagSet, in Inputs) error {
	all, warnings, err := readFiles(in)
	s.Warnings = append(s.Warnings, warnings...)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return s.load(fs, all, in)
}

// LoadAgain returns what Load finds now for a program whose flags were declared on fs
// and parsed.
//
// Errors: those of Load.
func LoadAgain(fs *pflag.FlagSet, in Inputs) (Settings, error) {
	var s Settings
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	s.Flags(flags)
	var errs []error
	fs.Visit(func(f *pflag.Flag) {
		if flags.Lookup(f.Name) != nil {
			errs = append(errs, flags.Set(f.Name, f.Value.String()))
		}
	})
	return s, errors.Join(append(errs, Load(&s, flags, in))...)
}

// load is Load with the files read already.
func (s *Settings) load(fs *pflag.FlagSet, all files, in Inputs) error {
	old, err := readSregistry(in)
	if old.warning != "" {
		s.Warnings = append(s.Warnings, old.warning)
	}
	if err != nil {
		return fmt.Errorf("configuration of sregistry: %w", err)
	}
	if err := s.applySettings(fs, all, in); err != nil {
		return err
	}
	if !s.Hosts.said {
		s.Hosts.any = !s.AllowOther
	}
	if s.Default == "" {
		s.Default = old.active
	}
	remotes, err := s.gather(all, old, in)
	if err != nil {
		return err
	}
	if _, ok := remotes[s.Default]; !ok {
		s.Default = clientName(s.Default)
	}
	local := remotes[Local]
	if path, ok := local.Config["path"].(string); ok && s.Storage == "" {
		s.Storage = path
	}
	if err := s.setPaths(in); err != nil {
		return err
	}
	local.Config["path"] = s.Storage
	if path := clientDatabase(in); path != "" && s.LocalDatabase != "off" && local.Type == localType() {
		local.Config["database"], local.Config["update_database"] = path, s.LocalDatabase == "write"
	}
	s.Remotes = sorted(remotes)
	return nil
}

// CredentialsDir is where "sreg login" keeps what it is told, a file for each
// remote; "" without a home.
func CredentialsDir(in Inputs) string {
	return xdg(in, "XDG_CONFIG_HOME", ".config", "sregfs/credentials")
}

func configFile(in Inputs) (path string, named bool) {
	if path := in.File; path != "" {
		return path, true
	}
	if path := in.Getenv("SREGFS_CONFIG"); path != "" {
		return path, true
	}
	return xdg(in, "XDG_CONFIG_HOME", ".config", "sregfs/config.toml"), false
}

// xdg returns a path below an XDG base directory; "" without a home. The
// specification says to ignore a relative value.
func xdg(in Inputs, variable, fallback, path string) string {
	if dir := in.Getenv(variable); filepath.IsAbs(dir) {
		return filepath.Join(dir, path)
	}
	if in.Home == "" {
		return ""
	}
	return filepath.Join(in.Home, fallback, path)
}

// alias gives the variables of sregistry that mean a setting of ours.
func alias(flag string) string {
	switch flag {
	case "default":
		return "SREGISTRY_CLIENT"
	case "storage":
		return "SREGISTRY_STORAGE"
	}
	return ""
}

// applySettings sets what no flag has set, and notes where each setting is from. Paths
// in a file are relative to it.
func (s *Settings) applySettings(fs *pflag.FlagSet, all files, in Inputs) error {
	declared := pflag.NewFlagSet("", pflag.ContinueOnError)
	(&Settings{}).Flags(declared)
	for _, f := range all {
		if err := f.checkKeys(keys(declared)); err != nil {
			return err
		}
	}
	s.Origins = map[string]string{}
	var errs []error
	declared.VisitAll(func(d *pflag.Flag) {
		if fs.Changed(d.Name) {
			s.Origins[KeyOf(d.Name)] = "--" + d.Name
			return
		}
		value, origin, err := lookup(d.Name, all, in)
		s.Origins[KeyOf(d.Name)] = cmp.Or(origin, "default")
		if err == nil && origin != "" {
			if err = fs.Lookup(d.Name).Value.Set(value); err != nil {
				if d.Value.Type() == "bool" { // its own error is about strconv
					err = fmt.Errorf("%q is neither true nor false", value)
				}
				err = fmt.Errorf("%s: %s: %w", origin, KeyOf(d.Name), err)
			}
		}
		errs = append(errs, err)
	})
	return errors.Join(errs...)
}

// lookup returns a setting and where it was found; origin is "" if nowhere.
func lookup(flag string, all files, in Inputs) (value, origin string, err error) {
	for _, name := range []string{VariableOf(flag), alias(flag)} {
		if name == "" {
			continue
		}
		if v := in.Getenv(name); v != "" {
			return v, name, nil
		}
	}
	key := KeyOf(flag)
	i := slices.IndexFunc(all, func(f *file) bool { return f.top[key] != nil })
	if i < 0 {
		return "", "", nil
	}
	f := all[i]
	value, err = f.setting(key)
	if _, number := f.top[key].(int64); number && flag == "umask" {
		return "", "", fmt.Errorf("%s: write the permissions in octal and quotes: umask = \"027\"", f.at(key))
	}
	switch flag {
	case "home", "storage", "cache-dir", "log-file", "metrics-file":
		value = expand(value, in.Home, filepath.Dir(f.path))
	case "cache-shared":
		dirs := filepath.SplitList(value)
		for i, dir := range dirs {
			dirs[i] = expand(dir, in.Home, filepath.Dir(f.path))
		}
		value = strings.Join(dirs, string(filepath.ListSeparator))
	}
	return value, f.at(key), err
}

func (s *Settings) setPaths(in Inputs) error {
	if s.CacheDir == "" {
		s.CacheDir = xdg(in, "XDG_CACHE_HOME", ".cache", "sregfs")
	}
	if s.Storage == "" {
		s.Storage = defaultStorage(in)
	}
	if s.CacheDir == "" || s.Storage == "" {
		return errors.New("there is no home directory: set HOME, or SREGFS_CACHE_DIR, SREGFS_HOME and SREGISTRY_STORAGE")
	}
	if s.ImageList == "" {
		s.ImageList = xdg(in, "XDG_CONFIG_HOME", ".config", filepath.Join("sregfs", "images.txt"))
	}
	for _, p := range []*string{&s.Home, &s.Storage, &s.CacheDir, &s.ImageList, &s.LogFile} {
		*p = expand(*p, in.Home, in.Dir)
	}
	if strings.ContainsRune(s.Runtime, '/') { // else it is looked for on the PATH
		s.Runtime = expand(s.Runtime, in.Home, in.Dir)
	}
	for i, p := range s.CacheShared {
		s.CacheShared[i] = expand(p, in.Home, in.Dir)
	}
	return nil
}

// localType is the type of the remote "local".
func localType() string {
	t, _ := all.Types.Find(func(t backends.Type) bool { return t.Local })
	return t.Name
}

// defaultStorage is where sregistry keeps its images, if it ever did.
func defaultStorage(in Inputs) string {
	old := filepath.Join(in.Home, ".singularity", "shub")
	if info, err := os.Stat(old); in.Home != "" && err == nil && info.IsDir() {
		return old
	}
	return xdg(in, "XDG_DATA_HOME", filepath.Join(".local", "share"), "sregfs/images")
}

// clientDatabase is where sregistry keeps what it knows of its images; "" without a home.
func clientDatabase(in Inputs) string {
	if isTrue(in.Getenv("SREGISTRY_DISABLE")) || isTrue(in.Getenv("SINGULARITY_DISABLE_CACHE")) {
		return "" // sregistry is told to have none
	}
	dir := in.Getenv("SREGISTRY_DATABASE")
	if dir == "" {
		if in.Home == "" {
			return ""
		}
		dir = filepath.Join(in.Home, ".singularity")
	}
	return filepath.Join(expand(dir, in.Home, in.Dir), clientdb.FileName)
}

// gather returns the remotes by name; a later source replaces one of the same name.
func (s *Settings) gather(all files, old sregistrySettings, in Inputs) (map[string]Remote, error) {
	remotes := map[string]Remote{Local: {Name: Local, Common: Common{Type: localType()}, Config: map[string]any{}, Origin: "default"}}
	for _, r := range old.remotes(in) {
		remotes[r.Name] = r
	}
	written, err := all.remotes(in)
	if err != nil {
		return nil, err
	}
	for _, r := range written {
		remotes[r.Name] = r
	}
	for _, spec := range in.Remotes {
		r, err := parseRemoteFlag(spec)
		if err != nil {
			return nil, fmt.Errorf("--remote: %w", err)
		}
		r.Origin = "--remote " + r.Name
		r.expand(in.Home, in.Dir)
		remotes[r.Name] = r
	}
	return remotes, nil
}
