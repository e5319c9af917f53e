// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"cmp"
	"maps"
	"time"

	"github.com/sregfs/sregfs/catalog/inspect"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// inspectSchema is the number of docs/inspect.schema.json. It grows when a program that reads
// the document would have to change.
const inspectSchema = 1

// An inspectDocument is what "sreg inspect -o json" prints: the fields of "sregistry inspect",
// and below them all that is known. What is not known is null.
type inspectDocument struct {
	Schema int `json:"schema"`

	Client       *string        `json:"client"` // the remote
	Collection   string         `json:"collection"`
	CollectionID *int64         `json:"collection_id"` // of a database that there is not
	CreatedAt    *string        `json:"created_at"`    // UTC, without a zone
	ID           *int64         `json:"id"`            // likewise
	Image        *string        `json:"image"`         // file with the bytes, if they are here whole
	Metrics      map[string]any `json:"metrics"`
	Name         string         `json:"name"`
	Tag          string         `json:"tag"`
	URI          *string        `json:"uri"`
	URL          *string        `json:"url"`
	Version      *string        `json:"version"`

	Record *verbs.Record  `json:"record"` // of an image that is known; a file has none
	Facts  *inspect.Facts `json:"facts"`
}

func documentOf(in inspection) inspectDocument {
	r := in.Record
	d := inspectDocument{
		Schema: inspectSchema, Client: known(r.Remote), Collection: r.Ref.Collection, Name: r.Ref.Name, Tag: r.Ref.Tag,
		CreatedAt: known(createdAt(in)), Image: known(r.Path), URI: known(r.URI), URL: known(r.URL),
		Version: known(cmp.Or(r.Version, r.Digest)), Metrics: metricsOf(in.Facts), Facts: in.Facts,
	}
	if r.URI != "" {
		d.Record = &r
	}
	return d
}

func known(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// createdAt is when the image was made, or else when the registry got it, as a column of the
// database of sregistry has it.
func createdAt(in inspection) string {
	t, err := time.Parse(time.RFC3339, in.Facts.Created)
	if err != nil {
		t = in.Record.Modified
	}
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.DateTime)
}

// metricsOf is what sregistry kept of "singularity inspect": the labels at the top, and the
// scripts among the attributes.
func metricsOf(f *inspect.Facts) map[string]any {
	metrics := make(map[string]any, len(f.Labels)+2)
	for name, value := range f.Labels {
		metrics[name] = value
	}
	labels := maps.Clone(f.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	metrics["type"] = "container"
	metrics["attributes"] = map[string]any{
		"deffile": known(f.Definition), "help": known(f.Help), "runscript": known(f.RunScript), "test": known(f.Test),
		"environment": known(f.Environment["90-environment.sh"]), "labels": labels,
	}
	return metrics
}
