// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/sregfs/sregfs/backends"
)

// A Key is one setting of a remote's table: a string, bool, int64 or a slice.
type Key struct {
	Name  string
	Value any
}

// ParseKey reads "key=value", as --remote does.
//
// Errors: fs.ErrInvalid for a secret, which has no place on a command line.
func ParseKey(text string) (Key, error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return Key{}, fmt.Errorf("%w: %q is not key=value", fs.ErrInvalid, text)
	}
	if secretKey(name) {
		return Key{}, fmt.Errorf("%w: %s", fs.ErrInvalid, secretAdvice(name))
	}
	return Key{name, flagValue(value)}, nil
}

// secretKey reports whether the value of a key is a secret.
func secretKey(key string) bool { return key == "token" || key == "password" }

func secretAdvice(key string) string {
	return fmt.Sprintf("a %s on the command line can be seen by everybody on this machine: use token_file=FILE, token_env=NAME or token_command=COMMAND", key)
}

// AddRemote returns the text of a configuration file with one more remote, at
// its end. Everything else stays as it is.
//
// Errors: fs.ErrExist if there is a remote of that name; fs.ErrInvalid.
func AddRemote(text []byte, name string, keys []Key) ([]byte, error) {
	if err := backends.CheckRemoteName(name); err != nil {
		return nil, err
	}
	l, err := readLayout(text)
	if err != nil {
		return nil, err
	}
	if l.has(name) {
		return nil, backends.Saying(fs.ErrExist, "remote %s is in the configuration", name)
	}
	var b bytes.Buffer
	b.Write(text)
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
		b.WriteByte('\n')
	}
	if len(text) > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "[remotes.%s]\n", quoteKey(name))
	for _, k := range keys {
		line, err := k.line()
		if err != nil {
			return nil, err
		}
		b.Write(line)
	}
	return b.Bytes(), nil
}

// line is the key as a line of the file.
func (k Key) line() ([]byte, error) {
	line, err := toml.Marshal(map[string]any{k.Name: k.Value})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %v", fs.ErrInvalid, k.Name, err)
	}
	return line, nil
}

// SetKeys returns the text of a configuration file with other values for keys of a
// remote; one whose value is nil goes. Comments stay. A remote that the file does not
// have gets a table with these keys alone: they count before those of the machine's files.
//
// Errors: errors.ErrUnsupported if the remote is not written as a [remotes.NAME] table;
// fs.ErrInvalid.
func SetKeys(text []byte, name string, keys []Key) ([]byte, error) {
	for _, k := range keys {
		l, err := readLayout(text)
		if err != nil {
			return nil, err
		}
		switch {
		case l.has(name):
			text, err = l.setKey(name, k)
		case k.Value != nil:
			text, err = AddRemote(text, name, []Key{k})
		}
		if err != nil {
			return nil, err
		}
	}
	return text, nil
}

func (l *layout) setKey(name string, k Key) ([]byte, error) {
	mine, err := l.remote(name)
	if err != nil {
		return nil, err
	}
	at, known := l.settings[keyPath("remotes", name, k.Name)]
	if k.Value == nil {
		if !known {
			return l.text, nil
		}
		return slices.Concat(l.text[:l.lineOf(at.start)], l.text[l.endOfLine(at.end):]), nil
	}
	line, err := k.line()
	if err != nil {
		return nil, err
	}
	if known {
		_, value, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" = "))
		return slices.Concat(l.text[:at.start], value, l.text[at.end:]), nil
	}
	i := slices.IndexFunc(mine, func(i int) bool { return len(l.tables[i].key) == 2 })
	if i < 0 {
		return nil, fmt.Errorf("%w: there is no table [remotes.%s]: edit the file by hand", errors.ErrUnsupported, name)
	}
	end, ok := l.ends[mine[i]]
	if !ok {
		end = l.tables[mine[i]].line
	}
	end = l.endOfLine(end)
	head := l.text[:end]
	if !bytes.HasSuffix(head, []byte("\n")) {
		line = append([]byte("\n"), line...)
	}
	return slices.Concat(head, line, l.text[end:]), nil
}

// RemoveRemote returns the text of a configuration file without a remote: its
// tables go, with the comments right above them. Everything else stays.
//
// Errors: fs.ErrNotExist if there is no such remote; errors.ErrUnsupported if
// it is not written as a [remotes.NAME] table.
func RemoveRemote(text []byte, name string) ([]byte, error) {
	l, err := readLayout(text)
	if err != nil {
		return nil, err
	}
	mine, err := l.remote(name)
	if err != nil {
		return nil, err
	}
	slices.Reverse(mine)
	for _, i := range mine {
		start, end := l.start(i), len(text)
		if i+1 < len(l.tables) {
			end = l.start(i + 1)
		}
		head, tail := text[:start], text[end:]
		for len(tail) == 0 && emptyLast.Match(head) {
			head = emptyLast.ReplaceAll(head, []byte("$1")) // what stood between the two
		}
		text = slices.Concat(head, tail)
	}
	return text, nil
}

// emptyLast is an empty line at the end, after the end of another.
var emptyLast = regexp.MustCompile(`(\n)\r?\n\z`)

// RenameRemote returns the text of a configuration file with another name for a
// remote, also where it is the default.
//
// Errors: those of RemoveRemote; fs.ErrExist if there is a remote named to.
func RenameRemote(text []byte, from, to string) ([]byte, error) {
	if err := backends.CheckRemoteName(to); err != nil {
		return nil, err
	}
	l, err := readLayout(text)
	if err != nil {
		return nil, err
	}
	mine, err := l.remote(from)
	if err != nil {
		return nil, err
	}
	if l.has(to) {
		return nil, backends.Saying(fs.ErrExist, "remote %s is in the configuration", to)
	}
	changes := make([]change, 0, len(mine)+1)
	for _, i := range mine {
		changes = append(changes, change{l.tables[i].name, quoteKey(to)})
	}
	if l.defaultRemote == from {
		changes = append(changes, change{l.defaultAt, strconv.Quote(to)})
	}
	slices.SortFunc(changes, func(a, b change) int { return b.at.start - a.at.start })
	for _, c := range changes {
		text = slices.Concat(text[:c.at.start], []byte(c.with), text[c.at.end:])
	}
	return text, nil
}

// A change replaces a piece of text.
type change struct {
	at   span
	with string
}

// quoteKey writes a remote's name as a part of a TOML key, where a dot would
// separate two.
func quoteKey(name string) string {
	if strings.Contains(name, ".") {
		return strconv.Quote(name)
	}
	return name
}
