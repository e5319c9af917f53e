// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A fact is what was known of a file when it was stored. It holds for as long
// as the file has that size, time and inode: somebody may write to it, or put
// another in its place.
type fact struct {
	File    string    `json:"file"`
	Digest  string    `json:"digest"`
	Size    int64     `json:"size"`
	ModTime int64     `json:"mtime"` // nanoseconds since 1970
	Inode   uint64    `json:"inode"`
	Stored  time.Time `json:"stored"`
}

func (f fact) matches(info fs.FileInfo) bool {
	return f.Size == info.Size() && f.ModTime == info.ModTime().UnixNano() && f.Inode == inode(info)
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
func (t *tree) facts(dir string) facts { return t.factsOf(dir, nil) }

// fact is facts for one file.
func (t *tree) fact(dir, base string) facts {
	quoted, err := json.Marshal(base)
	if err != nil {
		return nil
	}
	return t.factsOf(dir, append([]byte(`{"file":`), quoted...))
}

// factsOf decodes the lines that begin with prefix.
func (t *tree) factsOf(dir string, prefix []byte) facts {
	known := facts{}
	f, err := t.Open(factsPath(dir))
	if err != nil {
		return known
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxFacts))
	for lines.Scan() {
		var line fact
		// The last line may be torn: the machine stopped while it was written.
		if bytes.HasPrefix(lines.Bytes(), prefix) && json.Unmarshal(lines.Bytes(), &line) == nil && backends.CheckDigest(line.Digest) == nil {
			known[line.File] = line
		}
	}
	return known
}

// remember appends a fact. Losing it costs only the digest, so it is not synced
// and its failure is no failure of the push.
func (t *tree) remember(dir string, line fact) {
	text, err := json.Marshal(line)
	if err != nil {
		return
	}
	name := factsPath(dir)
	if err := t.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return
	}
	f, err := t.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return
	}
	defer f.Close()
	// The newline first ends a line that was torn.
	_, _ = f.Write(append([]byte{'\n'}, append(text, '\n')...))
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
	tmp := name + ".new"
	f, err := t.Create(tmp)
	if err != nil {
		return
	}
	enc := json.NewEncoder(f)
	for _, line := range kept {
		err = enc.Encode(line)
		if err != nil {
			break
		}
	}
	if closeErr := f.Close(); err != nil || closeErr != nil || t.Rename(tmp, name) != nil {
		_ = t.Remove(tmp)
	}
}
