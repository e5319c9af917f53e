// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"cmp"
	"log/slog"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// Options configure Verbs. The zero value has the defaults.
type Options struct {
	Types   backends.Types // what a scheme in a URI can mean
	Default string         // remote of a URI that names none; "" means "local"
	Version string         // of the program, for status
	Log     *slog.Logger   // nil drops what is logged
}

// Verbs are what the sreg command does to images. Make them with New. All methods may be
// called from many goroutines at once. Errors of a registry are *backends.Error.
type Verbs struct {
	transfers
	version string
}

// Uploads are the drafts that the mount, or an earlier process, left to be published.
func (v *Verbs) Uploads() *uploads.Uploads { return v.uploads }

// New returns the verbs of a catalogue and its uploads.
func New(cat *catalog.Catalog, up *uploads.Uploads, o Options) *Verbs {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := resolver{cat: cat, types: o.Types, def: cmp.Or(o.Default, localRemote)}
	return &Verbs{transfers: transfers{blobs: blobs{reader{browser{r, o.Log}}}, uploads: up}, version: o.Version}
}
