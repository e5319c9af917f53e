// SPDX-License-Identifier: Apache-2.0

package toolnames

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// nextflowName is the name of the file that Nextflow looks for:
// https://github.com/nextflow-io/nextflow/blob/master/modules/nextflow/src/main/groovy/nextflow/container/SingularityCache.groovy
// (simpleName). "quay.io/a/b:1" and "quay.io/a-b/1" have one name.
func nextflowName(url string) string {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		url = rest
	}
	ext := ".img"
	if strings.Contains(url, ".sif:") {
		ext, url = ".sif", strings.ReplaceAll(url, ".sif:", "-")
	} else if rest, ok := strings.CutSuffix(url, ".sif"); ok {
		ext, url = ".sif", rest
	}
	return flat(url) + ext
}

func flat(url string) string { return strings.NewReplacer(":", "-", "/", "-").Replace(url) }

// Nextflow finds the image that a file name of Nextflow means. It is a FindFunc.
//
// URLs of the list come first. Else the name begins with the address of a configured remote
// or with a host, or it is an image of Docker Hub or of a configured remote of the types that
// "library://" and "shub://" mean. Where the rest is to be cut is guessed, and the likeliest
// few are asked for, all at once. If more than one of them is there, none is given out.
func (n *Names) Nextflow(ctx context.Context, name string) (string, backends.Image, error) {
	ext := name[max(0, len(name)-4):]
	if ext != ".img" && ext != ".sif" || len(name) == len(ext) {
		return "", backends.Image{}, backends.NotFound("Nextflow's names end in .img or .sif")
	}
	return n.find(ctx, name, func() (meaning, error) {
		m, err := n.inList(ctx, name, nextflowName)
		if !errors.Is(err, fs.ErrNotExist) {
			return m, err
		}
		var likely []meaning
		for _, p := range n.places(ctx, strings.TrimSuffix(name, ext)) {
			for _, ref := range p.refs(ext) {
				likely = append(likely, meaning{p.remote.Name, ref})
			}
		}
		return n.onlyOne(ctx, name, likely)
	})
}

// onlyOne asks for images, all at once, and returns the one that is there.
//
// Errors: fs.ErrNotExist if none is, or several are; else the first failure, since what
// could not be asked may be there, too.
func (n *Names) onlyOne(ctx context.Context, name string, likely []meaning) (meaning, error) {
	errs := make([]error, len(likely))
	var all sync.WaitGroup
	for i, m := range likely {
		all.Go(func() { _, errs[i] = n.cat.Lookup(ctx, m.remote, m.ref) })
	}
	all.Wait()
	var there []meaning
	var images []string
	for i, m := range likely {
		switch err := errs[i]; {
		case err == nil:
			there, images = append(there, m), append(images, m.String())
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrInvalid):
			// Registries say to strangers that they may not see what does not exist.
		default:
			return meaning{}, err
		}
	}
	switch len(there) {
	case 0:
		return meaning{}, backends.NotFound("no image of that name was found")
	case 1:
		return there[0], nil
	}
	return meaning{}, n.ambiguous(name, images)
}

// A place is a remote that a name may be of, and what follows in the name.
type place struct {
	remote catalog.Remote
	rest   string
	typ    backends.Type
	bare   bool // no host stands before the rest
}

// places returns the remotes that a name may be of.
func (n *Names) places(ctx context.Context, stem string) []place {
	if p, ok := n.configuredPlace(stem); ok {
		return []place{p}
	}
	if p, ok := n.hostPlace(ctx, stem); ok {
		return []place{p}
	}
	var all []place
	for _, scheme := range []string{"docker", "library", "shub"} {
		r, _, err := n.verbs.Resolve(ctx, scheme+"://some/image", verbs.Writing)
		if err == nil && (scheme == "docker" || !r.ByHost) {
			all = append(all, n.place(r, stem, true))
		}
	}
	return all
}

func (n *Names) place(r catalog.Remote, rest string, bare bool) place {
	t, _ := n.opts.Types.Named(r.Type)
	return place{r, rest, t, bare}
}

// configuredPlace finds the configured remote whose address a name begins with: the longest.
func (n *Names) configuredPlace(stem string) (best place, ok bool) {
	longest := 0
	for _, r := range n.cat.Remotes() {
		_, address, isURL := strings.Cut(r.URL, "://")
		if r.ByHost || !isURL {
			continue
		}
		rest, is := strings.CutPrefix(stem, flat(strings.TrimSuffix(address, "/"))+"-")
		if is && rest != "" && len(address) > longest {
			best, ok, longest = n.place(r, rest, false), true, len(address)
		}
	}
	return best, ok
}

// hostPlace finds the host that a name begins with: the shortest beginning that is one, with
// the port if a number follows.
func (n *Names) hostPlace(ctx context.Context, stem string) (place, bool) {
	for i, c := range stem {
		if c != '-' || !strings.Contains(stem[:i], ".") {
			continue
		}
		host, rest := stem[:i], stem[i+1:]
		number, after, more := strings.Cut(rest, "-")
		if _, err := strconv.ParseUint(number, 10, 16); err == nil && more {
			if r, ok := n.hostRemote(ctx, host+":"+number); ok {
				return n.place(r, after, false), true
			}
		}
		if r, ok := n.hostRemote(ctx, host); ok && rest != "" {
			return n.place(r, rest, false), true
		}
	}
	return place{}, false
}

func (n *Names) hostRemote(ctx context.Context, host string) (catalog.Remote, bool) {
	r, _, err := n.verbs.Resolve(ctx, host+"/some/image", verbs.Writing)
	return r, err == nil
}

const (
	maxAsked = 4  // images of one remote that a name may mean
	maxParts = 32 // between the hyphens of a name
	unlikely = 3  // how much less likely than the likeliest an image may be
)

var (
	// A digest is the last part of a name that has one.
	digest = regexp.MustCompile(`^(.+)@(sha256)-([0-9a-f]{64})$`)
	// mulled is the name of an image of several packages, whose tag is a hash, too:
	// https://github.com/galaxyproject/galaxy/blob/dev/lib/galaxy/tool_util/deps/mulled/util.py
	mulled = regexp.MustCompile(`^(?:.*-)?mulled-v[12]-[0-9a-f]{40}-`)
	// Repositories and tags, by the OCI distribution specification.
	repository = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tag        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	// file is a part of the path of a file.
	file = regexp.MustCompile(`^[^-.](?:.*[^-])?$`)
)

// refs returns the images that the rest of a name may mean, the likeliest first.
func (p place) refs(ext string) (likely []backends.Ref) {
	rest, version := p.rest, ""
	if m := digest.FindStringSubmatch(rest); m != nil {
		rest, version = m[1], m[2]+":"+m[3]
	}
	if !p.typ.OCI {
		rest, _ = backends.CutExt(rest)
	}
	parts := strings.Split(rest, "-")
	if len(parts) > maxParts {
		return nil
	}
	type guess struct {
		ref  backends.Ref
		cost int
	}
	var all []guess
	for at := 1; at <= len(parts); at++ {
		for _, path := range p.paths(parts[:at]) {
			ref := backends.Ref{Collection: path.collection, Name: path.name, Tag: strings.Join(parts[at:], "-"), Version: version}
			cost := path.cost + tagCost(parts, at)
			if at == len(parts) {
				ref.Tag = backends.DefaultTag
			}
			if version != "" && at == len(parts) {
				ref.Tag, cost = "", path.cost
			}
			if ext == ".sif" && p.typ.OCI {
				ref.Name += ext
			}
			if p.can(ref) {
				all = append(all, guess{ref, cost})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b guess) int { return cmp.Compare(a.cost, b.cost) })
	for _, g := range all[:min(len(all), maxAsked)] {
		if g.cost < all[0].cost+unlikely {
			likely = append(likely, g.ref)
		}
	}
	return likely
}

// can reports whether an image can be called so in that remote.
func (p place) can(ref backends.Ref) bool {
	if ref.Tag != "" && !tag.MatchString(ref.Tag) || ref.Check() != nil {
		return false
	}
	path := strings.TrimPrefix(ref.Collection+"/"+ref.Name, "/")
	if p.typ.OCI {
		return repository.MatchString(path)
	}
	for part := range strings.SplitSeq(path, "/") {
		if !file.MatchString(part) {
			return false
		}
	}
	return true
}

// words are tags that are no versions.
var words = []string{backends.DefaultTag, "dev", "devel", "edge", "main", "master", "nightly", "stable"}

// tagCost is how unlikely it is that the tag begins with that part.
func tagCost(parts []string, at int) int {
	version := func(part string) bool { // that begins as versions do
		part = strings.TrimPrefix(part, "v")
		return part != "" && '0' <= part[0] && part[0] <= '9'
	}
	before := strings.Join(parts[:at], "-") + "-"
	first := slices.IndexFunc(parts[1:], version) + 1 // 0: none
	switch {
	case mulled.FindString(strings.Join(parts, "-")+"-") == before:
		return 0
	case at == len(parts)-1 && slices.Contains(words, parts[at]):
		return 0
	case first == 0 && at == len(parts), first > 0 && at == first:
		return 1
	case at == len(parts), version(parts[at]):
		return 2
	case at == len(parts)-1:
		return 3
	}
	return 4
}

// A path is a repository, or a file in a folder.
type path struct {
	collection, name string
	cost             int // how unlikely it is
}

// paths returns the ways to make a collection and a name of parts.
func (p place) paths(parts []string) (all []path) {
	join := func(parts []string) string { return strings.Join(parts, "-") }
	add := func(collection, name string, cost int) { all = append(all, path{collection, name, cost}) }
	last := len(parts) - 1
	switch {
	case p.bare && last == 0:
		add(backends.DefaultCollection, parts[0], 0)
	case p.bare:
		add(backends.DefaultCollection, join(parts), 1)
	case last == 0:
		add("", parts[0], 0)
	default:
		add("", join(parts), 2)
	}
	for i := 1; i <= last; i++ {
		add(join(parts[:i]), join(parts[i:]), min(i-1, 1))
		for k := i + 1; k <= last; k++ {
			add(join(parts[:i])+"/"+join(parts[i:k]), join(parts[k:]), min(i, 2))
		}
	}
	if last > 2 {
		add(strings.Join(parts[:last], "/"), parts[last], 1)
	}
	return all
}
