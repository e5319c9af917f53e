// SPDX-License-Identifier: Apache-2.0

// Package toolnames finds the images that the file names of other programs mean.
//
// Nextflow and Snakemake look for the file of a container in a folder, under a name that
// they compute of its URL, before they pull it. Neither name can be computed backwards:
// Nextflow's has one character for three, Snakemake's is a hash. So a name is compared with
// those of the URLs that are known, and of Nextflow's the likely URLs are asked for
// (nextflow.go, snakemake.go).
package toolnames

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// Options tune Names.
type Options struct {
	Types backends.Types
	// List is a file with URLs of images, one a line: their names have this one meaning. It
	// is read whenever a name is not known yet; "" is none.
	List string
	Log  *slog.Logger // nil drops what is logged
}

// Names finds images. Make one with New. Methods may be called from many goroutines at
// once.
type Names struct {
	cat   *catalog.Catalog
	verbs *verbs.Verbs
	opts  Options

	mu    sync.Mutex         // guards the field below
	found map[string]meaning // by name; at most maxFound
}

// maxFound is how many names are remembered.
const maxFound = 4096

// A meaning is the image that a name stands for.
type meaning struct {
	remote string
	ref    backends.Ref
}

func (m meaning) String() string { return backends.URI{Remote: m.remote, Ref: m.ref}.String() }

// New returns the names of the images in a catalogue. v are its verbs.
func New(cat *catalog.Catalog, v *verbs.Verbs, o Options) *Names {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Names{cat: cat, verbs: v, opts: o, found: map[string]meaning{}}
}

// A FindFunc returns the image that a file name means now, and its remote.
//
// Errors: fs.ErrNotExist if the name means nothing, or may mean several images; those of
// catalog.Lookup.
type FindFunc = func(ctx context.Context, name string) (remote string, img backends.Image, err error)

// Dirs returns the folders that the programs are given, by their names below the mount
// point.
func (n *Names) Dirs() map[string]FindFunc {
	return map[string]FindFunc{".nextflow": n.Nextflow, ".snakemake": n.Snakemake}
}

// find returns the image of a name: that which it meant before, as long as that is there,
// else what search finds.
func (n *Names) find(ctx context.Context, name string, search func() (meaning, error)) (string, backends.Image, error) {
	n.mu.Lock()
	m, known := n.found[name]
	n.mu.Unlock()
	if known {
		img, err := n.cat.Lookup(ctx, m.remote, m.ref)
		if !errors.Is(err, fs.ErrNotExist) {
			return m.remote, img, err
		}
	}
	m, err := search()
	if err != nil {
		return "", backends.Image{}, err
	}
	img, err := n.cat.Lookup(ctx, m.remote, m.ref)
	if err == nil {
		n.opts.Log.Info("the name that another program made means an image", "name", name, "image", m.String())
		n.remember(name, m)
	}
	return m.remote, img, err
}

func (n *Names) remember(name string, m meaning) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.found) >= maxFound {
		clear(n.found) // they are found again
	}
	n.found[name] = m
}

// maxList bounds the file of Options.List, in bytes.
const maxList = 4 << 20

// listed returns the URLs of the list.
func (n *Names) listed() (urls []string) {
	if n.opts.List == "" {
		return nil
	}
	text, err := backends.ReadRegular(n.opts.List, 0, maxList)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			n.opts.Log.Warn("the list of images cannot be read", "file", n.opts.List, "err", err)
		}
		return nil
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			urls = append(urls, line)
		}
	}
	return urls
}

// inList returns what the URL of the list means whose name is the one that is looked for.
//
// Errors: fs.ErrNotExist if there is none, or if there are several; those of verbs.Resolve.
func (n *Names) inList(ctx context.Context, name string, nameOf func(url string) string) (meaning, error) {
	var found []string
	for _, url := range n.listed() {
		if nameOf(url) == name && !slices.Contains(found, url) {
			found = append(found, url)
		}
	}
	switch len(found) {
	case 0:
		return meaning{}, backends.NotFound("no image that is known has that name")
	case 1:
		r, ref, err := n.verbs.Resolve(ctx, found[0], verbs.Reading)
		return meaning{r.Name, ref}, err
	}
	return meaning{}, n.ambiguous(name, found)
}

// ambiguous is the error of a name that several images have. None of them is chosen: a
// program that does not find the name pulls the URL, which it knows.
func (n *Names) ambiguous(name string, images []string) error {
	n.opts.Log.Warn("a name means several images, so it is not there: put the URL of the right one into the list",
		"name", name, "images", images, "list", n.opts.List)
	return backends.NotFound("it may mean %s: put the URL of the right one into %s", strings.Join(images, " or "), n.opts.List)
}
