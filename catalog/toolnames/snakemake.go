// SPDX-License-Identifier: Apache-2.0

package toolnames

import (
	"context"
	"crypto/md5" //nolint:gosec // the rule is Snakemake's, and nothing is proven by it
	"encoding/hex"
	"errors"
	"io/fs"
	"net/url"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// snakemakeExt ends Snakemake's names.
const snakemakeExt = ".simg"

// snakemakeName is the name of the file that Snakemake looks for in --singularity-prefix
// (--apptainer-prefix): https://github.com/snakemake/snakemake/blob/main/src/snakemake/deployment/singularity.py
// (Image.hash, Image.path).
func snakemakeName(url string) string {
	sum := md5.Sum([]byte(url)) //nolint:gosec // as above
	return hex.EncodeToString(sum[:]) + snakemakeExt
}

// Snakemake finds the image that a file name of Snakemake means, among the URLs of the list
// and the images that are known. It is a FindFunc, and sends no request to find the URL.
func (n *Names) Snakemake(ctx context.Context, name string) (string, backends.Image, error) {
	sum, ok := strings.CutSuffix(name, snakemakeExt)
	if _, err := hex.DecodeString(sum); !ok || err != nil || len(sum) != 2*md5.Size {
		return "", backends.Image{}, backends.NotFound("Snakemake's names are a hash and %s", snakemakeExt)
	}
	return n.find(ctx, name, func() (meaning, error) {
		m, err := n.inList(ctx, name, snakemakeName)
		if !errors.Is(err, fs.ErrNotExist) {
			return m, err
		}
		if m, ok := n.known(ctx, func(url string) bool { return snakemakeName(url) == name }); ok {
			return m, nil
		}
		return meaning{}, backends.NotFound("it is of no image that is known here: put its URL into %s", n.opts.List)
	})
}

// known returns the image that is known here and has a URL for which is holds.
func (n *Names) known(ctx context.Context, is func(url string) bool) (meaning, bool) {
	for _, r := range n.cat.Remotes() {
		prefixes := n.prefixes(r)
		for rec, err := range n.verbs.Images(ctx, verbs.ImagesOptions{Remote: r.Name}) {
			if err != nil {
				break // what is known of the others counts
			}
			for _, prefix := range prefixes {
				if has(prefix, rec.Ref, backends.Ext(rec.Format), is) {
					return meaning{r.Name, rec.Ref}, true
				}
			}
		}
	}
	return meaning{}, false
}

// prefixes returns what URLs of a remote's images begin with.
func (n *Names) prefixes(r catalog.Remote) []string {
	all := []string{r.Name + "://"}
	t, _ := n.opts.Types.Named(r.Type)
	for _, scheme := range t.Schemes {
		all = append(all, scheme+"://")
	}
	address, err := url.Parse(r.URL)
	if err != nil || address.Host == "" {
		return all
	}
	if !t.OCI {
		return append(all, strings.TrimSuffix(r.URL, "/")+"/")
	}
	_, host, _ := n.opts.Types.At(address.Host)
	return append(all, "docker://"+host+"/", "oras://"+host+"/")
}

// has reports whether one of the ways to write an image after a prefix is wanted: without
// the tag or the collection that are meant anyway, with an extension.
func has(prefix string, ref backends.Ref, ext string, is func(url string) bool) bool {
	paths := []string{strings.TrimPrefix(ref.Collection+"/"+ref.Name, "/")}
	if ref.Collection == backends.DefaultCollection {
		paths = append(paths, ref.Name)
	}
	for _, path := range paths {
		tagged := prefix + path + ":" + ref.Tag
		if is(tagged) || ext != "" && is(tagged+ext) {
			return true
		}
		if untagged := prefix + path; ref.Tag == backends.DefaultTag && (is(untagged) || ext != "" && is(untagged+ext)) {
			return true
		}
	}
	return false
}
