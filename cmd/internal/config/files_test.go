// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// loadSystem is Load with the machine's files, by name, and the user's file.
func loadSystem(t *testing.T, machine map[string]string, user string, env map[string]string, args ...string) (Settings, string, error) {
	t.Helper()
	home, etc := t.TempDir(), t.TempDir()
	write(t, filepath.Join(home, ".config/sregfs/config.toml"), user, 0o600)
	for name, text := range machine {
		write(t, filepath.Join(etc, name), text, 0o644)
	}
	var s Settings
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s.Flags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	err := Load(&s, flags, Inputs{
		Getenv: func(name string) string { return strings.ReplaceAll(env[name], "ETC", etc) }, Home: home, Dir: "/work dir", System: etc,
	})
	return s, etc, err
}

// Each setting is what the first says that says anything: flag, environment, the user's
// file, the last of conf.d, the machine's file, default.
func TestLoad_machine(t *testing.T) {
	t.Parallel()
	machine := map[string]string{
		"config.toml":       "list_ttl = \"1s\"\npush = \"async\"\nverify = \"strict\"\nopen = \"wait\"\nnames = \"plus\"\ncache_size = \"1G\"\n",
		"conf.d/10-a.toml":  "list_ttl = \"2s\"\npush = \"sync\"\nverify = \"lazy\"\nopen = \"lazy\"\n[cache]\nsize = \"2G\"\n",
		"conf.d/20-b.toml":  "list_ttl = \"3s\"\npush = \"async\"\nverify = \"strict\"\n",
		"conf.d/.hid.toml":  "syntax error",
		"conf.d/b.toml.bak": "syntax error",
	}
	s, etc, err := loadSystem(t, machine, "list_ttl = \"4s\"\npush = \"sync\"\n", map[string]string{"SREGFS_LIST_TTL": "5s"}, "--list-ttl=6s")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, key := range []string{"list_ttl", "push", "verify", "open", "names", "cache_size", "passthrough"} {
		got[key] = strings.ReplaceAll(s.Origins[key], etc, "ETC")
	}
	got["push"] = filepath.Base(got["push"])
	want := map[string]string{
		"list_ttl": "--list-ttl", "push": "config.toml:2", "verify": "ETC/conf.d/20-b.toml:3", "open": "ETC/conf.d/10-a.toml:4",
		"names": "ETC/config.toml:5", "cache_size": "ETC/conf.d/10-a.toml:6", "passthrough": "default",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s.Push != "sync" || s.Verify != "strict" || s.Open != "lazy" || s.Names != "plus" || s.CacheSize != 2<<30 {
		t.Errorf("%+v", s)
	}
}

// The tables of one remote are laid over each other, key by key.
func TestLoad_machineRemotes(t *testing.T) {
	t.Parallel()
	const lab = "[remotes.lab]\ntype = \"oci\"\nurl = \"https://lab.example\"\ntoken_file = \"lab.token\"\nread_only = true\n"
	for name, tt := range map[string]struct {
		user string
		want Common
		url  string
	}{
		"as it is":        {"", Common{Type: "oci", TokenFile: "ETC/lab.token", ReadOnly: true}, "https://lab.example"},
		"one more key":    {"[remotes.lab]\nuser = \"me\"", Common{Type: "oci", TokenFile: "ETC/lab.token", ReadOnly: true, User: "me"}, "https://lab.example"},
		"another value":   {"[remotes.lab]\nread_only = false", Common{Type: "oci", TokenFile: "ETC/lab.token"}, "https://lab.example"},
		"another login":   {"[remotes.lab]\ntoken_env = \"X\"", Common{Type: "oci", TokenEnv: "X", ReadOnly: true}, "https://lab.example"},
		"another address": {"[remotes.lab]\nurl = \"https://b.example\"", Common{Type: "oci", ReadOnly: true}, "https://b.example"},
		"another type":    {"[remotes.lab]\ntype = \"dropbox\"", Common{Type: "dropbox"}, ""},
	} {
		s, etc, err := loadSystem(t, map[string]string{"config.toml": lab}, tt.user, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := s.Remotes[0]
		got.TokenFile = strings.ReplaceAll(got.TokenFile, etc, "ETC")
		if diff := cmp.Diff(tt.want, got.Common); diff != "" || got.URL != tt.url || got.Name != "lab" {
			t.Errorf("%s: url %q: %s", name, got.URL, diff)
		}
	}
}

// A mistake is where it is said to be, and only the machine's owner may write there.
func TestLoad_machineMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ file, text, want string }{
		{"config.toml", "\npussh = 1", "config.toml:2: unknown setting \"pussh\""},
		{"conf.d/a.toml", "push = \"x\"", "conf.d/a.toml:1: push: "},
		{"conf.d/a.toml", "push = ", "conf.d/a.toml:1:7: "},
		{"conf.d/a.toml", "[remotes.lab]\ntype = \"oci\"\nread_only = 1", "conf.d/a.toml:3: remote lab: read_only: true or false"},
		{"config.toml", "[remotes.lab]\ntype = \"oci\"\ntoken = \"x\"", "config.toml:3: remote lab: "},
		{"config.toml", "[remotes]\nlab = 1", "config.toml:2: remotes.lab is not a table"},
		{"config.toml", "[remotes.lab]\ntype = [\"x\"]", "config.toml:2: remote lab: type: text"},
	} {
		_, etc, err := loadSystem(t, map[string]string{tt.file: tt.text}, "[remotes.lab]\nuser = \"me\"\ntype = \"oci\"", nil)
		if tt.text == "[remotes.lab]\ntype = [\"x\"]" { // another type: nothing of it is left
			if err != nil {
				t.Errorf("%q: %v", tt.text, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), etc+"/"+tt.want) {
			t.Errorf("%q: %v, want %s", tt.text, err, tt.want)
		}
	}
	etc := t.TempDir()
	write(t, etc+"/conf.d/a.toml", "push = \"async\"", 0o666)
	var s Settings
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s.Flags(flags)
	err := Load(&s, flags, Inputs{Getenv: func(string) string { return "" }, Home: t.TempDir(), System: etc})
	if err == nil || !strings.Contains(err.Error(), "a.toml can be written by others") {
		t.Errorf("a file of everybody's: %v", err)
	}
	if err := os.Remove(etc + "/conf.d/a.toml"); err != nil {
		t.Fatal(err)
	}
	// One that is the user's too, by --config, is read once.
	write(t, etc+"/config.toml", "push = \"async\"", 0o600)
	all, _, err := readFiles(Inputs{Getenv: func(string) string { return "" }, File: etc + "/config.toml", System: etc})
	if err != nil || len(all) != 1 {
		t.Errorf("%d files, %v", len(all), err)
	}
}
