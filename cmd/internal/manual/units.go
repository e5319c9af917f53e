// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"bytes"
	_ "embed"
	"maps"
	"slices"
	"text/template"
)

//go:embed unit.tmpl
var unitText string

var unitTemplate = template.Must(template.New("unit").Parse(unitText))

// A unit is one service of systemd.
type unit struct {
	Bin    string // directory of the programs
	System bool   // of the machine; else of a user
	// MountPoint is where, in words of systemd.
	MountPoint string
	// Name tells the state of this mount from that of others; "" for the only one.
	Name string
}

// units returns the texts of the units, by their files below the directory "systemd".
func units(bin string) (map[string]string, error) {
	texts := map[string]string{}
	all := map[string]unit{
		"user/sregfs.service":    {MountPoint: "%h/images"},
		"user/sregfs@.service":   {MountPoint: "%f", Name: "%i"},
		"system/sregfs@.service": {MountPoint: "%f", Name: "%i", System: true},
	}
	for _, file := range slices.Sorted(maps.Keys(all)) {
		u := all[file]
		u.Bin = bin
		var w bytes.Buffer
		if err := unitTemplate.Execute(&w, u); err != nil {
			return nil, err
		}
		texts[file] = w.String()
	}
	return texts, nil
}
