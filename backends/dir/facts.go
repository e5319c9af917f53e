// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A fact is what was known of a file when it was stored. It holds for as long
// as the file has that size, time and inode: somebody may write to it, or put
// another in its place.
type fact struct {
	file    string
	digest  string
	size    int64
	modTime int64 // nanoseconds since 1970
	inode   uint64
}

// A line is "DIGEST SIZE MTIME INODE FILE": a listing may read ten thousand of
// them, and JSON would take most of its time.

func (f fact) line() string {
	return fmt.Sprintf("%s %d %d %d %s", f.digest, f.size, f.modTime, f.inode, f.file)
}

func parseFact(line string) (f fact, ok bool) {
	fields := strings.SplitN(line, " ", 5)
	if len(fields) < 5 || fields[4] == "" || fields[0] == "" || backends.CheckDigest(fields[0]) != nil {
		return f, false
	}
	size, errSize := strconv.ParseInt(fields[1], 10, 64)
	modTime, errTime := strconv.ParseInt(fields[2], 10, 64)
	inode, errInode := strconv.ParseUint(fields[3], 10, 64)
	return fact{file: fields[4], digest: fields[0], size: size, modTime: modTime, inode: inode}, errSize == nil && errTime == nil && errInode == nil
}

func (f fact) matches(info fs.FileInfo) bool {
	return f.size == info.Size() && f.modTime == info.ModTime().UnixNano() && f.inode == inode(info)
}

// facts are those of one directory, one for each file, by name. They never
// change: many may use them.
type facts []fact

// of returns the fact of a file.
func (f facts) of(file string) (fact, bool) {
	i, ok := slices.BinarySearchFunc(f, file, func(f fact, file string) int { return strings.Compare(f.file, file) })
	if !ok {
		return fact{}, false
	}
	return f[i], true
}

// size is about how many bytes of memory f takes.
func (f facts) size() int {
	n := 0
	for _, known := range f {
		n += 56 + 48 + len(known.file) + len(known.digest) // the strings are parts of a line
	}
	return n
}

// factsPath is a file with a line for each fact; of two for one file the later
// counts. Lines are only appended, so that two processes never undo each
// other's. A directory of the store never begins with a dot, so that this one
// is in nobody's way.
func factsPath(dir string) string {
	return filepath.FromSlash(path.Join(private, "images", dir, ".facts"))
}

const maxFacts = 64 << 20 // bytes read of such a file

// facts returns what is known of the files in dir. Whatever cannot be read is
// not known, and that is all.
func (v *view) facts(dir string) facts {
	l := query{path: dir, began: time.Now(), exact: v.exact}
	info, err := os.Lstat(v.abs(factsPath(dir)))
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	l.now = fileStateOf(info)
	known, _ := v.known.get(l, func() (cached[facts], error) { return v.readFacts(dir) })
	return known
}

// digest returns what is known of f's content, "" if nothing. A fact that was
// read before needs no look at the disk: whether it holds, f says.
func (v *view) digest(f file) string {
	for _, known := range []func(string) facts{v.known.last, v.facts} {
		if fact, ok := known(f.dir).of(f.base); ok && fact.matches(f.info) {
			return fact.digest
		}
	}
	return v.digests.of(fileStateOf(f.info))
}

func (v *view) readFacts(dir string) (r cached[facts], err error) {
	root, err := v.root()
	if err != nil {
		return r, err
	}
	r.began = time.Now()
	f, err := backends.Regular(root.OpenFile(factsPath(dir), os.O_RDONLY|backends.NoWait, 0))
	if err != nil {
		return r, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return r, err
	}
	r.of = fileStateOf(info)
	r.lasts = lasting(f, r.of)
	if !backends.OnlyOurs(info) {
		return r, nil // somebody else could have said so of any file
	}
	r.value, err = parseFacts(f)
	r.size = r.value.size()
	return r, err
}

// parseFacts returns the facts that could be read, also with an error.
func parseFacts(from io.Reader) (facts, error) {
	var all facts
	lines := bufio.NewScanner(io.LimitReader(from, maxFacts))
	lines.Buffer(nil, 256<<10)
	for lines.Scan() {
		// The last line may be torn: the machine stopped while it was written.
		if f, ok := parseFact(lines.Text()); ok {
			all = append(all, f)
		}
	}
	slices.SortStableFunc(all, func(a, b fact) int { return strings.Compare(a.file, b.file) })
	last := all[:0]
	for i, f := range all {
		if i+1 == len(all) || all[i+1].file != f.file {
			last = append(last, f)
		}
	}
	return slices.Clone(last), lines.Err()
}

// remember appends a fact. Losing it costs only the digest, so it is not synced
// and its failure is no failure of the push.
func (t *tree) remember(dir string, f fact) {
	name := factsPath(dir)
	if err := t.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return
	}
	out, err := backends.Regular(t.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND|backends.NoWait, 0o666))
	if err != nil {
		return
	}
	defer out.Close()
	if info, err := out.Stat(); err != nil || !backends.OnlyOurs(info) {
		return // nobody would believe it
	}
	// One write, so that lines of two processes do not mix. The newline first
	// ends a line that was torn.
	_, _ = out.WriteString("\n" + f.line() + "\n")
}

// forget drops the facts of a directory that is no more, and tidies those of
// one that is, when most of them are of files that are not.
func (t *tree) forget(dir string) {
	name := factsPath(dir)
	if _, err := t.Lstat(filepath.FromSlash(dir)); err != nil {
		_ = t.Remove(name)
		t.removeEmpty(path.Dir(filepath.ToSlash(name)), path.Join(private, "images"))
		return
	}
	known := t.facts(dir)
	held, err := t.folder(dir)
	if err != nil || len(known) <= 2*len(held.entries)+16 {
		return
	}
	var kept facts
	for _, l := range held.entries {
		if f, ok := known.of(l.base); ok {
			kept = append(kept, f)
		}
	}
	t.rewrite(name, kept)
}

// rewrite replaces a facts file. A line that another process appends meanwhile
// is lost, which costs a digest.
func (t *tree) rewrite(name string, kept facts) {
	var text strings.Builder
	for _, f := range kept {
		text.WriteString(f.line() + "\n")
	}
	tmp := name + "." + rand.Text()
	out, err := t.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return
	}
	_, err = out.WriteString(text.String())
	if errors.Join(err, out.Close()) != nil || t.Rename(tmp, name) != nil {
		_ = t.Remove(tmp)
	}
}
