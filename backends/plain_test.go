// SPDX-License-Identifier: Apache-2.0

package backends_test

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// Which files without the extension of an image may be one, by their name.
func TestExtensions_Plain(t *testing.T) {
	t.Parallel()
	const (
		always  = "a name with a tag"
		setting = "with the setting only"
		never   = "never"
	)
	for base, want := range map[string]string{
		"samtools:1.20--h50ea8bc_1": always, "a:b:c": always, "100%:1": always, "x:1.2.3": always, "mulled-v2-0:ab-0": always,
		"samtools-1.20": setting, "tool": setting, "my.tool": setting, ":1": setting, "x:": setting, "Readme2": setting, "a.b.c": setting,
		"": never, ".": never, ".x:1": never, "README": never, "Readme": never, "LICENSE": never, "MD5SUMS": never, "SHA256SUMS": never,
		"index.html": never, "notes.txt": never, "x:1.txt": never, "x:1.md5": never, "x:1.JSON": never, "x.sqsh": never, "x:1.tar.gz": never,
		"x:1.sif": never, "x.img.gz": never, "x:1.part": never, "x:1~": never, "#x:1#": never, "x:1.sif.AbC123": never,
		"x:1.img.pulling.1712": never, "x:1.lock": never, "x:1.tmp": never, "x:1_.gstmp": never,
	} {
		if got := backends.Extensions(nil).Plain(base); got != (want == always) {
			t.Errorf("%q: %v, want %s", base, got, want)
		}
		if got := (backends.Extensions{""}).Plain(base); got != (want != never) {
			t.Errorf("%q, extensions = [\"\"]: %v, want %s", base, got, want)
		}
	}
	named := backends.Extensions{".sqsh"}
	for base, want := range map[string]bool{"x.sqsh": true, "x:1.sqsh": true, "x:1": true, ".sqsh": false, ".x.sqsh": false, "x": false, "x.squashfs": false} {
		if got := named.Plain(base); got != want {
			t.Errorf("%q, extensions = [\".sqsh\"]: %v, want %v", base, got, want)
		}
	}
}

func TestExtensions_Check(t *testing.T) {
	t.Parallel()
	if err := (backends.Extensions{"", ".sqsh", ".tar.x"}).Check(); err != nil {
		t.Error(err)
	}
	for _, ext := range []string{"sqsh", ".", "/", ".a/b", ".a:b", "*"} {
		if err := (backends.Extensions{ext}).Check(); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v, want %v", ext, err, fs.ErrInvalid)
		}
	}
}

func TestSniff(t *testing.T) {
	t.Parallel()
	sif := append(bytes.Repeat([]byte{' '}, 32), "SIF_MAGIC\x0001"...)
	ext3 := make([]byte, backends.SniffSize)
	ext3[1080], ext3[1081] = 0x53, 0xEF
	const line = "#!/usr/bin/env run-singularity\n"
	for head, want := range map[string]string{
		string(sif): "sif", "hsqs and more": "simg", line + "hsqs": "simg", string(ext3): "img", line + string(ext3): "img",
		"": "", "hsq": "", line: "", "#!/bin/sh\necho": "", "<html>": "", strings.Repeat("\x00", backends.SniffSize): "", string(sif[:40]): "",
	} {
		if got := backends.Sniff([]byte(head)); got != want {
			t.Errorf("%.40q: %q, want %q", head, got, want)
		}
	}
}
