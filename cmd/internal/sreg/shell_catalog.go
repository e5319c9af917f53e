// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// A position is a directory of the catalogue: the zero value is the root.
type position struct{ remote, collection string }

// String is how it is written: as the beginning of URIs.
func (p position) String() string {
	if p.remote == "" {
		return "/"
	}
	return p.remote + "://" + backends.EscapePath(p.collection)
}

func (p position) prompt() string {
	if p.remote == "" {
		return "sreg> "
	}
	return backends.Printable(p.String()) + "> "
}

// to returns the position that a path leads to: "vsoch", "..", "/lab/vsoch", "lab://vsoch".
//
// Errors: fs.ErrInvalid for a name that cannot be.
func (p position) to(uri string) (position, error) {
	path := strings.Replace(uri, "://", "/", 1)
	if uri != path || strings.HasPrefix(path, "/") {
		p = position{}
	}
	for part := range strings.SplitSeq(path, "/") {
		switch {
		case part == "" || part == ".":
		case part == ".." && p.collection == "":
			p = position{}
		case part == "..":
			p.collection = p.collection[:max(0, strings.LastIndexByte(p.collection, '/'))]
		case p.remote == "":
			if err := backends.CheckRemoteName(part); err != nil && backends.CheckHost(part) != nil {
				return p, err
			}
			p.remote = part
		default:
			plain, err := backends.UnescapePart(part)
			if err != nil || strings.Contains(plain, "/") {
				return p, fmt.Errorf("%w: %q is no collection's name", fs.ErrInvalid, part)
			}
			p.collection = strings.TrimPrefix(p.collection+"/"+plain, "/")
		}
	}
	return p, nil
}

// A builtin is a command of the prompt's own.
type builtin struct {
	use, short string
	run        func(ctx context.Context, args []string) error
}

func (s *shell) builtins() map[string]builtin {
	return map[string]builtin{
		"cat":  {"cat IMAGE...", "what images say of themselves, as inspect", s.cat},
		"cd":   {"cd [REMOTE|COLLECTION|..]", "go there; without a name to the root", s.cd},
		"help": {"help [COMMAND]", "this list, or all about one command", s.help},
		"ls":   {"ls [-l] [COLLECTION]", "what is in a remote or a collection", s.ls},
		"pwd":  {"pwd", "where one is", s.pwd},
		"tree": {"tree [COLLECTION]", "the images that are known below it", s.tree},
		"exit": {"exit", "the end; also Ctrl-D", nil},
	}
}

func (s *shell) builtinNames() []string { return slices.Sorted(maps.Keys(s.builtins())) }

func (s *shell) help(ctx context.Context, args []string) error {
	if len(args) > 0 {
		if b, ok := s.builtins()[args[0]]; ok {
			_, err := fmt.Fprintf(s.out, "%s: %s\n", b.use, b.short)
			return err
		}
		return s.child(ctx, append([]string{"help"}, args...))
	}
	t := newTable(s.out)
	for _, name := range s.builtinNames() {
		b := s.builtins()[name]
		t.row(b.use, b.short)
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.out, "\nand the commands of sreg, in which the names of what is here need no remote and collection:\n%s\n", strings.Join(s.commands, " "))
	return err
}

func (s *shell) pwd(context.Context, []string) error {
	_, err := fmt.Fprintln(s.out, backends.Printable(s.at.String()))
	return err
}

// entries yields what is at a position; at the root the remotes.
func (s *shell) entries(ctx context.Context, at position) iter.Seq2[verbs.Entry, error] {
	return func(yield func(verbs.Entry, error) bool) {
		err := s.with(ctx, func(c *control.Client) error {
			if at.remote == "" {
				names, err := remoteNames(ctx, c)
				for _, name := range names {
					if !yield(verbs.Entry{Name: name + "/", URI: name + "://"}, nil) {
						return nil
					}
				}
				return err
			}
			for e, err := range c.Entries(ctx, verbs.EntriesOptions{Remote: at.remote, Collection: at.collection}) {
				if err != nil {
					return err
				}
				if !yield(e, nil) {
					return nil
				}
			}
			return nil
		})
		if err != nil {
			yield(verbs.Entry{}, err)
		}
	}
}

func (s *shell) cd(ctx context.Context, args []string) error {
	if len(args) > 1 {
		return usagef("usage: cd [REMOTE|COLLECTION|..]")
	}
	to, err := s.at.to(first(append(args, "/")))
	if err != nil {
		return err
	}
	for _, err := range s.entries(ctx, to) {
		// What cannot be listed, or just now, can be gone to: what is in it opens by its name.
		if err != nil && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid)) || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		break
	}
	s.at = to
	return nil
}

func (s *shell) ls(ctx context.Context, args []string) error {
	long := len(args) > 0 && args[0] == "-l"
	if long {
		args = args[1:]
	}
	if len(args) > 1 || len(args) == 1 && strings.HasPrefix(args[0], "-") {
		return usagef("usage: ls [-l] [COLLECTION]")
	}
	at, err := s.at.to(first(args))
	if err != nil {
		return err
	}
	all := s.entries(ctx, at)
	if !long {
		for e, err := range all {
			if err != nil {
				return err
			}
			fmt.Fprintln(s.out, backends.Printable(e.Name))
		}
		return nil
	}
	of := func(text func(verbs.Record) string) func(verbs.Entry) string {
		return func(e verbs.Entry) string {
			if e.Image == nil {
				return ""
			}
			return text(*e.Image)
		}
	}
	return printTable(s.app, all, []column[verbs.Entry]{
		{name: "NAME", text: func(e verbs.Entry) string { return e.Name }},
		{name: "SIZE", text: of(func(r verbs.Record) string { return size(r.Size) })},
		{name: "STATE", text: of(state)},
		{name: "MODIFIED", text: of(func(r verbs.Record) string { return date(r.Modified) })},
	})
}

// tree prints what is known below a position. The images come in the order of their names.
func (s *shell) tree(ctx context.Context, args []string) error {
	if len(args) > 1 {
		return usagef("usage: tree [COLLECTION]")
	}
	at, err := s.at.to(first(args))
	if err != nil {
		return err
	}
	return s.with(ctx, func(c *control.Client) error {
		var above []string // the directories of the line before
		for r, err := range c.Images(ctx, verbs.ImagesOptions{Remote: at.remote}) {
			if err != nil {
				return err
			}
			path := strings.Split(strings.TrimSuffix(r.Remote+"/"+r.Ref.Collection, "/"), "/")
			if at.remote != "" {
				rest, ok := strings.CutPrefix(r.Ref.Collection+"/", at.collection+"/")
				if at.collection == "" {
					rest, ok = r.Ref.Collection+"/", true
				}
				if !ok {
					continue
				}
				path = strings.FieldsFunc(rest, func(c rune) bool { return c == '/' })
			}
			for i, part := range path {
				if i >= len(above) || !slices.Equal(above[:i+1], path[:i+1]) {
					fmt.Fprintf(s.out, "%s%s/\n", strings.Repeat("  ", i), backends.Printable(part))
				}
			}
			above = path
			name := r.Ref
			name.Collection = ""
			fmt.Fprintf(s.out, "%s%s\n", strings.Repeat("  ", len(path)), backends.Printable(strings.TrimPrefix(name.String(), "/")))
		}
		return nil
	})
}

func (s *shell) cat(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return usagef("usage: cat IMAGE...")
	}
	for _, uri := range s.absolute(ctx, args) {
		if err := s.child(ctx, []string{"inspect", uri}); err != nil {
			return err
		}
	}
	return nil
}

// absoluteWait is how long a registry may take to say whether a word is the name of
// something where one is.
const absoluteWait = 10 * time.Second

// absolute returns arguments with the names of what is here as URIs. All other words are as
// they are: files, options, what is to be made.
func (s *shell) absolute(ctx context.Context, args []string) []string {
	ctx, cancel := context.WithTimeout(ctx, absoluteWait)
	defer cancel()
	args = slices.Clone(args)
	for i, word := range args {
		if s.at.remote == "" && !strings.Contains(strings.Trim(word, "/"), "/") || strings.Contains(word, "://") || strings.HasPrefix(word, "-") || strings.HasPrefix(word, ".") || word == "" {
			continue
		}
		cut := strings.LastIndexByte(strings.TrimSuffix(word, "/"), '/') + 1
		at, err := s.at.to(word[:cut])
		if err != nil || at.remote == "" {
			continue
		}
		for e, err := range s.entries(ctx, at) {
			if err != nil {
				break // then the command says what is wrong
			}
			if name := word[cut:]; e.Name == name || e.Name == name+":"+backends.DefaultTag || e.Name == name+"/" {
				args[i] = e.URI
				break
			}
		}
	}
	return args
}
