// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"strconv"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
)

// XattrPrefix begins the name of each extended attribute.
const XattrPrefix = "user.sreg."

// Xattrs returns what is known of the image, under names without XattrPrefix:
// uri, remote, digest, version, url, state, error, and label.NAME for each
// label. It downloads nothing and asks no registry.
func (i *Image) Xattrs() map[string]string {
	ref := i.img.Ref
	info := i.fs.cat.BlobInfo(i.remote, i.img)
	m := map[string]string{
		"uri":     backends.URI{Remote: i.remote, Ref: ref}.String(),
		"remote":  i.remote,
		"digest":  i.img.Digest,
		"version": i.img.Version,
		"url":     i.img.URL,
		"state":   string(info.State),
	}
	if info.Pinned {
		m["state"] = "pinned"
	}
	if err := i.failure.Load(); info.Err == nil && err != nil {
		info.Err = *err
	}
	if info.Err != nil {
		m["error"] = info.Err.Error()
	}
	for name, value := range labelsIn(i.labels) {
		m["label."+name] = value
	}
	return printable(m)
}

// Xattrs is as that of Image: remote, uri of the collection, and the error of a
// remote that could not be opened.
func (d *Dir) Xattrs() map[string]string {
	if d.remote == "" {
		return nil
	}
	m := map[string]string{"remote": d.remote, "uri": d.remote + "://" + backends.EscapePath(d.collection)}
	if r, ok := d.fs.cat.Configured(d.remote); ok {
		m["url"] = r.URL
		if r.Err != nil {
			m["error"] = r.Err.Error()
		}
	}
	return printable(m)
}

// Xattrs is as that of Image. The state is that of the journal.
func (d *Draft) Xattrs() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := map[string]string{"remote": d.loc.remote, "state": string(spool.Writing)}
	if !d.loc.temporary && d.data != nil {
		target := d.data.Info().Target
		m["uri"] = backends.URI{Remote: target.Remote, Ref: target.Ref}.String()
	}
	if d.data != nil {
		info := d.data.Info()
		m["state"], m["digest"], m["error"] = string(info.State), info.Digest, info.Error
		m["stored"] = strconv.FormatInt(info.Stored, 10)
	}
	if d.err != nil {
		m["error"] = d.err.Error()
	}
	return printable(m)
}

// printable leaves out empty attributes, and makes the others safe to print: a registry
// chose their names and values, and tools print them as they are.
func printable(m map[string]string) map[string]string {
	shown := make(map[string]string, len(m))
	for name, value := range m {
		if value != "" {
			shown[backends.Printable(name)] = backends.Printable(value)
		}
	}
	return shown
}
