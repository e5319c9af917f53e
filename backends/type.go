// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"slices"
	"strings"
)

// A Type is a kind of remote, which `type = "…"` in the configuration names: what the
// programs need to know of it before one is opened. backends/all has the table; nothing
// else outside a backend's own package knows its name.
type Type struct {
	Name string
	Open Opener

	// Local says that the images are files below the directory that the setting "path"
	// names: there is no service, and no login.
	Local bool
	// OCI says that it is a registry of the OCI distribution specification: the logins and
	// certificates of docker, podman and apptainer are used for it, and many show their
	// catalogue to nobody.
	OCI bool

	Needs      string // the setting without which a remote is no use; "" if there is none
	Namespaces bool   // the setting "namespaces" has some listed

	Login       LoginKind
	LoginAdvice string // what to do about a login that is refused, where "sreg login" is no help

	// Schemes are the words before "://" that mean the one remote of this type.
	Schemes []string
	// HostSchemes are those that a registry's host can follow: a remote of this type is
	// what to add for it.
	HostSchemes []string
	// Folders says that what follows the host is the path of a file: the one part need not be in
	// a collection, and the address of a remote can be a folder.
	Folders bool
	// Hosts are the names of the one service there is, the usual one first; none if there
	// are many services.
	Hosts []string
	// OwnHost reports whether a host is one of many that are all of this type; nil: it
	// cannot be told from the name.
	OwnHost func(host string) bool
	// DottedNames says that the first part of a name can have a dot: after one of
	// HostSchemes it is a host if two more parts follow it.
	DottedNames bool
}

// Types is a table of types.
type Types []Type

// Find returns the first type of which is holds; ok is false if there is none.
func (t Types) Find(is func(Type) bool) (found Type, ok bool) {
	i := slices.IndexFunc(t, is)
	if i < 0 {
		return Type{}, false
	}
	return t[i], true
}

// Named returns the type of that name; ok is false if there is none.
func (t Types) Named(name string) (found Type, ok bool) {
	return t.Find(func(t Type) bool { return t.Name == name })
}

// At returns the type of the service at a host, if it is known, and the usual name of
// the host.
func (t Types) At(host string) (found Type, name string, ok bool) {
	host = strings.ToLower(host)
	found, ok = t.Find(func(t Type) bool { return slices.Contains(t.Hosts, host) || t.OwnHost != nil && t.OwnHost(host) })
	if ok && len(found.Hosts) > 0 {
		return found, found.Hosts[0], true
	}
	return found, host, ok
}

// A LoginKind says what a login consists of.
type LoginKind int

// The kinds of login.
const (
	LoginOptional LoginKind = iota // a user name and a password, or a token alone; some of it can do without
	LoginNone                      // there is none
	LoginUser                      // a user name goes with the secret
	LoginToken                     // a token alone, without which nothing can be done
)
