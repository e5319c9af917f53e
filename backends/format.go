// SPDX-License-Identifier: Apache-2.0

package backends

import "strings"

// The formats that an Image can have. Each is the extension of its files too.
const (
	FormatSIF     = "sif"
	FormatSIMG    = "simg"    // a squashfs, with or without a launch line before it
	FormatIMG     = "img"     // an ext3 file system, as Singularity 2 made them
	FormatIMGGz   = "img.gz"  // the same, compressed with gzip
	FormatArchive = "oci.tar" // an OCI image layout in a tar file
)

// formats in the order in which an extension is looked for.
var formats = [...]string{FormatSIF, FormatSIMG, FormatIMG, FormatIMGGz, FormatArchive}

// Formats lists the formats.
func Formats() []string { return formats[:len(formats):len(formats)] }

// Ext returns the extension of files of that format, ".sif" if it is not known.
func Ext(format string) string {
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
