// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// Hosts are the services that can be used by the names of their hosts, without a table
// in the configuration. The zero value has none.
type Hosts struct {
	said  bool // somebody has chosen
	any   bool
	names []string
}

// Set implements pflag.Value: "any", "none", or names with commas (or semicolons, which an
// option of mount can have) between them, of which one may be "any".
func (h *Hosts) Set(text string) error {
	set := Hosts{said: true}
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(`,; "`, r) })
	for _, word := range words {
		switch word = strings.ToLower(word); {
		case word == "any":
			set.any = true
		case word == "none" && len(words) == 1:
		default:
			if err := backends.CheckHost(word); err != nil {
				return fmt.Errorf("%w (write \"any\", \"none\", or names as quay.io)", err)
			}
			set.names = append(set.names, word)
		}
	}
	*h = set
	return nil
}

// String implements pflag.Value.
func (h *Hosts) String() string {
	switch {
	case h.any:
		return strings.Join(append([]string{"any"}, h.names...), ",")
	case len(h.names) == 0:
		return "none"
	}
	return strings.Join(h.names, ",")
}

// Type implements pflag.Value.
func (h *Hosts) Type() string { return "hosts" }

// Check returns nil if name is the host of a service that may be used, without any
// request.
//
// Errors: fs.ErrInvalid if it is no host on the Internet, or reads as the name of a file
// and is not among the names; fs.ErrNotExist if it may not be used.
func (h *Hosts) Check(name string) error {
	if err := backends.CheckHost(name); err != nil {
		return err
	}
	switch {
	case slices.Contains(h.names, name):
		return nil
	case !h.any:
		return backends.NotFound("the host %s may not be used by its name alone (hosts = %q): add it as a remote, or to hosts", name, h.String())
	case backends.IsFileLike(name):
		return fmt.Errorf("%w: %q reads as the name of a file (if it is a host, say so: hosts = [\"any\", %q])", fs.ErrInvalid, name, name)
	}
	return nil
}
