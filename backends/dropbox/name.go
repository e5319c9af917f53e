// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sregfs/sregfs/backends"
	paths "github.com/sregfs/sregfs/backends/internal/files"
)

// names is how a path below the root tells a name: as in all stores of files, and with
// escapes for what Dropbox takes no name with.
var names = paths.Layout{Escape: escape}

const maxComponent = 255 // characters of one part of a path

// reserved are names that Dropbox takes no folder or file with, in lower case.
// https://help.dropbox.com/organize/file-names
var reserved = []string{"desktop.ini", "thumbs.db", ".ds_store", "icon\r", ".dropbox", ".dropbox.attr", ".dropbox.cache"}

// escape escapes in a part what Dropbox takes no name with: a backslash, a space or "~" (a
// temporary file) in front, a space or dot at the end, and the names that it reserves.
func escape(part string) string {
	s := strings.ReplaceAll(part, `\`, "%5C")
	if last := len(s) - 1; last >= 0 && (s[last] == '.' || s[last] == ' ') {
		s = s[:last] + percent(s[last])
	}
	if s != "" && (s[0] == ' ' || s[0] == '~') || slices.Contains(reserved, strings.ToLower(s)) {
		return percent(s[0]) + s[1:]
	}
	return s
}

func percent(c byte) string { return fmt.Sprintf("%%%02X", c) }

// paths returns the folders that collection can be, the one that Push writes to
// first.
func (c *client) paths(collection string) []string {
	all := names.Folders(collection)
	for i, folder := range all {
		if all[i] = c.root; folder != "" {
			all[i] += "/" + folder
		}
	}
	return all
}

// path is the path that Push writes ref to.
func (c *client) path(ref backends.Ref, format string) string {
	return c.root + "/" + names.Path(ref, format)
}

// CheckName refuses what has no room in a path part.
func (c *client) CheckName(ref backends.Ref) error {
	for part := range strings.SplitSeq(c.path(ref, backends.FormatArchive), "/") {
		if n := utf8.RuneCountInString(part); n > maxComponent {
			return fmt.Errorf("%w: a file name of %d characters (at most %d): %.40q…", fs.ErrInvalid, n, maxComponent, part)
		}
	}
	return nil
}

// collectionOf returns the collection that a folder's path is, without looking
// how its parts are really spelled.
func (c *client) collectionOf(folder string) string {
	parts := strings.Split(strings.TrimPrefix(folder, "/"), "/")
	return names.Collection(strings.Join(parts[min(strings.Count(c.root, "/"), len(parts)):], "/"))
}

// parent returns the path of the folder that path lies in.
func parent(path string) string {
	folder, _ := paths.Split(path)
	return folder
}
