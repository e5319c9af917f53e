// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/term"
	"github.com/sregfs/sregfs/fsys"
)

func (a *app) pullCmd() *cobra.Command {
	var name string
	var noCache bool
	var o verbs.PullOptions
	cmd := &cobra.Command{
		Use:   "pull URI [FILE]",
		Short: "Bring a whole image to this machine",
		Long: `Download all of an image and check it against its digest. Without FILE it stays
in the cache, where "sreg get" and a mount find it; with FILE a copy is written
there. The path is printed. If FILE is a directory, the copy is IMAGE:TAG.sif in it,
or IMAGE:TAG@VERSION.sif where the URI says a version;
if FILE is "-", the image goes to the standard output, and nothing else does.

Docker and OCI images are SIF files that point into the layers as they are, three to
four times as large as those that Apptainer makes. With --compact, FILE is the same tree
with compressed blocks, for an image to keep or to copy elsewhere; it has another
digest. It is written on all cores. --compact=zstd starts faster, and needs Linux 4.14 or
newer where it runs. Images that are no containers are copied as they are.`,
		Args: needArgs(1, 2),

		ValidArgsFunction: a.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			to := name
			if len(args) == 2 {
				if name != "" {
					return usagef("usage: %s", cmd.UseLine())
				}
				to = args[1]
			}
			if strings.Contains(to, "://") {
				return usagef("the image comes first: %s %s %s", cmd.CommandPath(), to, args[0])
			}
			return a.with(cmd.Context(), func(c *control.Client) error {
				if noCache {
					return a.pullAway(cmd.Context(), c, args[0], cmp.Or(to, "."), o)
				}
				return a.pull(cmd.Context(), c, args[0], to, o)
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the `FILE`, as sregistry takes it")
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "replace FILE if it exists")
	cmd.Flags().BoolVar(&noCache, "no-cache", false, "keep nothing in the cache; without FILE, write into the working directory")
	cmd.Flags().StringVar(&o.Compact, "compact", "", "compress a container image's SIF: `gzip` or zstd")
	cmd.Flags().Lookup("compact").NoOptDefVal = "gzip"
	return cmd
}

func (a *app) pull(ctx context.Context, c *control.Client, uri, to string, o verbs.PullOptions) error {
	if o.Compact != "" && (to == "" || to == "-") {
		return usagef("pull --compact writes a file: name it")
	}
	if to == "-" {
		return a.pullOut(ctx, c, uri)
	}
	uri, to, err := a.target(ctx, c, uri, to)
	if err != nil {
		return err
	}
	o.To = to
	progress, end := a.transfer(pulling(uri))
	r, err := c.Pull(ctx, uri, o, progress)
	end(ctx, err)
	switch {
	case err != nil:
		return err
	case to != "":
		r.Path = to
	}
	if a.format == asJSON {
		return a.printJSON(r)
	}
	_, err = fmt.Fprintln(a.out, r.Path)
	return err
}

// pullAway pulls an image into a file and drops from the cache what was not there before.
func (a *app) pullAway(ctx context.Context, c *control.Client, uri, to string, o verbs.PullOptions) error {
	before, err := c.Find(ctx, uri)
	if err != nil {
		return err
	}
	if err := a.pull(ctx, c, uri, to, o); err != nil || before.State != cache.Remote {
		return err
	}
	for b, err := range c.Cached(ctx, []string{before.URI}) {
		if err != nil {
			return err
		}
		if _, err := c.RemoveCached(ctx, b.Key); err != nil {
			return err
		}
	}
	return nil
}

// pulling is a transfer to this machine.
func pulling(uri string) transfer {
	return transfer{done: "pulled", what: uri, kept: "what came of " + uri + " is kept, and the same command goes on from there"}
}

// pullOut writes an image to the standard output, once it is whole and verified.
func (a *app) pullOut(ctx context.Context, c *control.Client, uri string) error {
	if term.Is(a.out) {
		return usagef("pull %s -: the standard output is a terminal: send it to a file or a program", uri)
	}
	progress, end := a.transfer(pulling(uri))
	r, err := c.Pull(ctx, uri, verbs.PullOptions{}, progress)
	end(ctx, err)
	if err != nil {
		return err
	}
	f, err := backends.OpenRegular(r.Path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for err == nil && ctx.Err() == nil {
		_, err = io.CopyN(a.out, f, 16<<20)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return errors.Join(err, ctx.Err())
}

// target returns the absolute name of the file to write, "" for none, and the URI of the
// image. If to is a directory, the file gets the image's name, for which the image is
// looked up; the URI returned is that of the image found, so that a tag that moves
// meanwhile cannot put another image under that name.
func (a *app) target(ctx context.Context, c *control.Client, uri, to string) (image, path string, err error) {
	if to == "" {
		return uri, "", nil
	}
	abs, err := absolute(to)
	if err != nil {
		return "", "", err
	}
	info, err := os.Stat(abs)
	isDir := err == nil && info.IsDir()
	if !isDir && !strings.HasSuffix(to, "/") {
		return uri, abs, nil
	}
	if !isDir {
		return "", "", usagef("%s is not a directory", to)
	}
	r, err := c.Find(ctx, uri)
	if err != nil {
		return "", "", err
	}
	return r.URI, filepath.Join(abs, filepath.Base(fsys.PathOf(fsys.Names(a.settings.Names), r.Remote, r.Ref, r.Format))), nil
}
