// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// A file can be created under an image's name, with or without an extension, or under a
// name that a known tool uses for a temporary file. Any other name is refused: the file
// would never be published.

// temporaries are the names that tools write to before they rename, as regular
// expressions for the whole name. Hidden files, which need no pattern, are rsync's
// (.NAME.XXXXXX), and those of vi and nano (.NAME.swp), GLib (.goutputstream-XXXXXX),
// LibreOffice (.~lock.NAME#), Docker (.tmp-NAME), Nextflow (.NAME.lock), NFS (.nfsXXXX)
// and FUSE (.fuse_hiddenXXXX); backends.EscapePart makes no image's name begin so.
// docs/names.md has the same table for users.
var temporaries = []struct{ tool, pattern string }{
	// internal/pkg/util/fs/helper.go, CopyFileAtomic: os.CreateTemp(dir, "tmp-copy-")
	{"apptainer pull", `tmp-copy-[0-9]+(\.sif)?`},
	// internal/app/apptainer/overlay_create.go: the overlay, before it goes into the image
	{"apptainer overlay create", `.+\.ext3`},
	// sed/execute.c: "%s/sedXXXXXX" for mkostemp
	{"sed -i", `sed[A-Za-z0-9]{6}`},
	// src/bufwrite.c: can a file be made here? 4913, and then each 123 further
	{"vim", `4913|5036|5159|5282`},
	// their manuals: backupname, make-backup-files, backup; gnulib backupfile.c also for cp, mv, install
	{"backups of editors and coreutils", `.+~`},
	// lisp/files.el: make-auto-save-file-name
	{"emacs", `#.+#`},
	// Firefox, KDE (KIO) and yt-dlp; rclone and Edge; WinSCP; Chromium; Opera; Windows clients; aria2's control file; gsutil
	{"downloads under way", `.+(\.part|\.partial|\.filepart|\.crdownload|\.opdownload|\.tmp|\.aria2|_\.gstmp)`},
	// modules/nextflow/…/SingularityCache.groovy: NAME.pulling.TIMESTAMP
	{"Nextflow", `.+\.pulling\.[0-9]+`},
	// Nextflow, Snakemake and others: beside what they lock
	{"locks", `.+\.lock`},
	// Lib/tempfile.py: "tmp" and eight of a-z0-9_; mktemp(1): tmp.XXXXXXXXXX
	{"Python's tempfile and mktemp", `tmp[a-z0-9_]{8}|tmp\.[A-Za-z0-9]{10}`},
	// sregistry/utils/http.py and s3transfer/utils.py: NAME.xxxxxxxx
	{"sregistry and aws s3", `.+\.(?:sif|simg|img|img\.gz|oci\.tar)\.[A-Za-z0-9_]{8}`},
	// receiver.c, get_tmpname: with that option there is no dot before NAME.XXXXXX
	{"rsync --temp-dir", `.+\.(?:sif|simg|img|img\.gz|oci\.tar)\.[A-Za-z0-9]{6}`},
}

var temporary = func() *regexp.Regexp {
	var all []string
	for _, t := range temporaries {
		all = append(all, t.pattern)
	}
	return regexp.MustCompile(`^(?s:` + strings.Join(all, "|") + `)$`)
}()

// isTemporary reports whether a file of that name is not published until it is renamed.
func isTemporary(name string) bool {
	if strings.HasPrefix(name, ".") {
		return true
	}
	if _, format := backends.CutExt(name); format != "" && !strings.HasPrefix(name, "tmp-copy-") {
		return false // most names are such: they need no regular expression
	}
	return temporary.MatchString(name)
}

// checkName refuses a name that is neither an image's nor a temporary one. If the
// extension is not known, the content decides when the file is closed.
func checkName(name string) error {
	rest, format := backends.CutExt(name)
	if format != "" {
		return nil
	}
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("file name %q: %s: %w", name, fmt.Sprintf(format, args...), fs.ErrInvalid)
	}
	lower := strings.ToLower(name)
	if _, format := backends.CutExt(lower); format != "" {
		return refuse("extensions of images are in lower case: write %s%s", name[:len(name)-len(format)-1], backends.Ext(format))
	}
	if ext := backends.ForeignExt(name); ext != "" {
		return refuse("no image ends in %s: only images are kept here, as NAME:TAG.sif", ext)
	}
	for _, format := range backends.Formats() {
		if before, after, ok := strings.Cut(rest, backends.Ext(format)+"."); ok && before != "" && after != "" {
			return refuse("something follows the extension of an image, and no tool is known that names files so")
		}
	}
	return nil
}
