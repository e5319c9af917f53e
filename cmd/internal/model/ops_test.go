// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sregfs/sregfs/fsys/fsystest"
)

// An op is one line of a script: who does what.
//
//	c0 open H PATH r|w|W|x|u  O_RDONLY; O_WRONLY|O_CREAT|O_TRUNC, W with mode 0600; O_RDWR|O_CREAT|O_EXCL; O_RDWR
//	c0 read H OFF N           write H IMAGE OFF N: the bytes that IMAGE has there
//	c0 truncate H SIZE        fsync H, close H, dup H NEW, utime H SECONDS
//	c0 cp IMAGE PATH          open w, write, close; cat PATH, stat PATH, ls DIR
//	c0 mv PATH PATH           rm PATH, mkdir DIR (and go there), rmdir DIR
//	sreg push|force IMAGE URI rm URI, pull URI, uploads, retry, discard, refresh, evict
//	other put URI IMAGE       del URI: somebody else at the registry
//	world FAULT               away, lie, nolist, slow; heal ends them; kill, remount
//	world blip H OFF N        c0 reads while the registry is away for 0.3 s
//	world sync                until nothing is queued
//
// The clients c0, c1, c2 are processes of their own. A PATH is REMOTE/COLLECTION/FILE
// below the mount; IMAGE is a number, or "junk".
type op struct {
	who, verb string
	args      []string
}

func parseOp(line string) op {
	f := strings.Fields(line)
	return op{f[0], f[1], f[2:]}
}

func (o op) String() string { return strings.Join(append([]string{o.who, o.verb}, o.args...), " ") }

func (o op) arg(i int) string {
	if i < len(o.args) {
		return o.args[i]
	}
	return ""
}

func (o op) num(i int) int64 {
	n, err := strconv.ParseInt(o.arg(i), 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%s: argument %d is no number", o, i))
	}
	return n
}

// settings are the first line of a script: "settings overwrite=no push=sync …".
type settings struct {
	overwrite   bool // and delete, on the remote lab; local always allows both
	async       bool
	passthrough bool
}

func (s settings) String() string {
	yes := map[bool]string{true: "yes", false: "no"}
	return fmt.Sprintf("settings overwrite=%s async=%s passthrough=%s", yes[s.overwrite], yes[s.async], yes[s.passthrough])
}

// A script is a sequence as text, with comments.
type script struct {
	settings settings
	ops      []op
}

func parseScript(text string) (s script) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		switch f := strings.Fields(line); {
		case len(f) == 0:
		case f[0] == "settings":
			s.settings = settings{slices.Contains(f, "overwrite=yes"), slices.Contains(f, "async=yes"), slices.Contains(f, "passthrough=yes")}
		default:
			s.ops = append(s.ops, parseOp(line))
		}
	}
	return s
}

func (s script) String() string {
	var b strings.Builder
	fmt.Fprintln(&b, s.settings)
	for _, o := range s.ops {
		fmt.Fprintln(&b, o)
	}
	return b.String()
}

// images are what is written and pushed: SIFs of odd sizes. 1 and 2 differ in their last
// byte only, 3 begins as 4 does but for the sizes in its header.
var images = func() [][]byte {
	all := [][]byte{
		fsystest.Image(4096, 1), fsystest.Image(131073, 2), nil, fsystest.Image(40001, 4),
		fsystest.Image(300000, 4), fsystest.Image(3<<20+17, 5),
	}
	all[2] = bytes.Clone(all[1])
	all[2][len(all[2])-100] ^= 1
	return all
}()

// content returns the bytes that IMAGE has in [off, off+n).
func content(image string, off, n int64) []byte {
	if image == "junk" {
		return bytes.Repeat([]byte("junk"), int(n+3)/4)[:n]
	}
	i, err := strconv.Atoi(image)
	if err != nil {
		panic(err)
	}
	size := int64(len(images[i]))
	return images[i][min(off, size):min(off+n, size)]
}

func whole(image string) []byte { return content(image, 0, 1<<30) }

// What bytes are, to who would publish them.
const (
	isEmpty   = "empty"
	isWhole   = "whole"
	isPart    = "part"
	isOther   = "other"
	isStrange = "strange" // pieces of several images: the model does not judge
)

const headSize = 36864 + 96 // of a SIF here: the header, the table of objects, the squashfs superblock

func kindOf(data []byte) string {
	if len(data) == 0 {
		return isEmpty
	}
	for _, img := range images {
		n := min(len(data), headSize)
		if bytes.Equal(data[:n], img[:n]) {
			switch tail := max(len(img)-4096, 0); {
			case len(data) >= len(img) && !bytes.Equal(data[tail:len(img)], img[tail:]):
				return isStrange // the tables of the squashfs are there
			case len(data) >= len(img):
				return isWhole
			case n == headSize || n >= 4096:
				return isPart
			}
		}
	}
	if bytes.HasPrefix(data, []byte("junk")) || data[0] == 0 && len(bytes.Trim(data[:min(len(data), 128)], "\x00")) == 0 {
		return isOther
	}
	return isStrange
}

// A name is a path in the mount, taken apart.
type name struct {
	remote, dir string // dir is REMOTE/COLLECTION
	key         string // of an image REMOTE/COLLECTION/NAME:TAG, however it is spelled; else the path
	spelled     string
	temporary   bool
}

func parseName(p string) name {
	p = strings.Replace(p, "://", "/", 1)
	dir, file := path.Split(p)
	n := name{dir: strings.TrimSuffix(dir, "/"), key: p, spelled: p}
	n.remote, _, _ = strings.Cut(p, "/")
	n.temporary = strings.HasPrefix(file, ".") || strings.HasSuffix(file, ".part")
	if !n.temporary {
		n.key = dir + strings.Replace(strings.TrimSuffix(file, ".sif"), "+", ":", 1)
	}
	return n
}
