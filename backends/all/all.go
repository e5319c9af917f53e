// SPDX-License-Identifier: Apache-2.0

// Package all is the table of backends: what `type = "…"` in the configuration
// can be. It is not a registry that packages add themselves to; a new backend is
// one more line here, and only cmd imports it.
package all

import (
	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dir"
	"github.com/sregfs/sregfs/backends/dropbox"
	"github.com/sregfs/sregfs/backends/http"
	"github.com/sregfs/sregfs/backends/hub"
	"github.com/sregfs/sregfs/backends/library"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/sregistry"
)

// Backends has the opener of each type. docs/backends/TYPE.md describes it. What
// oci.Open opens are registries of one kind, with a table of what is known of each.
// Nobody changes the map.
var Backends = map[string]backends.Opener{
	"aws":       oci.Open,
	"dir":       dir.Open,
	"docker":    oci.Open,
	"dropbox":   dropbox.Open,
	"http":      http.Open,
	"hub":       hub.Open,
	"library":   library.Opener(oci.Open),
	"ghcr":      oci.Open,
	"gitlab":    oci.Open,
	"harbor":    oci.Open,
	"nvidia":    oci.Open,
	"oci":       oci.Open,
	"quay":      oci.Open,
	"sregistry": sregistry.Open,
}
