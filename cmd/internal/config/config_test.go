// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// load runs Load on a home of its own, in which file is the configuration file
// unless it is "". HOME in the results is that home.
func load(t *testing.T, file string, env map[string]string, args ...string) (Settings, error) {
	t.Helper()
	home := t.TempDir()
	write(t, filepath.Join(home, ".config/sregfs/config.toml"), file, 0o600)
	return loadIn(t, home, env, args...)
}

func loadIn(t *testing.T, home string, env map[string]string, args ...string) (Settings, error) {
	t.Helper()
	var s Settings
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s.Flags(fs)
	remotes := fs.StringArray("remote", nil, "")
	config := fs.String("config", "", "")
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	err := Load(&s, fs, Inputs{
		Getenv:  func(name string) string { return strings.ReplaceAll(env[name], "HOME", home) },
		Home:    home,
		Dir:     "/work dir",
		File:    strings.ReplaceAll(*config, "HOME", home),
		Remotes: *remotes,
	})
	return s, err
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if text == "" {
		return
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestLoad_nothing(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	s, err := loadIn(t, home, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{
		Storage: home + "/.local/share/sregfs/images", CacheDir: home + "/.cache/sregfs", ImageList: home + "/.config/sregfs/images.txt",
		Names: "colon", LocalDatabase: "read", Open: "lazy", Push: "sync", Passthrough: "auto", Verify: "lazy", ListTTL: time.Minute, StopTimeout: 30 * time.Second, DrainTimeout: 7 * 24 * time.Hour, UID: -1, GID: -1, Hosts: Hosts{any: true},
		Remotes: []Remote{{Name: "local", Common: Common{Type: "dir"}, Origin: "default",
			Config: map[string]any{
				"path": home + "/.local/share/sregfs/images", "database": home + "/.singularity/sregistry.db", "update_database": false,
			}}},
	}
	if len(s.Origins) < 20 || s.Origins["push"] != "default" {
		t.Errorf("origins %v", s.Origins)
	}
	s.Origins = nil
	if diff := cmp.Diff(want, s, cmp.AllowUnexported(Hosts{})); diff != "" {
		t.Error(diff)
	}
}

func TestLoad_precedence(t *testing.T) {
	t.Parallel()
	const file = "cache_size = \"1G\"\n"
	env := map[string]string{"SREGFS_CACHE_SIZE": "2G"}
	for _, c := range []struct {
		name string
		file string
		env  map[string]string
		args []string
		want Size
	}{
		{"default", "", nil, nil, 0},
		{"file", file, nil, nil, 1 << 30},
		{"environment", file, env, nil, 2 << 30},
		{"flag", file, env, []string{"--cache-size=3G"}, 3 << 30},
		{"flag back to the default", file, env, []string{"--cache-size=0"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := load(t, c.file, c.env, c.args...)
			if err != nil || s.CacheSize != c.want {
				t.Errorf("cache size %d, %v, want %d", s.CacheSize, err, c.want)
			}
		})
	}
}

func TestLoad_file(t *testing.T) {
	t.Parallel()
	s, err := load(t, `
default         = "lab"
cache_size      = 1000
read_only       = true
list_ttl        = "5m"
uid             = 1000
log_file        = "here.log"

[remotes.lab]
type            = "oci"
url             = "https://registry.lab.org"
token_file      = "~/lab.token"
allow_delete    = false
timeout         = "90s"
namespace       = "team"

[remotes.shared]
type = "dir"
path = "images"
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(s.LogFile)
	if !strings.HasSuffix(dir, "/.config/sregfs") {
		t.Errorf("log file is %s, not beside the configuration", s.LogFile)
	}
	if s.Default != "lab" || s.CacheSize != 1000 || !s.ReadOnly || s.ListTTL != 5*time.Minute || s.UID != 1000 {
		t.Errorf("settings %+v", s)
	}
	home := filepath.Dir(filepath.Dir(dir))
	no := false
	want := []Remote{
		{Name: "lab", Origin: dir + "/config.toml:9", URL: "https://registry.lab.org",
			Common: Common{Type: "oci", TokenFile: home + "/lab.token", AllowDelete: &no, Timeout: Duration(90 * time.Second)},
			Config: map[string]any{"url": "https://registry.lab.org", "namespace": "team"}},
		{Name: "local", Origin: "default", Common: Common{Type: "dir"}, Config: map[string]any{
			"path": s.Storage, "database": home + "/.singularity/sregistry.db", "update_database": false,
		}},
		{Name: "shared", Origin: dir + "/config.toml:17", Common: Common{Type: "dir"}, Config: map[string]any{"path": dir + "/images"}},
	}
	if at := s.Remotes[0].Origins["timeout"]; at != dir+"/config.toml:14" {
		t.Errorf("timeout is from %q", at)
	}
	for i := range s.Remotes {
		s.Remotes[i].Origins = nil
	}
	if diff := cmp.Diff(want, s.Remotes); diff != "" {
		t.Error(diff)
	}
}

func TestLoad_remoteFlag(t *testing.T) {
	t.Parallel()
	s, err := load(t, "[remotes.lab]\ntype = \"dir\"\npath = \"/old\"\n", nil,
		"--remote", `lab=oci,url=http://127.0.0.1:5000,allow_delete=true,arch=arm64,credentials=["a,b", "c"],size=5,text="5"`)
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	want := Remote{Name: "lab", Origin: "--remote lab", URL: "http://127.0.0.1:5000",
		Common: Common{Type: "oci", AllowDelete: &yes, Arch: "arm64"},
		Config: map[string]any{"url": "http://127.0.0.1:5000", "credentials": []any{"a,b", "c"}, "size": int64(5), "text": "5"}}
	if diff := cmp.Diff(want, s.Remotes[0]); diff != "" {
		t.Error(diff)
	}
}

func TestLoad_storage(t *testing.T) {
	t.Parallel()
	const file = "[remotes.local]\npath = \"/from/file\"\n"
	env := map[string]string{"SREGISTRY_STORAGE": "/from/env"}
	for _, c := range []struct {
		name, file string
		env        map[string]string
		args       []string
		want       string
	}{
		{"file", file, nil, nil, "/from/file"},
		{"environment", file, env, nil, "/from/env"},
		{"flag", file, env, []string{"--storage", "from/flag"}, "/work dir/from/flag"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := load(t, c.file, c.env, c.args...)
			if err != nil || s.Storage != c.want || s.Remotes[0].Config["path"] != c.want {
				t.Errorf("storage %q, remote %v, %v, want %q", s.Storage, s.Remotes, err, c.want)
			}
		})
	}
	t.Run("sregistry's, if it is there", func(t *testing.T) {
		t.Parallel()
		home := t.TempDir()
		if err := os.MkdirAll(home+"/.singularity/shub", 0o700); err != nil {
			t.Fatal(err)
		}
		if s, err := loadIn(t, home, nil); err != nil || s.Storage != home+"/.singularity/shub" {
			t.Errorf("storage %q, %v", s.Storage, err)
		}
	})
}

func TestLoad_sregistry(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	write(t, home+"/secrets.json", `{"SREGISTRY_CLIENT": "dropbox", "hub": {"base": "https://singularity-hub.org/api"},
		"dropbox": {"SREGISTRY_DROPBOX_TOKEN": "from file"}, "registry": {"SREGISTRY_REGISTRY_BASE": "https://reg.example"}}`, 0o644)
	env := map[string]string{"SREGISTRY_CLIENT_SECRETS": "HOME/secrets.json"}
	s, err := loadIn(t, home, env)
	if err != nil {
		t.Fatal(err)
	}
	if s.Default != "dropbox" || len(s.Remotes) != 4 || s.Remotes[3].URL != "https://reg.example" || s.Remotes[0].Token != "from file" || !s.Remotes[0].Guessed {
		t.Errorf("settings %+v", s)
	}
	env["SREGISTRY_DROPBOX_TOKEN"], env["SREGISTRY_CLIENT"] = "from environment", "local"
	if s, err = loadIn(t, home, env); err != nil || s.Remotes[0].Token != "from environment" || s.Default != "local" {
		t.Errorf("settings %+v, %v", s, err)
	}
}

// What Globus has answered to a login of sregistry is the login, and images are where it pushes
// them to.
func TestLoad_sregistryGlobus(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	write(t, home+"/secrets.json", `{"globus": {"GLOBUS_TRANSFER_RESPONSE": {"refresh_token": "Agx", "resource_server": "transfer.api.globus.org", "expires_at_seconds": 1}}}`, 0o600)
	env := map[string]string{"SREGISTRY_CLIENT_SECRETS": "HOME/secrets.json", "SREGISTRY_GLOBUS_ENDPOINT": "aa752cea-8222-5bc8-acd9-555b090c0ccb"}
	s, err := loadIn(t, home, env)
	if err != nil {
		t.Fatal(err)
	}
	r := s.Remotes[slices.IndexFunc(s.Remotes, func(r Remote) bool { return r.Name == "globus" })]
	want := map[string]any{"endpoint": env["SREGISTRY_GLOBUS_ENDPOINT"], "root": "/~/.singularity/shub"}
	if !strings.Contains(r.Token, `"refresh_token":"Agx"`) || !cmp.Equal(r.Config, want) {
		t.Errorf("remote %+v", r)
	}
}

// sregistry can be told to have no database.
func TestLoad_sregistryDisabled(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"SREGISTRY_DISABLE": false, "SINGULARITY_DISABLE_CACHE": false, "SREGISTRY_DATABASE": true} {
		s, err := loadIn(t, t.TempDir(), map[string]string{name: "true"})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Remotes[0].Config["database"]; ok != want {
			t.Errorf("with %s there is a database: %v", name, ok)
		}
	}
}

// Old versions wrote the settings of a registry under other names, which the client reads
// still, after its own.
func TestLoad_sregistryLegacy(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"registry": {"base": "https://old.lab/", "username": "me", "token": "key"}}`: "https://old.lab me key",
		`{"registry": {"base": "https://old.lab", "SREGISTRY_REGISTRY_BASE": "https://new.lab", "username": "me",
			"SREGISTRY_REGISTRY_USERNAME": "you", "token": "key"}}`: "https://new.lab you key",
		`{"registry": {"username": "me", "token": "key"}}`: "",
		`{"hub": {"base": "https://old.lab"}}`:             "",
		`{}`:                                               "",
	} {
		home := t.TempDir()
		write(t, home+"/.sregistry", text, 0o600)
		in := Inputs{Getenv: func(string) string { return "" }, Home: home}
		var s Settings
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		s.Flags(flags)
		if err := Load(&s, flags, in); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, r := range s.Remotes {
			if r.Type == "sregistry" {
				got = fmt.Sprint(r.URL, " ", r.User, " ", r.Token)
				if r.Origin != home+"/.sregistry" && r.Origin != "SREGISTRY_REGISTRY_BASE" {
					t.Errorf("%s: from %q", text, r.Origin)
				}
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// The client makes the file when it is first needed: until then there are no secrets, and
// nothing is wrong.
func TestLoad_sregistryNoFile(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	s, err := loadIn(t, home, map[string]string{"SREGISTRY_CLIENT_SECRETS": "HOME/none.json", "SREGISTRY_DROPBOX_TOKEN": "key"})
	if err != nil || len(s.Remotes) != 2 || s.Remotes[0].Token != "key" {
		t.Errorf("%+v, %v", s.Remotes, err)
	}
	if _, err := os.Stat(home + "/none.json"); err == nil {
		t.Error("the file was made")
	}
	// One that is there and cannot be read is a mistake.
	write(t, home+"/bad.json", "{", 0o600)
	for _, name := range []string{"bad.json", "."} {
		if _, err := loadIn(t, home, map[string]string{"SREGISTRY_CLIENT_SECRETS": "HOME/" + name}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// SREGISTRY_HTTPS_NOVERIFY is for what comes out of the settings of that client alone.
func TestLoad_sregistryNoVerify(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{"": false, "no": false, "false": false, "0": false, "yes": true, "True": true, "1": true, "t": true} {
		env := map[string]string{
			"SREGISTRY_HTTPS_NOVERIFY": value, "SREGISTRY_DROPBOX_TOKEN": "key", "SREGISTRY_DOCKERHUB_BASE": "reg.lab",
		}
		in := Inputs{
			Getenv: func(name string) string { return env[name] }, Home: t.TempDir(), Remotes: []string{"mine=oci,url=https://x.lab"},
		}
		var s Settings
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		s.Flags(flags)
		if err := Load(&s, flags, in); err != nil || len(s.Remotes) != 4 {
			t.Fatal(s.Remotes, err)
		}
		for _, r := range s.Remotes {
			if r.Insecure != (want && r.Name == "docker") {
				t.Errorf("%q: certificates of %s are not checked: %v", value, r.Name, r.Insecure)
			}
		}
	}
}

// The hub needs no settings: sregistry makes a table for it in each settings file.
func TestLoad_sregistryHub(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	write(t, home+"/table.json", `{"hub": {"base": "https://singularity-hub.org/api"}}`, 0o644)
	write(t, home+"/client.json", `{"SREGISTRY_CLIENT": "shub://"}`, 0o644)
	write(t, home+"/other.json", `{"SREGISTRY_CLIENT": "dropbox"}`, 0o644)
	for _, c := range []struct{ file, client, origin, def string }{
		{"table", "", "HOME/table.json", ""},
		{"table", "dropbox", "HOME/table.json", "dropbox"},
		{"client", "", "HOME/client.json", "hub"},
		{"client", "local", "HOME/client.json", "local"},
		{"other", "hub", "SREGISTRY_CLIENT", "hub"},
		{"other", "SHUB", "SREGISTRY_CLIENT", "hub"},
		{"other", "", "", "dropbox"},
	} {
		s, err := loadIn(t, home, map[string]string{"SREGISTRY_CLIENT_SECRETS": "HOME/" + c.file + ".json", "SREGISTRY_CLIENT": c.client})
		if err != nil {
			t.Fatal(err)
		}
		origin := ""
		for _, r := range s.Remotes {
			if r.Name == "hub" && r.Type == "hub" && r.Guessed && len(r.Config) == 0 {
				origin = strings.ReplaceAll(r.Origin, home, "HOME")
			}
		}
		if s.Default != c.def || origin != c.origin {
			t.Errorf("%s.json with SREGISTRY_CLIENT=%q: default %q, hub from %q; want %q and %q", c.file, c.client, s.Default, origin, c.def, c.origin)
		}
	}
	// A remote of ours that is called so is meant before.
	s, err := loadIn(t, home, map[string]string{"SREGISTRY_CLIENT": "myshub"}, "--remote", "myshub=dir,path=/images")
	if err != nil || s.Default != "myshub" {
		t.Errorf("default %q, %v", s.Default, err)
	}
}

// The clients of registries: which variables make a remote appear, and what it is.
func TestLoad_sregistryRegistries(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		env  map[string]string
		want string // name, type, url, user, token, what else; "" for no remote
	}{
		{map[string]string{"SREGISTRY_CLIENT": "docker"}, "docker docker    map[]"},
		{map[string]string{"SREGISTRY_CLIENT": "nvidia"}, "nvidia nvidia    map[]"},
		{map[string]string{"SREGISTRY_CLIENT": "aws"}, "aws aws    map[]"},
		{map[string]string{"SREGISTRY_CLIENT": "registry"}, ""},
		{map[string]string{"SREGISTRY_DOCKERHUB_USERNAME": "me", "SREGISTRY_DOCKERHUB_PASSWORD": "pw"}, "docker docker  me pw map[]"},
		{map[string]string{"SINGULARITY_DOCKER_USERNAME": "me", "SINGULARITY_DOCKER_PASSWORD": "pw"}, "docker docker  me pw map[]"},
		{map[string]string{
			"SREGISTRY_DOCKERHUB_USERNAME": "me", "SREGISTRY_DOCKERHUB_PASSWORD": "pw", "SINGULARITY_DOCKER_USERNAME": "x",
		}, "docker docker  me pw map[]"},
		{map[string]string{"SREGISTRY_DOCKERHUB_BASE": "index.docker.io"}, "docker docker https://index.docker.io   map[url:https://index.docker.io]"},
		{
			map[string]string{"SREGISTRY_DOCKERHUB_BASE": "127.0.0.1:5000", "SREGISTRY_DOCKERHUB_NOHTTPS": "yes"},
			"docker docker http://127.0.0.1:5000   map[url:http://127.0.0.1:5000]",
		},
		{
			map[string]string{"SREGISTRY_NVIDIA_TOKEN": "key", "SREGISTRY_NVIDIA_BASE": "https://nvcr.io/v2"},
			"nvidia nvidia https://nvcr.io  key map[url:https://nvcr.io]",
		},
		{map[string]string{"SREGISTRY_NVIDIA_BASE": "https://nvcr.io/v2"}, ""},
		{
			map[string]string{"SREGISTRY_NVIDIA_TOKEN": "key", "SREGISTRY_NVIDIA_BASE": "https://ngc.lab/v2/", "SREGISTRY_NVIDIA_NOHTTPS": "1"},
			"nvidia nvidia http://ngc.lab  key map[url:http://ngc.lab]",
		},
		{map[string]string{"SREGISTRY_AWS_ID": "12", "SREGISTRY_AWS_ZONE": "eu-1"}, "aws aws    map[account:12 region:eu-1]"},
		{map[string]string{"SREGISTRY_AWS_BASE": "x.amazonaws.com"}, "aws aws https://x.amazonaws.com   map[url:https://x.amazonaws.com]"},
		{
			map[string]string{"SREGISTRY_REGISTRY_BASE": "reg.lab/api", "SREGISTRY_REGISTRY_USERNAME": "me", "SREGISTRY_REGISTRY_TOKEN": "key"},
			"registry sregistry https://reg.lab/api me key map[url:https://reg.lab/api]",
		},
		// To this client any value means it, and an address that has a scheme keeps it.
		{
			map[string]string{"SREGISTRY_REGISTRY_BASE": "127.0.0.1:6200", "SREGISTRY_REGISTRY_NOHTTPS": "no"},
			"registry sregistry http://127.0.0.1:6200   map[url:http://127.0.0.1:6200]",
		},
		{
			map[string]string{"SREGISTRY_REGISTRY_BASE": "https://reg.lab", "SREGISTRY_REGISTRY_NOHTTPS": "yes"},
			"registry sregistry https://reg.lab   map[url:https://reg.lab]",
		},
	} {
		in := Inputs{
			Getenv: func(name string) string { return tt.env[name] }, Home: t.TempDir(),
		}
		var s Settings
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		s.Flags(flags)
		if err := Load(&s, flags, in); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, r := range s.Remotes {
			if r.Name != Local {
				got += fmt.Sprint(r.Name, " ", r.Type, " ", r.URL, " ", r.User, " ", r.Token, " ", r.Config)
			}
		}
		if got != tt.want {
			t.Errorf("%v makes %q, want %q", tt.env, got, tt.want)
		}
	}
}

func TestLoad_bad(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, file string
		env        map[string]string
		args       []string
		want       string // in the error
	}{
		{"syntax", "a = 1\nb = \n", nil, nil, "config.toml:2:"},
		{"unknown key", "\ncache_siz = 1\n", nil, nil, `config.toml:2: unknown setting "cache_siz" (did you mean "cache_size"?)`},
		{"value", "cache_size = \"much\"\n", nil, nil, `config.toml:1: cache_size: "much" is no size`},
		{"kind of value", "read_only = [true]\n", nil, nil, "config.toml:1: read_only is not a simple value"},
		{"not a bool", "read_only = \"maybe\"\n", nil, nil, "config.toml:1: read_only: "},
		{"choice", "push = \"later\"\n", nil, nil, `config.toml:1: push: "later" is not one of sync, async`},
		{"verify", "verify = \"never\"\n", nil, nil, `config.toml:1: verify: "never" is not one of lazy, strict`},
		{"fs_verity", "", map[string]string{"SREGFS_FS_VERITY": "maybe"}, nil, `SREGFS_FS_VERITY: fs_verity: "maybe" is neither true nor false`},
		{"max_streams", "max_streams = 17\n", nil, nil, `config.toml:1: max_streams: "17" is no number from 0 to 16`},
		{"environment", "", map[string]string{"SREGFS_PUSH": "later"}, nil, "SREGFS_PUSH: push: "},
		{"remotes no table", "remotes = 1\n", nil, nil, "config.toml:1: remotes is not a table"},
		{"remote no table", "[remotes]\nlab = \"oci\"\n", nil, nil, "config.toml:2: remotes.lab is not a table"},
		{"no type", "\n[remotes.lab]\n", nil, nil, "config.toml:2: remote lab: type is missing"},
		{"unknown type", "[remotes.lab]\ntype = \"ocy\"\n", nil, nil, `unknown type "ocy" (did you mean "oci"?)`},
		{"type of a common key", "[remotes.lab]\ntype = \"oci\"\nread_only = 3\n", nil, nil, "remote lab: read_only: true or false is wanted, as in read_only = true"},
		{"list as a word", "[remotes.lab]\ntype = \"oci\"\nhelper_env = \"X\"\n", nil, nil, `helper_env: a list is wanted, as in helper_env = ["one", "two"]`},
		{"name", "[remotes.\"a/b\"]\ntype = \"oci\"\n", nil, nil, "remote name"},
		{"push", "[remotes.lab]\ntype = \"oci\"\npush = \"x\"\n", nil, nil, "push is \"x\""},
		{"timeout", "[remotes.lab]\ntype = \"oci\"\ntimeout = \"soon\"\n", nil, nil, "no duration"},
		{"local is dir", "[remotes.local]\ntype = \"oci\"\n", nil, nil, `always of type "dir"`},
		{"two tokens", "[remotes.lab]\ntype = \"oci\"\ntoken_env = \"A\"\ntoken_file = \"b\"\n", nil, nil, "more than one of"},
		{"missing file", "", nil, []string{"--config=/nowhere/config.toml"}, "no such file"},
		{"a directory", "", nil, []string{"--config=HOME"}, "is a directory"},
		{"remote flag", "", nil, []string{"--remote=lab"}, "NAME=TYPE"},
		{"remote flag part", "", nil, []string{"--remote=lab=oci,insecure"}, "not key=value"},
		{"token in arguments", "", nil, []string{"--remote=lab=oci,token=hunter2"}, "token_file="},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, c.file, c.env, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Load gives %v, want %q in it", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestLoad_openSecrets(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	path := home + "/.config/sregfs/config.toml"
	write(t, path, "[remotes.lab]\ntype = \"oci\"\ntoken = \"hunter2\"\n", 0o644)
	_, err := loadIn(t, home, nil)
	if want := "config.toml:3: remote lab: this file holds a token and can be read by others"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Load gives %v, want %q in it", err, want)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := loadIn(t, home, nil); err != nil || s.Remotes[0].Token != "hunter2" {
		t.Errorf("Load of a file with mode 0600 gives %v", err)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Size{"0": 0, "17": 17, "500M": 500 << 20, "20G": 20 << 30, "1.5T": 3 << 39, "2GiB": 2 << 30, "2GB": 2e9, "10k": 10 << 10} {
		var got Size
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("Set(%q) gives %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "G", "-1", "1X", "99999999999T"} {
		var got Size
		if err := got.Set(text); err == nil {
			t.Errorf("Set(%q) gives %d, want an error", text, got)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add("[remotes.lab]\ntype = \"oci\"\nurl = 'x'\n")
	f.Add("remotes = {a = {type = \"dir\"}}\ncache_size = 1")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseFile("config.toml", 0o600, []byte(text))
		if err != nil {
			return
		}
		for _, line := range c.lines {
			if line < 1 || line > strings.Count(text, "\n")+1 {
				t.Errorf("line %d in %q", line, text)
			}
		}
		remotes, err := files{c}.remotes(Inputs{})
		if err == nil {
			for _, r := range remotes {
				if r.Type == "" {
					t.Errorf("remote without a type in %q", text)
				}
			}
		}
	})
}

// Keys of the cache can be written as those of a table, and lists of directories as
// lists.
func TestLoad_cacheTable(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"dotted": "cache.shared = [\"/apps/images\", \"~/more\"]\ncache.size = \"1G\"\n",
		"table":  "[cache]\nshared = [\"/apps/images\", \"~/more\"]\nsize = \"1G\"\n",
		"flat":   "cache_shared = \"/apps/images:~/more\"\ncache_size = \"1G\"\n",
	} {
		home := t.TempDir()
		write(t, filepath.Join(home, ".config/sregfs/config.toml"), text, 0o600)
		s, err := loadIn(t, home, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff([]string{"/apps/images", home + "/more"}, s.CacheShared); diff != "" || s.CacheSize != 1<<30 {
			t.Errorf("%s: size %d, shared:\n%s", name, s.CacheSize, diff)
		}
	}
	home := t.TempDir()
	write(t, filepath.Join(home, ".config/sregfs/config.toml"), "[cache]\nshared_dir = \"/x\"\n", 0o600)
	if _, err := loadIn(t, home, nil); err == nil || !strings.Contains(err.Error(), "config.toml:2") || !strings.Contains(err.Error(), "cache_shared") {
		t.Errorf("a wrong key: %v", err)
	}
}

// The null device is an empty file; nothing can be kept in it.
func TestLoad_null(t *testing.T) {
	t.Parallel()
	in := Inputs{Getenv: func(name string) string { return map[string]string{"SREGFS_CONFIG": os.DevNull}[name] }, Home: t.TempDir(), Dir: "/"}
	var s Settings
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	s.Flags(flags)
	if err := Load(&s, flags, in); err != nil || len(s.Remotes) != 1 {
		t.Errorf("Load: %v, remotes %v", err, s.Remotes)
	}
	edit := func([]byte) ([]byte, error) { return []byte("list_ttl = \"5s\"\n"), nil }
	if _, err := Change(in, edit, func(Settings) error { return nil }); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Change: %v", err)
	}
}
