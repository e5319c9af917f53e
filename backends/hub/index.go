// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// An index is all that the archive has. It does not change once it is made.
type index struct {
	repos    map[string]*repo   // by "org/name"
	orgs     map[string][]*repo // by organisation, sorted by name
	names    []string           // of the organisations, sorted
	licenses map[string]string  // by collection

	count   int      // of images
	left    int      // entries left out
	reasons []string // why, of the first ones
}

// A repo is a repository with its builds, the newest first.
type repo struct {
	org, name string
	builds    []build
}

// A build is one image file.
type build struct {
	tag, branch, commit string
	collection          string // its number
	version             string // bare digits
	md5                 string // of the file, where its version is the digest of something else; else ""
	file                string // below the place of all files
	size                int64
	built               int64 // Unix time in milliseconds; 0 if the index does not say
	newest              bool  // of its tag
}

// maxReasons is how many of the entries that are left out are described.
const maxReasons = 10

// add takes one record of the index in; what cannot be shown is left out and
// counted.
func (ix *index) add(name string, b build) {
	org, rest, ok := strings.Cut(name, "/")
	if err := checkName(backends.Ref{Collection: org, Name: rest, Tag: b.tag}); err != nil || !ok || !isPath(name) || b.tag == "" {
		ix.leave("%.200q is no name", name+":"+b.tag)
		return
	}
	r := ix.repos[name]
	if r == nil {
		r = &repo{org: org, name: rest}
		ix.repos[name] = r
		ix.orgs[org] = append(ix.orgs[org], r)
	}
	r.builds = append(r.builds, b)
	ix.count++
}

func (ix *index) leave(why string, args ...any) {
	if ix.left++; ix.left <= maxReasons {
		ix.reasons = append(ix.reasons, fmt.Sprintf(why, args...))
	}
}

// sort is called when all are in.
func (ix *index) sort() {
	for org, repos := range ix.orgs {
		ix.names = append(ix.names, org)
		slices.SortFunc(repos, func(a, b *repo) int { return cmp.Compare(a.name, b.name) })
		for _, r := range repos {
			r.builds = slices.Clip(r.builds)
			// Of two of one date the service takes the later one in the file.
			slices.Reverse(r.builds)
			slices.SortStableFunc(r.builds, func(a, b build) int { return cmp.Compare(b.built, a.built) })
			seen := map[string]bool{}
			for i := range r.builds {
				b := &r.builds[i]
				b.newest = !seen[b.tag]
				seen[b.tag] = true
			}
		}
	}
	slices.Sort(ix.names)
}

// find returns what a ref means: the build of that version; else the newest with
// that tag; else, as the service has it, the newest of all for "latest", and the
// build of the version that stands where a tag would.
//
// Errors: fs.ErrNotExist.
func (ix *index) find(ref backends.Ref) (*repo, *build, error) {
	r := ix.repos[ref.Repository()]
	if r == nil {
		return nil, nil, backends.NotFound("no such repository in the archive")
	}
	if ref.Version != "" {
		if b := r.version(parseVersion(ref.Version)); b != nil {
			return r, b, nil
		}
		return r, nil, backends.NotFound("no build has the version %.80q", ref.Version)
	}
	b := r.tagged(ref.Tag)
	if b == nil && ref.Tag == backends.DefaultTag {
		b = &r.builds[0]
	}
	if b == nil {
		b = r.version(parseVersion(ref.Tag))
	}
	if b == nil {
		return r, nil, backends.NotFound("no build has this tag")
	}
	return r, b, nil
}

// tagged returns the newest build with that tag, nil if there is none.
func (r *repo) tagged(tag string) *build {
	for i := range r.builds {
		if r.builds[i].tag == tag {
			return &r.builds[i]
		}
	}
	return nil
}

// version returns the newest build of that version, nil if there is none.
func (r *repo) version(version string) *build {
	for i := range r.builds {
		if version != "" && r.builds[i].version == version {
			return &r.builds[i]
		}
	}
	return nil
}

// current yields the newest build of each tag.
func (r *repo) current(yield func(*build) bool) {
	for i := range r.builds {
		if b := &r.builds[i]; b.newest && !yield(b) {
			return
		}
	}
}

// image says in our words what the index says of a build.
func (c *client) image(ix *index, r *repo, b *build) backends.Image {
	_, format := backends.CutExt(b.file)
	img := backends.Image{
		Ref: backends.Ref{Collection: r.org, Name: r.name, Tag: b.tag}, Size: b.size,
		Version: b.version, Digest: b.digest(), Format: format, URL: c.page(b.file), Labels: map[string]string{},
	}
	if b.built != 0 {
		img.Modified = time.UnixMilli(b.built).UTC()
	}
	for key, value := range map[string]string{"branch": b.branch, "commit": b.commit, "license": ix.licenses[b.collection]} {
		if value != "" {
			img.Labels[key] = value
		}
	}
	return img
}

// digest is of the bytes of the file, which the version is not always.
func (b *build) digest() string {
	switch {
	case b.md5 != "":
		return "md5:" + b.md5
	case strings.HasSuffix(b.file, "."+backends.FormatIMGGz):
		return ""
	}
	return algorithm(b.version) + ":" + b.version
}

// page is where a person sees the directory of a file.
func (c *client) page(file string) string {
	dir := file[:strings.LastIndexByte(file, '/')+1]
	if c.data.String() == archiveURL {
		u := *c.data
		u.Path, u.RawQuery = "/", "dir="+strings.NewReplacer("%2F", "/", "+", "%20").Replace(url.QueryEscape(c.locate(dir).Path))
		return u.String()
	}
	return c.locate(dir).String()
}
