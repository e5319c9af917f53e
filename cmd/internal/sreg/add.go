// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// fileAndURI reads "FILE URI" or "--name URI FILE".
func fileAndURI(cmd *cobra.Command, args []string, name string) (path, uri string, err error) {
	switch {
	case len(args) == 2 && name == "":
		path, uri = args[0], args[1]
	case len(args) == 1 && name != "":
		path, uri = args[0], name
	default:
		return "", "", usagef("usage: %s", cmd.UseLine())
	}
	given := path
	if path, err = existingFile(path); errors.Is(err, fs.ErrNotExist) && name == "" && isFile(uri) {
		return "", "", usagef("the file comes first: %s %s %s", cmd.CommandPath(), uri, given)
	}
	return path, uri, err
}

// isFile reports whether an argument is the name of a file.
func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// publish has send take an image file to a registry, and prints what became of it.
func (a *app) publish(cmd *cobra.Command, args []string, name string,
	send func(c *control.Client, path, uri string, p catalog.Progress) (verbs.Record, error)) error {
	path, uri, err := fileAndURI(cmd, args, name)
	if err != nil {
		return err
	}
	return a.with(cmd.Context(), func(c *control.Client) error {
		if a.onlySays {
			r, err := send(c, path, uri, nil)
			if err != nil {
				return err
			}
			return a.wouldBe(cmd.Context(), c, r)
		}
		progress, end := a.transfer(transfer{done: "pushed", what: uri, kept: "nothing was published as " + uri})
		r, err := send(c, path, uri, progress)
		end(cmd.Context(), err)
		if err != nil {
			return err
		}
		return a.printRecord(r)
	})
}

// wouldBe prints what --dry-run has of an image that would be written, and what is there now.
func (a *app) wouldBe(ctx context.Context, c *control.Client, r verbs.Record) error {
	says := r.URI + " would be new"
	switch now, err := c.Removable(ctx, r.URI); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		says = "what " + r.URI + " is now cannot be told (" + err.Error() + ")"
	case now.Digest != "" && now.Digest == r.Digest:
		says = r.URI + " is that image already"
	case now.Digest == "" || r.Digest == "":
		says = r.URI + " is there, and would be replaced unless it is the same"
	default:
		says = r.URI + " would be replaced: it is " + short(now.Digest) + " now"
	}
	a.notice("nothing is done (--dry-run): " + says)
	return a.printRecord(r)
}

// writingFlags adds the flags of all commands that write an image.
func (a *app) writingFlags(cmd *cobra.Command, o *verbs.PushOptions) {
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "replace the tag if it is taken")
	a.dryRunFlag(cmd)
}

func (a *app) addCmd() *cobra.Command {
	var name string
	var o verbs.AddOptions
	cmd := &cobra.Command{
		Use:   "add FILE URI",
		Short: "Add an image file to the local store",
		Long: `Copy an image file into the local store, sharing the blocks on the disk where the
filesystem can. With --move the file is moved. A URI of another remote pushes.`,
		Example: "  sreg add hello.sif vsoch/hello:2.0",
		Args:    needArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Move && cmd.Flags().Changed("copy") {
				return usagef("add: --copy or --move, not both")
			}
			return a.publish(cmd, args, name, func(c *control.Client, path, uri string, p catalog.Progress) (verbs.Record, error) {
				o.DryRun = a.onlySays
				return c.Add(cmd.Context(), path, uri, o, p)
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the `URI`, as sregistry takes it")
	cmd.Flags().BoolVar(&o.Move, "move", false, "move the file instead of copying it")
	cmd.Flags().Bool("copy", true, "copy it, as sregistry takes it; --move does not")
	a.writingFlags(cmd, &o.PushOptions)
	return cmd
}

func (a *app) pushCmd() *cobra.Command {
	var name, tag string
	var o verbs.PushOptions
	cmd := &cobra.Command{
		Use:     "push FILE URI",
		Short:   "Publish an image file on a registry",
		Long:    `Publish an image file. It is visible on the registry once all of it is there and checked.`,
		Example: "  sreg push hello.sif lab://vsoch/hello:2.0",
		Args:    needArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.publish(cmd, args, name, func(c *control.Client, path, uri string, p catalog.Progress) (verbs.Record, error) {
				uri, err := tagged(uri, tag)
				if err != nil {
					return verbs.Record{}, err
				}
				o.DryRun = a.onlySays
				return c.Push(cmd.Context(), path, uri, o, p)
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the `URI`, as sregistry takes it")
	cmd.Flags().StringVar(&tag, "tag", "", "the `tag`, whatever the URI says")
	a.writingFlags(cmd, &o)
	return cmd
}

// tagged returns a URI with another tag; "" leaves it as it is.
func tagged(uri, tag string) (string, error) {
	if tag == "" {
		return uri, nil
	}
	u, err := backends.ParseURI(uri)
	if err != nil {
		return "", err
	}
	u.Ref.Tag = tag
	return u.String(), nil
}
