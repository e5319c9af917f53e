// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// leastDigits is the least number of digits of a digest that is not written in full.
const leastDigits = 6

// isShort reports whether a version is the beginning of a SHA-256.
func isShort(version string) bool {
	digits, ok := strings.CutPrefix(version, index.SHA256Prefix)
	return ok && leastDigits <= len(digits) && len(digits) < 64 && strings.Trim(digits, "0123456789abcdef") == ""
}

// Exact returns ref with its whole version, where that is the beginning of a digest: of a
// version that is known here, of one in the store of this machine, or of what the tag means
// now. Any other ref it returns as it is.
//
// Errors: fs.ErrNotExist if no known version begins so; fs.ErrInvalid if several do, which it
// lists; those of backends.Backend.Stat.
func (c *core) Exact(ctx context.Context, remote string, ref backends.Ref) (backends.Ref, error) {
	if !isShort(ref.Version) {
		return ref, nil
	}
	r, err := c.Remote(remote)
	if err != nil {
		return ref, err
	}
	found := map[string]bool{}
	add := func(versions ...string) {
		for _, v := range versions {
			if strings.HasPrefix(v, ref.Version) && index.IsSHA256(v) {
				found[v] = true
			}
		}
	}
	c.versionsHere(ctx, r, ref, add)
	if len(found) == 0 && r.Client != nil {
		tag := ref
		tag.Version = ""
		img, err := r.Client.Stat(ctx, tag)
		if err != nil && Passing(err) {
			return ref, err
		}
		if err == nil {
			add(img.Version, img.Digest)
		}
	}
	fail := func(err error) (backends.Ref, error) {
		return ref, &backends.Error{Op: "stat", Remote: remote, Ref: ref, Err: err}
	}
	switch len(found) {
	case 0:
		return fail(backends.NotFound("no version that is known here begins so (sreg tags lists them; a whole digest is always asked for)"))
	case 1:
		ref.Version = slices.Collect(maps.Keys(found))[0]
		return ref, nil
	}
	all := slices.Sorted(maps.Keys(found))
	return fail(fmt.Errorf("%w: several versions begin so: %s", fs.ErrInvalid, strings.Join(all, ", ")))
}

// versionsHere calls add with the versions of an image that can be told without a request.
func (c *core) versionsHere(ctx context.Context, r Remote, ref backends.Ref, add func(...string)) {
	for _, m := range c.records.Meanings(r.Name, ref) {
		add(m.Version, m.Digest)
	}
	if r.Local() {
		if r.Client.Caps().Has(backends.CanListVersions) {
			for img, err := range r.Client.Versions(ctx, ref) {
				if err == nil {
					add(img.Digest, img.Ref.Version)
				}
			}
		}
		return
	}
	s, err := c.store()
	if err != nil {
		return
	}
	for _, e := range s.Tags(r.Name, ref) {
		add(e.Image.Version, e.Image.Digest)
	}
	for kv, err := range s.Scan(index.VersionPrefix(r.Name, ref), nil) {
		if err != nil {
			return
		}
		if _, of, ok := index.CutVersionKey(kv.Key); ok {
			e, _ := index.Decode(kv.Value, of)
			add(of.Version, e.Image.Version, e.Image.Digest)
		}
	}
}
