// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// A generator makes operations up. Few names, and that which was named last more often than
// any other, let clients meet.
type generator struct {
	*rand.Rand
	last string // URI
}

func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

func (g *generator) settings() settings {
	s := settings{overwrite: g.IntN(2) == 0, async: g.IntN(5) == 0, passthrough: g.IntN(2) == 0}
	s.overwrite = s.overwrite || s.async
	return s
}

func (g *generator) dir() string {
	return pick(g, "lab", "lab", "local") + "/" + pick(g, "c1", "c1", "c2")
}

func (g *generator) uri() string {
	if g.last == "" || g.IntN(5) < 2 {
		g.last = strings.Replace(g.dir(), "/", "://", 1) + "/" + pick(g, "x", "x", "y", "z") + ":" + pick(g, "1", "1", "2")
	}
	return g.last
}

func (g *generator) file() string {
	p := strings.Replace(g.uri(), "://", "/", 1) + ".sif"
	if g.IntN(10) == 0 {
		p = strings.Replace(p, ":", "+", 1)
	}
	return p
}

// any is a path: of an image, or a temporary one.
func (g *generator) any() string {
	if g.IntN(4) == 0 {
		return g.dir() + "/" + pick(g, ".t1", "t2.part")
	}
	return g.file()
}

func (g *generator) image() string { return pick(g, "0", "0", "1", "2", "3", "4", "5") }

// piece is an image, and a piece of it.
func (g *generator) piece() string {
	image := g.image()
	switch g.IntN(6) {
	case 0:
		return "junk 0 5000"
	case 1:
		return fmt.Sprintf("%s 0 %d", image, 4096+g.IntN(60000))
	case 2:
		return fmt.Sprintf("%s %d %d", image, g.IntN(140000), 1+g.IntN(200000))
	}
	return image + " 0 4000000"
}

// next makes up an operation. Which files are open decides what there is to do.
func (g *generator) next(m *model) op {
	client := pick(g, "c0", "c0", "c1", "c2")
	handle := pick(g, "a", "b", "d")
	if n := g.IntN(100); n < 40 && m.fds[client+handle] != nil {
		line := pick(g,
			fmt.Sprintf("read %s %d %d", handle, pick(g, 0, 0, g.IntN(150000)), pick(g, 100, 5000, 4000000)),
			"write "+handle+" "+g.piece(), "write "+handle+" "+g.piece(),
			fmt.Sprintf("truncate %s %d", handle, pick(g, 0, g.IntN(200000))),
			"fsync "+handle, "close "+handle, "close "+handle, "close "+handle,
			"dup "+handle+" "+pick(g, "a", "b", "d"), fmt.Sprintf("utime %s %d", handle, 1_400_000_000+g.IntN(1000)),
		)
		return parseOp(client + " " + line)
	}
	return parseOp(g.line(client, handle, m))
}

func (g *generator) line(client, handle string, m *model) string {
	switch n := g.IntN(100); {
	case n < 16:
		return client + " open " + handle + " " + g.any() + " " + pick(g, "r", "r", "w", "w", "W", "x", "u")
	case n < 32:
		return client + " cp " + g.image() + " " + g.any()
	case n < 44:
		return client + " cat " + g.any()
	case n < 54:
		return client + " stat " + g.any()
	case n < 60:
		return client + " ls " + g.dir()
	case n < 66:
		return client + " mv " + g.any() + " " + g.any()
	case n < 69:
		return client + " rm " + g.any()
	case n < 72:
		return client + " " + pick(g, "mkdir", "mkdir", "rmdir") + " " + g.dir()
	case n < 79:
		return "other " + pick(g, "put "+g.uri()+" "+g.image(), "put "+g.uri()+" "+g.image(), "del "+g.uri())
	case n < 91:
		return "sreg " + pick(g, "push "+g.image()+" "+g.uri(), "force "+g.image()+" "+g.uri(), "rm "+g.uri(),
			"pull "+g.uri(), "pull "+g.uri(), "uploads", "uploads", "retry", "discard", "refresh", "evict", "evict")
	case n < 95 && m.fault != "":
		return "world heal"
	case n < 97:
		return "world " + pick(g, "kill", "kill", "remount", "sync", "blip a 0 4000000", "blip b 0 5000")
	case n < 98:
		return "world " + pick(g, "away", "lie", "nolist", "slow")
	}
	return client + " cat " + g.file()
}

// sequence returns what plays up to n random operations, after the directories are there.
func (g *generator) sequence(n int) func(*model) (op, bool) {
	begin := []op{}
	for _, dir := range []string{"lab/c1", "lab/c2", "local/c1", "local/c2"} {
		if g.IntN(8) > 0 {
			begin = append(begin, op{"c0", "mkdir", []string{dir}})
		}
	}
	return func(m *model) (op, bool) {
		if len(begin) > 0 {
			o := begin[0]
			begin = begin[1:]
			return o, true
		}
		if n--; n < 0 {
			return op{}, false
		}
		for range 100 {
			if o := g.next(m); m.legal(o) {
				return o, true
			}
		}
		return op{}, false
	}
}

// replay plays a script.
func replay(ops []op) func(*model) (op, bool) {
	ops = slices.Clone(ops)
	return func(*model) (op, bool) {
		if len(ops) == 0 {
			return op{}, false
		}
		o := ops[0]
		ops = ops[1:]
		return o, true
	}
}
