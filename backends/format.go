// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// The formats that an Image can have. Each is the extension of its files too, but
// for the last two: files without an extension, which are what their first bytes say
// (Sniff) and are listed as they are called.
const (
	FormatSIF     = "sif"
	FormatSIMG    = "simg"    // a squashfs, with or without a launch line before it
	FormatIMG     = "img"     // an ext3 file system, as Singularity 2 made them
	FormatIMGGz   = "img.gz"  // the same, compressed with gzip
	FormatArchive = "oci.tar" // an OCI image layout in a tar file
	FormatPlain   = "plain"   // a file NAME:TAG
	FormatBare    = "bare"    // a file NAME, which is NAME:latest
)

// formats in the order in which an extension is looked for.
var formats = [...]string{FormatSIF, FormatSIMG, FormatIMG, FormatIMGGz, FormatArchive}

// Formats lists the formats that have an extension.
func Formats() []string { return formats[:len(formats):len(formats)] }

// ShowBoth is the one of Shows that is no format.
const ShowBoth = "both"

// Shows lists as what a remote may show container images, the usual one first: as SIF files
// (package vsif), as archives, or both. A setting "show" says it.
func Shows() []string { return []string{FormatSIF, FormatArchive, ShowBoth} }

// CheckShow returns fs.ErrInvalid for what is none of Shows; "" is the usual one.
func CheckShow(show string) error {
	if show == "" || slices.Contains(Shows(), show) {
		return nil
	}
	return fmt.Errorf("%w: show = %q%s", fs.ErrInvalid, show, DidYouMean(show, Shows()))
}

// IsPlain reports whether files of that format have no extension.
func IsPlain(format string) bool { return format == FormatPlain || format == FormatBare }

// Ext returns the extension of files of that format, ".sif" if it is not known.
func Ext(format string) string {
	if IsPlain(format) {
		return ""
	}
	for _, known := range formats {
		if format == known {
			return "." + known
		}
	}
	return "." + FormatSIF
}

// CutExt splits the extension of an image from a file's name. The format is "",
// and stem the name, if it has none.
func CutExt(name string) (stem, format string) {
	for _, f := range formats {
		cut, ok := strings.CutSuffix(name, f)
		if ok && strings.HasSuffix(cut, ".") {
			return cut[:len(cut)-1], f
		}
	}
	return name, ""
}

// SniffSize is how much of a file Sniff looks at, in bytes: a launch line, and an
// ext3 superblock after it.
const SniffSize = 4 << 10

// Sniff returns the format that the first bytes of a file tell: SIF, SIMG or IMG,
// the last two with or without a launch line, as versions 2 of Singularity wrote
// them; "" for what is no image.
func Sniff(head []byte) string {
	if len(head) >= 42 && string(head[32:42]) == "SIF_MAGIC\x00" {
		return FormatSIF
	}
	if line, rest, ok := bytes.Cut(head, []byte("\n")); ok && bytes.HasPrefix(line, []byte("#!")) {
		if format := sniffFilesystem(rest); format != "" {
			return format
		}
	}
	return sniffFilesystem(head)
}

func sniffFilesystem(head []byte) string {
	const superblock = 1024 + 56 // where ext3 has its magic number
	switch {
	case bytes.HasPrefix(head, []byte("hsqs")):
		return FormatSIMG
	case len(head) >= superblock+2 && binary.LittleEndian.Uint16(head[superblock:]) == 0xEF53:
		return FormatIMG
	}
	return ""
}
