// SPDX-License-Identifier: Apache-2.0

// Package all is the table of backends: what `type = "…"` in the configuration
// can be, and what the sregistry client calls it. It is not a registry that packages
// add themselves to; a new backend is one more line here, and only cmd imports it.
package all

import (
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dir"
	"github.com/sregfs/sregfs/backends/drive"
	"github.com/sregfs/sregfs/backends/dropbox"
	"github.com/sregfs/sregfs/backends/gcs"
	"github.com/sregfs/sregfs/backends/gitlab"
	"github.com/sregfs/sregfs/backends/globus"
	"github.com/sregfs/sregfs/backends/http"
	"github.com/sregfs/sregfs/backends/hub"
	"github.com/sregfs/sregfs/backends/library"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/s3"
	"github.com/sregfs/sregfs/backends/sregistry"
	"github.com/sregfs/sregfs/backends/swift"
	"github.com/sregfs/sregfs/backends/webdav"
)

// Types are all there are, in the order of their names. docs/backends/NAME.md describes
// each. Nobody changes them.
var Types = sorted(append(oci.Types(),
	dir.Type,
	drive.Type,
	dropbox.Type,
	gcs.Type,
	globus.Type,
	gitlab.Type, gitlab.JobsType,
	http.Type,
	hub.Type,
	library.Type(oci.Open),
	s3.Type,
	sregistry.Type,
	swift.Type,
	webdav.Type,
))

func sorted(types backends.Types) backends.Types {
	slices.SortFunc(types, func(a, b backends.Type) int { return strings.Compare(a.Name, b.Name) })
	return types
}

// Names returns the names of all types.
func Names() []string {
	names := make([]string, len(Types))
	for i, t := range Types {
		names[i] = t.Name
	}
	return names
}
