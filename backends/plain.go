// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Extensions is the setting "extensions" of the types that show files by their
// names: which files count as images besides those with the extension of one, and
// those NAME:TAG. "" stands for all that is not known to be something else.
type Extensions []string

// Check reports whether these can be extensions.
// Errors: fs.ErrInvalid.
func (x Extensions) Check() error {
	for _, ext := range x {
		if ext != "" && (ext[0] != '.' || len(ext) == 1 || strings.ContainsAny(ext, "/:\x00")) {
			return fmt.Errorf("%w: extensions: %q is none: write it with its dot, as \".sqsh\", or \"\" for names without one", fs.ErrInvalid, ext)
		}
	}
	return nil
}

// Plain reports whether a file may be an image of FormatPlain or FormatBare. Which,
// and whether it is one, its name does not tell.
func (x Extensions) Plain(base string) bool {
	if _, format := CutExt(base); format != "" || base == "" || base[0] == '.' {
		return false
	}
	for _, ext := range x {
		if ext != "" && len(base) > len(ext) && strings.HasSuffix(base, ext) {
			return true
		}
	}
	if ForeignExt(base) != "" || isPassing(base) {
		return false
	}
	if name, tag, tagged := strings.Cut(base, ":"); tagged && name != "" && tag != "" {
		return true
	}
	return slices.Contains(x, "") && !slices.Contains(documents, strings.ToUpper(base))
}

// foreign are extensions of files that are no images, or not as they are: a file so
// named is not meant to be an image with a dot in its name.
var foreign = strings.Fields(`
	squashfs sqsh sqfs sfs iso qcow2 vmdk vdi ova wic
	gz xz bz2 zst lz4 lzma zip 7z rar tar tgz txz tbz2
	bak old orig new save sum sha256 sha512 md5 asc sig pem crt key
	def md txt rst log json yaml yml toml xml csv tsv html htm pdf ini conf cfg
	py sh bash pl rb js go cpp rs nf smk wdl cwl ipynb java
	deb rpm apk whl jar exe so png jpg jpeg svg`)

// ForeignExt returns the extension, with its dot, of a file that is no image by its
// name; "" if that may be one.
func ForeignExt(base string) string {
	if i := strings.LastIndexByte(base, '.'); i > 0 && slices.Contains(foreign, strings.ToLower(base[i+1:])) {
		return base[i:]
	}
	return ""
}

// passing are extensions of files that a tool has not done with.
var passing = strings.Fields(`part partial filepart crdownload opdownload tmp aria2 gstmp lock ext3`)

// isPassing reports whether a name is one that tools give to a file for a moment:
// those of them that may stand where images are, by the table in docs/names.md.
func isPassing(base string) bool {
	if strings.HasSuffix(base, "~") || strings.HasPrefix(base, "#") && strings.HasSuffix(base, "#") ||
		strings.HasSuffix(base, "_.gstmp") || strings.Contains(base, ".pulling.") {
		return true
	}
	if i := strings.LastIndexByte(base, '.'); i > 0 && slices.Contains(passing, base[i+1:]) {
		return true
	}
	for _, format := range formats { // NAME.sif.AbC123
		if before, after, ok := strings.Cut(base, "."+format+"."); ok && before != "" && after != "" {
			return true
		}
	}
	return false
}

// documents are files without an extension that lie beside others, in upper case.
var documents = strings.Fields(`
	README LICENSE LICENCE COPYING COPYRIGHT NOTICE AUTHORS CHANGELOG CHANGES NEWS TODO VERSION INSTALL MANIFEST INDEX
	MAKEFILE DOCKERFILE SINGULARITY APPTAINER CHECKSUMS MD5SUM MD5SUMS SHA1SUM SHA1SUMS SHA256SUM SHA256SUMS SHA512SUM SHA512SUMS`)
