// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

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

// facts are those of one directory, by file name.
type facts map[string]fact

// factsPath is a file with a line for each fact; of two for one file the later
// counts. Lines are only appended, so that two processes never undo each
// other's. A directory of the store never begins with a dot, so that this one
// is in nobody's way.
func factsPath(dir string) string {
	return filepath.FromSlash(path.Join(private, "images", dir, ".facts"))
}

const maxFacts = 64 << 20 // bytes read of such a file

// facts reads what is known of the files in dir. Whatever cannot be read is not
// known, and that is all.
func (t *tree) facts(dir string) facts { return t.factsOf(dir, "") }

// factsOf is facts for one file, or for all if file is "".
func (t *tree) factsOf(dir, file string) facts {
	known := facts{}
	f, err := t.Open(factsPath(dir))
	if err != nil {
		return known
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxFacts))
	lines.Buffer(make([]byte, 256<<10), 256<<10)
	for lines.Scan() {
		if !bytes.HasSuffix(lines.Bytes(), []byte(file)) {
			continue
		}
		// The last line may be torn: the machine stopped while it was written.
		if f, ok := parseFact(lines.Text()); ok && (file == "" || f.file == file) {
			known[f.file] = f
		}
	}
	return known
}

// remember appends a fact. Losing it costs only the digest, so it is not synced
// and its failure is no failure of the push.
func (t *tree) remember(dir string, f fact) {
	name := factsPath(dir)
	if err := t.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return
	}
	out, err := t.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return
	}
	defer out.Close()
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
	entries, err := t.read(dir)
	if err != nil || len(known) <= 2*len(entries)+16 {
		return
	}
	kept := facts{}
	for _, e := range entries {
		if line, ok := known[e.Name()]; ok {
			kept[e.Name()] = line
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
	tmp := name + ".new"
	if t.WriteFile(tmp, []byte(text.String()), 0o666) != nil || t.Rename(tmp, name) != nil {
		_ = t.Remove(tmp)
	}
}
