// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
)

// Settings is all that the commands can be told, except for what to do.
type Settings struct {
	Home     string // state directory; "" chooses one
	Storage  string // images of the local remote
	CacheDir string
	// CacheShared are directories of other caches, which are only read.
	CacheShared []string
	Default     string // remote of a URI that names none
	// LocalDatabase says what is done with the database of the sregistry client: "read",
	// "write" or "off".
	LocalDatabase string

	CacheSize Size // 0 means no limit but MinFree
	MinFree   Size // 0 means 256 MiB, of a small disk less

	ReadOnly       bool
	AllowOverwrite bool
	AllowDelete    bool
	AllowOther     bool
	Names          string // "colon" or "plus"
	Open           string // "lazy" or "wait"
	Push           string // "sync" or "async"
	Passthrough    string // "auto" or "off"
	Verify         string // "lazy" or "strict"
	FSVerity       bool
	MaxStreams     int // requests for one image at once; 0 means as many as are of use
	ListTTL        time.Duration
	StopTimeout    time.Duration
	DrainTimeout   time.Duration
	UID, GID       int // -1 means who mounts
	Umask          int // bits that the modes in the mount have not
	LogFile        string
	MetricsFile    string // for node_exporter; "" writes none
	ImageList      string // URLs whose names other programs look up; see package toolnames
	Runtime        string // the program that runs images; "" looks for one

	Hosts    Hosts    // services that need no table of their own
	Remotes  []Remote // in the order of their names, "local" among them
	Warnings []string // what a person should do something about
	// Origins is where each setting is from, by its key: "--push", "SREGFS_PUSH",
	// "/etc/sregfs/config.toml:3", "default".
	Origins map[string]string
}

// Flags declares every setting on fs, with its default.
func (s *Settings) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&s.Home, "home", "", "directory of the `state`: index, uploads under way (default $XDG_STATE_HOME/sregfs/HOST)")
	fs.StringVar(&s.Storage, "storage", "", "directory of the `images` of the remote \"local\" (default $SREGISTRY_STORAGE or ~/.singularity/shub)")
	s.LocalDatabase = "read"
	fs.Var(oneOf{&s.LocalDatabase, []string{"read", "write", "off"}}, "local-sregistry-database", "whether the database of the sregistry client, in $SREGISTRY_DATABASE or ~/.singularity, belongs to the remote \"local\", and is kept up to date: `read|write|off`")
	fs.StringVar(&s.CacheDir, "cache-dir", "", "directory of pulled images (default $XDG_CACHE_HOME/sregfs)")
	fs.Var((*paths)(&s.CacheShared), "cache-shared", "`directories` of other caches, separated by colons, in which whole images are looked for; never written")
	fs.StringVar(&s.Default, "default", "", "the `remote` of a URI that names none (default $SREGISTRY_CLIENT or \"local\")")
	fs.Var(&s.CacheSize, "cache-size", "most bytes that pulled images may take, as 20G; 0 means what --min-free leaves")
	fs.Var(&s.MinFree, "min-free", "bytes to leave free on the disk of the cache; 0 means 256 MiB, of a small disk a twentieth")
	fs.BoolVar(&s.ReadOnly, "read-only", false, "refuse all writing, on every remote")
	fs.BoolVar(&s.AllowOverwrite, "allow-overwrite", false, "let published tags be replaced")
	fs.BoolVar(&s.AllowDelete, "allow-delete", false, "let images be deleted through the mount")
	fs.BoolVar(&s.AllowOther, "allow-other", false, "let other users see the mount")
	s.Names, s.Open, s.Push, s.Passthrough, s.Verify = "colon", "lazy", "sync", "auto", "lazy"
	fs.Var(oneOf{&s.Names, []string{"colon", "plus"}}, "names", "how listings spell the names of images, both of which open: IMAGE:TAG.sif or IMAGE+TAG.sif: `colon|plus`")
	fs.Var(oneOf{&s.Open, []string{"lazy", "wait"}}, "open", "whether open(2) waits until the image is whole and verified: `lazy|wait`")
	fs.Var(oneOf{&s.Push, []string{"sync", "async"}}, "push", "whether close(2) waits until a copied file is published: `sync|async`")
	fs.Var(oneOf{&s.Passthrough, []string{"auto", "off"}}, "passthrough", "whether the kernel may read whole images without us: `auto|off`")
	fs.Var(oneOf{&s.Verify, []string{"lazy", "strict"}}, "verify", "whether bytes are given out before the whole image was compared with its digest: `lazy|strict`")
	fs.BoolVar(&s.FSVerity, "fs-verity", false, "let the kernel guard whole images in the cache, where the filesystem can (ext4, btrfs, f2fs)")
	fs.Var(upTo{&s.MaxStreams, 16}, "max-streams", "most requests for one image at once in the background; 0 means as many as are of use, up to 16")
	s.ListTTL, s.StopTimeout, s.DrainTimeout = time.Minute, 30*time.Second, 7*24*time.Hour
	fs.Var((*Duration)(&s.ListTTL), "list-ttl", "age at which a listing is refreshed")
	fs.Var((*Duration)(&s.StopTimeout), "stop-timeout", "how long stopping may wait for uploads, and for files that are being written")
	fs.Var((*Duration)(&s.DrainTimeout), "drain-timeout", "how long after that files that are open can be read; 0 ends with them open")
	fs.Var(&s.Hosts, "hosts", "services that can be used by the names of their hosts alone, as quay.io: `any|none|HOST,…` (default any; none with --allow-other)")
	s.UID, s.GID = -1, -1
	fs.Var(upTo{&s.UID, maxID}, "uid", "owner of the files, by `number` (default who mounts)")
	fs.Var(upTo{&s.GID, maxID}, "gid", "group of the files, by `number`")
	for _, name := range []string{"uid", "gid", "hosts"} {
		fs.Lookup(name).DefValue = "" // it is said in words
	}
	fs.Var(octal{&s.Umask}, "umask", "permissions that nobody has in the mount, in octal: 027 keeps all but --gid out of it, with --allow-other")
	fs.StringVar(&s.ImageList, "image-list", "", "`file` with URLs of images, one a line, whose file names .nextflow and .snakemake in the mount know (default ~/.config/sregfs/images.txt)")
	fs.StringVar(&s.Runtime, "runtime", "", "the `program` that runs images for sreg run, exec, shell and build (default apptainer or singularity on the PATH)")
	fs.StringVar(&s.LogFile, "log-file", "", "`file` for the log in the background (default sregfs.log in the state directory)")
	fs.StringVar(&s.MetricsFile, "metrics-file", "", "`file` for the textfile collector of node_exporter, as DIR/sregfs.prom, written anew every 15 seconds")
}

// KeyOf returns how the file and the mount options spell a flag.
func KeyOf(flag string) string { return strings.ReplaceAll(flag, "-", "_") }

// VariableOf returns the variable of the environment that is a flag.
func VariableOf(flag string) string { return "SREGFS_" + strings.ToUpper(KeyOf(flag)) }

// Values returns the settings by their keys, as a flag or a variable would spell them.
func (s Settings) Values() map[string]string {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	var t Settings
	t.Flags(flags)
	t = s // what the flags point to
	all := map[string]string{}
	flags.VisitAll(func(f *pflag.Flag) { all[KeyOf(f.Name)] = f.Value.String() })
	return all
}

// keys returns the keys of all settings on fs.
func keys(fs *pflag.FlagSet) []string {
	var all []string
	fs.VisitAll(func(f *pflag.Flag) { all = append(all, KeyOf(f.Name)) })
	return all
}

// A Size is a count of bytes that can be written as 20G, 20GB or 20GiB. Both G
// and GiB count by 1024, as df -h and ls -lh do; GB counts by 1000.
type Size int64

// Set implements pflag.Value.
func (s *Size) Set(text string) error {
	unit := ""
	if n := len(text); n > 1 && strings.ContainsAny(text[n-1:], "kKmMgGtTpP") {
		unit = "iB"
	}
	n, err := humanize.ParseBytes(text + unit)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is no size (write 500M, 20G, 1.5T)", text)
	}
	*s = Size(n)
	return nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error { return s.Set(string(text)) }

// String implements pflag.Value.
func (s *Size) String() string {
	text := humanize.IBytes(uint64(*s))
	if n, err := humanize.ParseBytes(text); *s == 0 || err != nil || n != uint64(*s) { // it rounds
		return strconv.FormatInt(int64(*s), 10)
	}
	return text
}

// Type implements pflag.Value.
func (s *Size) Type() string { return "size" }

// paths is a list of directories, as $PATH is one.
type paths []string

func (p *paths) Set(v string) error {
	*p = filepath.SplitList(v)
	return nil
}

func (p *paths) String() string { return strings.Join(*p, string(filepath.ListSeparator)) }
func (p *paths) Type() string   { return "directories" }

// oneOf is a string with few possible values.
type oneOf struct {
	to      *string
	choices []string
}

func (o oneOf) Set(v string) error {
	for _, c := range o.choices {
		if v == c {
			*o.to = v
			return nil
		}
	}
	return fmt.Errorf("%q is not one of %s", v, strings.Join(o.choices, ", "))
}

func (o oneOf) String() string { return *o.to }
func (o oneOf) Type() string   { return "string" }

// maxID is the largest number of a user or group: the next one means none.
const maxID = min(1<<32-2, math.MaxInt)

// octal is a set of permissions.
type octal struct{ to *int }

func (o octal) Set(v string) error {
	n, err := strconv.ParseUint(v, 8, 9)
	if err != nil {
		return fmt.Errorf("%q are no permissions in octal, as 022", v)
	}
	*o.to = int(n)
	return nil
}

func (o octal) String() string {
	if o.to == nil || *o.to == 0 {
		return "0"
	}
	return fmt.Sprintf("%03o", *o.to)
}
func (o octal) Type() string { return "mode" }

// upTo is a number from 0 to a limit.
type upTo struct {
	to    *int
	limit int
}

func (u upTo) Set(v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > u.limit {
		return fmt.Errorf("%q is no number from 0 to %d", v, u.limit)
	}
	*u.to = n
	return nil
}

func (u upTo) String() string {
	if u.to == nil {
		return "0"
	}
	return strconv.Itoa(*u.to)
}

func (u upTo) Type() string { return "int" }
