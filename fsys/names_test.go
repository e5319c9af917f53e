// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

func TestPathOf(t *testing.T) {
	t.Parallel()
	tests := []struct {
		remote, format string
		ref            backends.Ref
		want           string
	}{
		{"lab", "sif", backends.Ref{Collection: "vsoch", Name: "hello", Tag: "2.0"}, "lab/vsoch/hello:2.0.sif"},
		{"lab", "", backends.Ref{Collection: "vsoch", Name: "hello", Tag: "2.0"}, "lab/vsoch/hello:2.0.sif"},
		{"lab", "simg", backends.Ref{Collection: "vsoch", Name: "hello", Tag: "2.0"}, "lab/vsoch/hello:2.0.simg"},
		{"lab", "sif", backends.Ref{Name: "root", Tag: "latest"}, "lab/root:latest.sif"},
		{"lab", "sif", backends.Ref{Collection: "a/b/c", Name: "n", Tag: "t"}, "lab/a/b/c/n:t.sif"},
		{"lab", "sif", backends.Ref{Collection: "c", Name: "n", Tag: "t", Version: "sha256:0a"}, "lab/c/n:t@sha256:0a.sif"},
		{"lab", "sif", backends.Ref{Collection: "c", Name: "a/b", Tag: "x:y"}, "lab/c/a%2Fb:x%3Ay.sif"},
		{"lab", "sif", backends.Ref{Collection: ".hid", Name: ".n", Tag: "a.sif"}, "lab/%2Ehid/%2En:a.sif.sif"},
		{"lab", "sif", backends.Ref{Collection: "c\n", Name: "\xff", Tag: "100%"}, "lab/c%0A/%FF:100%25.sif"},
		{"lab", "sif", backends.Ref{Collection: "c", Name: "Ünï", Tag: "µ"}, "lab/c/Ünï:µ.sif"},
		{"lab", "img.gz", backends.Ref{Collection: "c", Name: "n", Tag: "1.0"}, "lab/c/n:1.0.img.gz"},
		{"lab", "oci.tar", backends.Ref{Collection: "c", Name: "n", Tag: "1.0"}, "lab/c/n+1.0.oci.tar"},
		{"lab", "oci.tar", backends.Ref{Collection: "c", Name: "a:b+c", Tag: "d+e"}, "lab/c/a%3Ab%2Bc+d%2Be.oci.tar"},
		{"lab", "oci.tar", backends.Ref{Collection: "c", Name: "n", Tag: "t", Version: "sha256:0a"}, "lab/c/n+t@sha256%3A0a.oci.tar"},
		{"lab", "sif", backends.Ref{Collection: "c", Name: "a+b", Tag: "c+d"}, "lab/c/a+b:c+d.sif"},
	}
	for _, tt := range tests {
		got := PathOf("", tt.remote, tt.ref, tt.format)
		if got != tt.want {
			t.Errorf("PathOf(%q, %+v, %q) = %q, want %q", tt.remote, tt.ref, tt.format, got, tt.want)
		}
		remote, ref, _, err := ParsePath(got)
		if err != nil || remote != tt.remote || ref != tt.ref {
			t.Errorf("ParsePath(%q) = %q, %+v, %v", got, remote, ref, err)
		}
	}
}

func TestPathOf_plus(t *testing.T) {
	t.Parallel()
	tests := []struct {
		format string
		ref    backends.Ref
		want   string
	}{
		{"sif", backends.Ref{Collection: "vsoch", Name: "hello", Tag: "2.0"}, "lab/vsoch/hello+2.0.sif"},
		{"simg", backends.Ref{Collection: "c+d", Name: "g++", Tag: "1+2"}, "lab/c+d/g%2B%2B+1%2B2.simg"},
		{"img.gz", backends.Ref{Collection: "c", Name: "n", Tag: "t", Version: "sha256:0a"}, "lab/c/n+t@sha256%3A0a.img.gz"},
		{"oci.tar", backends.Ref{Collection: "c", Name: "n", Tag: "1.0"}, "lab/c/n+1.0.oci.tar"},
	}
	for _, tt := range tests {
		got := PathOf(NamesPlus, "lab", tt.ref, tt.format)
		_, ref, format, err := ParsePath(got)
		if got != tt.want || err != nil || ref != tt.ref || format != tt.format {
			t.Errorf("PathOf(%+v, %q) = %q, want %q; it is parsed as %+v, %q, %v", tt.ref, tt.format, got, tt.want, ref, format, err)
		}
	}
}

func TestParsePath_shorthands(t *testing.T) {
	t.Parallel()
	latest := backends.Ref{Collection: "vsoch", Name: "hello", Tag: "latest"}
	version := latest
	version.Version = "sha256:12"
	tests := []struct {
		path   string
		ref    backends.Ref
		format string
	}{
		{"lab/vsoch/hello", latest, ""},
		{"/lab/vsoch/hello.sif", latest, "sif"},
		{"lab/vsoch/hello.simg", latest, "simg"},
		{"lab/vsoch/hello:latest", latest, ""},
		{"lab/vsoch/hello@sha256:12.sif", version, "sif"},
		{"lab/vsoch/hello.oci.tar", latest, "oci.tar"},
		{"lab/vsoch/hello:latest.oci.tar", latest, "oci.tar"},
		{"lab/vsoch/hello+latest@sha256:12.oci.tar", version, "oci.tar"},
		{"lab/vsoch/hello:latest@sha256:12", version, ""},
		{"lab/vsoch/hello+latest.sif", latest, "sif"},
		{"lab/vsoch/hello+latest.simg", latest, "simg"},
		{"lab/vsoch/hello+latest@sha256:12.sif", version, "sif"},
		{"lab/vsoch/g++", backends.Ref{Collection: "vsoch", Name: "g++", Tag: "latest"}, ""},
		{"lab/vsoch/g++:1.sif", backends.Ref{Collection: "vsoch", Name: "g++", Tag: "1"}, "sif"},
		{"lab/vsoch/g%2B%2B.sif", backends.Ref{Collection: "vsoch", Name: "g++", Tag: "latest"}, "sif"},
	}
	for _, tt := range tests {
		_, ref, format, err := ParsePath(tt.path)
		if err != nil || ref != tt.ref || format != tt.format {
			t.Errorf("ParsePath(%q) = %+v, %q, %v, want %+v, %q", tt.path, ref, format, err, tt.ref, tt.format)
		}
	}
}

func TestParsePath_bad(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300)
	for _, path := range []string{
		"", "/", "lab", "lab/", "-x/c/n:t.sif", "lab/c/n:.sif", "lab/c/n@.sif", "lab/c/:t.sif", "lab/c/n:a:b.sif",
		"lab/c/n:t@a@b.sif", "lab/../n:t.sif", "lab/c/..", "lab//n:t.sif", "lab/c:d/n:t.sif", "lab/c/n%zz:t.sif",
		"lab/c/g++.sif", "lab/c/n+1+2.sif", "lab/c/+1.sif", "lab/c/n+.simg", "lab/c/n+@v.oci.tar",
		"lab/c/%2E%2E:t.sif", "lab/%41/n:t.sif", "lab/%2E/n", "lab/c/n%00:t.sif",
		PathOf(NamesColon, "lab", backends.Ref{Collection: "c", Name: long, Tag: "t"}, "sif"),
		PathOf(NamesColon, "lab", backends.Ref{Collection: long, Name: "n", Tag: "t"}, "sif"),
	} {
		if _, ref, _, err := ParsePath(path); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("ParsePath(%q) = %+v, %v, want %v", path, ref, err, fs.ErrInvalid)
		}
	}
}

func TestShorten(t *testing.T) {
	t.Parallel()
	for n := 200; n < 400; n++ {
		for _, unit := range []string{"x", "é", "日", "\x01", "%41"} {
			ref := backends.Ref{Name: strings.Repeat(unit, n/len(unit)), Tag: "t"}
			name := NamesColon.fileName(ref, "sif")
			full := backends.EscapePart(ref.Name) + ":t.sif"
			if len(name) > MaxName || !strings.HasSuffix(name, ".sif") {
				t.Fatalf("%d bytes of %q: name of %d bytes: %q", len(full), unit, len(name), name)
			}
			if short := len(full) > MaxName; short != isShortened(name) || short != (name != full) {
				t.Fatalf("%d bytes of %q: isShort(%q) = %v", len(full), unit, name, isShortened(name))
			}
			if !strings.ContainsRune(name, ':') && len(full) <= MaxName {
				t.Fatalf("%q lost its tag", name)
			}
		}
	}
}

// Two long names that differ only where they are cut must not become one.
func TestShorten_distinct(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300)
	a := NamesColon.fileName(backends.Ref{Name: long, Tag: "1"}, "sif")
	b := NamesColon.fileName(backends.Ref{Name: long, Tag: "2"}, "sif")
	c := NamesColon.fileName(backends.Ref{Name: long, Tag: "1"}, "simg")
	if a == b || a == c || a[:len(a)-4] == c[:len(c)-5] {
		t.Errorf("names meet: %q %q %q", a, b, c)
	}
}

// Each row of the table has an example that a tool was seen to make, and what is
// much like it and is not.
func TestIsTemporary(t *testing.T) {
	t.Parallel()
	examples := map[string]string{
		"tmp-copy-1234":             "apptainer pull",
		"tmp-copy-1234.sif":         "apptainer pull",
		"hello:2.0.sif.ext3":        "apptainer overlay create",
		"sedAbC123":                 "sed -i",
		"4913":                      "vim",
		"hello:2.0.sif~":            "backups of editors and coreutils",
		"hello:2.0.sif.~2~":         "backups of editors and coreutils",
		"#hello:2.0.sif#":           "emacs",
		"hello:2.0.sif.part":        "downloads under way",
		"hello:2.0.abcd.partial":    "downloads under way",
		"Unconfirmed 42.crdownload": "downloads under way",
		"hello_.gstmp":              "downloads under way",
		"hello:2.0.sif.pulling.172": "Nextflow",
		"hello:2.0.pulling.172":     "Nextflow",
		"hello.img.lock":            "locks",
		"tmpab_d1234":               "Python's tempfile and mktemp",
		"tmp.A1b2C3d4E5":            "Python's tempfile and mktemp",
		"hello:2.0.sif.6eF5b5da":    "sregistry and aws s3",
		"hello:2.0.sif.6eF5b5":      "rsync --temp-dir",
		"hello+2.0.sif.6eF5b6":      "rsync --temp-dir",
	}
	seen := map[string]bool{}
	for name, tool := range examples {
		seen[tool] = true
		if !isTemporary(name) {
			t.Errorf("isTemporary(%q) = false, want true: it is of %s", name, tool)
		}
	}
	for _, row := range temporaries {
		if !seen[row.tool] {
			t.Errorf("no example of %s", row.tool)
		}
	}
	for _, name := range []string{".hello:2.0.sif.AbC123", ".hello+2.0.sif.AbC123", ".hello:2.0.sif.swp", ".hello.lock", ".nfs0001", ".fuse_hidden01", ".goutputstream-XYZ"} {
		if !isTemporary(name) {
			t.Errorf("isTemporary(%q) = false, want true: it is hidden", name)
		}
	}
	for _, name := range []string{"hello:2.0.sif", "hello+2.0.sif", "hello:2.0.simg", "hello:2.0", "hello.sif", "hello:1.img", "%2Ehidden:1.sif", "sedative:1.sif",
		"tool", "my.tool", "samtools-1.20", "sediment", "tmpabcd", "README", "README.md", "hello:2.0.sif.2", "2024", "tmp-copy-x", "tmp-copy-x.sif"} {
		if isTemporary(name) {
			t.Errorf("isTemporary(%q) = true, want false", name)
		}
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"tool", "my.tool", "samtools-1.20", "tool:1", "tool:1.20", "tool.sif", "tool:1.simg", "t.img.gz", "t+1.oci.tar",
		"x.squashfs.sif", "a%2Fb:c.sif", "Dockerfile", "gz", "v1.2.3"} {
		if err := checkName(name); err != nil {
			t.Errorf("checkName(%q) = %v", name, err)
		}
	}
	for _, name := range []string{"tool.SIF", "tool:1.Simg", "tool.squashfs", "tool.sqsh", "tool.sif.gz", "tool:1.sif.gz", "build.def", "README.md",
		"x.tar", "tool.sif.2", "tool.sif.bak", "tool:1.0.txt", "x.sif.sha256", "x.img.old.1"} {
		if err := checkName(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("checkName(%q) = %v, want %v", name, err, fs.ErrInvalid)
		}
	}
}

func TestInode(t *testing.T) {
	t.Parallel()
	seen := map[uint64]string{}
	for _, parts := range [][]string{
		{"dir", "a", "b/c"}, {"dir", "a/b", "c"}, {"dir", "ab", "/c"}, {"image", "a", "b/c"},
		{"dir", "a", "b/c", ""}, {"dir", "", "a"}, {"dir", "a", ""}, {"dir", "a"},
	} {
		ino := inode(parts...)
		if other, ok := seen[ino]; ok {
			t.Errorf("%q and %q have one inode number", parts, other)
		}
		seen[ino] = strings.Join(parts, "|")
		if ino < 16 || ino >= 1<<63 {
			t.Errorf("inode(%q) = %d, which others use", parts, ino)
		}
	}
	// The numbers are a promise: they stay over mounts and releases.
	if got, want := inode("dir", "local", "vsoch"), uint64(6955884706018328835); got != want {
		t.Errorf("inode(dir, local, vsoch) = %d, want %d", got, want)
	}
}

func TestInode_image(t *testing.T) {
	t.Parallel()
	img := backends.Image{Ref: backends.Ref{Collection: "vsoch", Name: "hello", Tag: "2.0"}, Version: "sha256:" + strings.Repeat("5f", 32)}
	if got, want := imageIno("local", &img), uint64(2657239711163702518); got != want {
		t.Errorf("inode of %v = %d, want %d", img, got, want)
	}
}

// The time of an image without one stays over mounts, on all machines, and goes with
// the version.
func TestUndated(t *testing.T) {
	t.Parallel()
	when := map[string]time.Time{}
	for _, version := range []string{"sha256:" + strings.Repeat("5f", 32), "sha256:" + strings.Repeat("60", 32), "rev1"} {
		when[version] = placeholderTime(&backends.Image{Version: version}).UTC()
	}
	if got, want := when["rev1"], time.Date(1980, 1, 5, 9, 11, 17, 0, time.UTC); !got.Equal(want) {
		t.Errorf("the time of rev1 is %v, want %v", got, want)
	}
	seen := map[time.Time]bool{}
	for version, at := range when {
		if seen[at] || at.Year() != 1980 || at.Month() != time.January {
			t.Errorf("the time of %s is %v", version, at)
		}
		seen[at] = true
	}
}

func FuzzPath(f *testing.F) {
	f.Add("lab", "vsoch", "hello", "2.0", "", uint8(0))
	f.Add("lab", "a/b", ".x", "sha256:1", "sha256:aa", uint8(1))
	f.Add("r", "", "\xff\x00/", "%", "@", uint8(2))
	f.Add("r", "c.sif", "n.sif", "t.simg", "v.sif", uint8(1))
	f.Add("r", "c+d", "n+:m", "t+:u", "sha256:aa", uint8(4))
	f.Fuzz(func(t *testing.T, remote, collection, name, tag, version string, kind uint8) {
		ref := backends.Ref{Collection: collection, Name: name, Tag: tag, Version: version}
		if backends.CheckRemoteName(remote) != nil || tag == "" || ref.Check() != nil {
			return
		}
		format := backends.Formats()[int(kind)%len(backends.Formats())]
		for _, n := range []Names{NamesColon, NamesPlus} {
			roundTrip(t, n, remote, ref, format)
		}
	})
}

// roundTrip checks that a path leads back to its image, and is one of a tree.
func roundTrip(t *testing.T, n Names, remote string, ref backends.Ref, format string) {
	t.Helper()
	path := PathOf(n, remote, ref, format)
	if n == NamesPlus && strings.Contains(path, ":") {
		t.Fatalf("PathOf(%q, %+v) = %q with a colon", remote, ref, path)
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || len(part) > MaxName || strings.ContainsRune(part, 0) {
			t.Fatalf("PathOf(%q, %+v) = %q with the part %q", remote, ref, path, part)
		}
	}
	r, got, gotFormat, err := ParsePath(path)
	if err != nil {
		for part := range strings.SplitSeq(path, "/") {
			if isShortened(part) {
				return
			}
		}
		t.Fatalf("ParsePath(%q) of %+v: %v", path, ref, err)
	}
	if r != remote || got != ref || gotFormat != format {
		t.Fatalf("ParsePath(%q) = %q, %+v, %q, want %q, %+v, %q", path, r, got, gotFormat, remote, ref, format)
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"lab/a/b:c.sif", "lab/a/b", "lab/%2E/b:%3A@x.simg", "lab/a:b/c", "x", "lab/a/b+c.sif", "lab/a/b+c+d.sif"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		remote, ref, format, err := ParsePath(path)
		if err != nil {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Fatalf("ParsePath(%q): %v", path, err)
			}
			return
		}
		// Whatever is read is a name, and its own path leads back to it.
		for _, n := range []Names{NamesColon, NamesPlus} {
			again := PathOf(n, remote, ref, format)
			r, got, _, err := ParsePath(again)
			if err != nil && strings.Contains(again, "~") {
				continue // shortened
			}
			if err != nil || r != remote || got != ref {
				t.Fatalf("ParsePath(%q) = %+v; of its path %q: %+v, %v", path, ref, again, got, err)
			}
		}
	})
}

// A file without an extension is listed as the registry has it, and opens under every
// name of its image.
func TestFileName_plain(t *testing.T) {
	t.Parallel()
	tagged, latest := backends.Ref{Name: "samtools", Tag: "1.20--h50ea8bc_1"}, backends.Ref{Name: "samtools-1.20", Tag: "latest"}
	exact := latest
	exact.Version = "sha256:12"
	for _, tt := range []struct {
		ref          backends.Ref
		format, want string
	}{
		{tagged, backends.FormatPlain, "samtools:1.20--h50ea8bc_1"},
		{latest, backends.FormatPlain, "samtools-1.20:latest"},
		{latest, backends.FormatBare, "samtools-1.20"},
		{exact, backends.FormatBare, "samtools-1.20:latest@sha256:12"},
		{backends.Ref{Name: "a:b", Tag: "c/d"}, backends.FormatPlain, "a%3Ab:c%2Fd"},
	} {
		if got := NamesColon.fileName(tt.ref, tt.format); got != tt.want {
			t.Errorf("%v, %s: %q, want %q", tt.ref, tt.format, got, tt.want)
		}
		ref, format, err := parseFile(tt.want)
		if ref.Tag == "" {
			ref.Tag = backends.DefaultTag
		}
		if ref != tt.ref || format != "" || err != nil {
			t.Errorf("%q is %+v, %q, %v, want %+v", tt.want, ref, format, err, tt.ref)
		}
	}
}

// With a plus in place of the colon it needs an extension.
func TestFileName_plainPlus(t *testing.T) {
	t.Parallel()
	for want, tag := range map[string]string{"tool+1.sif": "1", "tool": "latest"} {
		format := map[string]string{"1": backends.FormatPlain, "latest": backends.FormatBare}[tag]
		got := NamesPlus.fileName(backends.Ref{Name: "tool", Tag: tag}, format)
		if ref, _, err := parseFile(got); got != want || ref.Name != "tool" || ref.Tag != tag || err != nil {
			t.Errorf("%q is %+v, %v, want %q", got, ref, err, want)
		}
	}
}

// What tools keep for a moment beside images is nothing that is listed: a lookup of it
// would not ask the registry.
func TestIsTemporary_plain(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"~", ".ext3", ".part", ".partial", ".filepart", ".crdownload", ".opdownload", ".tmp", ".aria2", "_.gstmp",
		".pulling.17", ".lock", ".sif.abcd_123", ".oci.tar.AbC123"} {
		name := "samtools:1.20" + end
		if !isTemporary(name) {
			t.Errorf("%q is not temporary", name)
		}
		if (backends.Extensions{""}).Plain(name) {
			t.Errorf("%q is listed", name)
		}
	}
}
