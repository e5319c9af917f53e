// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/inspect"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
	"github.com/sregfs/sregfs/fsys"
)

func (a *app) inspectCmd() *cobra.Command {
	var parts inspectParts
	var keys keySource
	var verify bool
	cmd := &cobra.Command{
		Use:     "inspect URI|PATH",
		Aliases: []string{"info", "show"},
		Short:   "Show what an image says of itself",
		Long: `Show what the author of an image wrote: labels, help, scripts, environment and
definition. Only the parts of the image that hold them are fetched, and nothing is
run; signatures are verified with --verify. --all shows the rest: the objects of a SIF, the layers
of a container image, and what the build tool puts into every image.

A PATH is a file that is there, or begins with "/", "./" or "../"; one in the mount
means the image that is shown there. The flags for single parts print them whole, as
they stand in the image.

With -o json: all of it, whatever the flags; docs/inspect.md has the fields.`,
		Example: "  sreg inspect lab://vsoch/hello:2.0\n  sreg inspect --deffile ./hello.sif",
		Args:    needArgs(1, 1),

		ValidArgsFunction: a.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := a.inspectOrVerify(cmd.Context(), args[0], verify, keys)
			if err != nil {
				return err
			}
			if a.format == asJSON {
				err = a.printJSON(documentOf(in))
			} else {
				err = a.printInspection(in, parts)
			}
			if err == nil && verify {
				err = verdict(in)
			}
			return err
		},
	}
	parts.flags(cmd.Flags())
	cmd.Flags().BoolVar(&verify, "verify", false, "verify the signatures, as \"sreg verify\" does")
	keys.flags(cmd.Flags())
	return cmd
}

func (a *app) inspectOrVerify(ctx context.Context, arg string, verify bool, keys keySource) (inspection, error) {
	if verify {
		return a.verify(ctx, arg, keys)
	}
	return a.inspect(ctx, arg)
}

// An inspection is of the image that uri means, or of the file at Record.Path if that is "".
type inspection struct {
	control.Inspection
	uri string
}

// inspect inspects what an argument means: an image, or a file.
func (a *app) inspect(ctx context.Context, arg string) (in inspection, err error) {
	uri, path, err := a.imageOrFile(arg)
	if err != nil {
		return in, err
	}
	if path != "" {
		in.Inspection, err = inspectFile(ctx, path)
		return in, err
	}
	in.uri = uri
	err = a.with(ctx, func(c *control.Client) error {
		if in.Inspection, err = c.Inspect(ctx, uri); err != nil {
			in.Inspection, err = elsewhere(ctx, a, err, func(m *systemMount) (control.Inspection, error) {
				return m.client.Inspect(ctx, uri)
			})
		}
		return err
	})
	if in.Facts == nil {
		in.Facts = &inspect.Facts{}
	}
	return in, err
}

// imageOrFile says what an argument means: the image of a URI, or of a path in the running
// mount, or else a file. For that nothing need be configured.
func (a *app) imageOrFile(arg string) (uri, path string, err error) {
	if strings.Contains(arg, "://") {
		return arg, "", nil
	}
	if o, err := a.options(); err == nil {
		if p, err := statedir.Holder(o.State); err == nil && p.Mount != "" && looksLikePath(arg, p.Mount) {
			inside, _ := insideMount(p.Mount, arg)
			uri, err := uriInside(inside)
			return uri, "", err
		}
	}
	_, err = os.Stat(arg)
	if err == nil || writtenAsFile(arg) {
		path, err = absolute(arg)
		return "", path, err
	}
	return arg, "", nil
}

// looksLikePath reports whether an argument is a path in the mount. One that does not say so
// is it for somebody who is there.
func looksLikePath(arg, mount string) bool {
	if _, ok := insideMount(mount, arg); !ok {
		return false
	}
	if writtenAsFile(arg) {
		return true
	}
	_, format := backends.CutExt(arg)
	_, below := insideMount(mount, ".")
	return format != "" || below
}

// uriInside returns the URI of the image at a path in the mount.
func uriInside(inside string) (string, error) {
	remote, ref, format, err := fsys.ParsePath(inside)
	if err != nil {
		return "", err
	}
	uri := backends.URI{Remote: remote, Ref: ref}.String()
	if format == backends.FormatArchive { // else it is the SIF of the same name
		uri += backends.Ext(format)
	}
	return uri, nil
}

// inspectFile inspects a file with the permissions of this user.
func inspectFile(ctx context.Context, path string) (in control.Inspection, err error) {
	f, err := backends.OpenRegular(path, os.O_RDONLY, 0)
	if err != nil {
		return in, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return in, err
	}
	in.Record = verbs.Record{Size: info.Size(), Modified: info.ModTime(), Path: path}
	in.Facts, err = inspect.Read(ctx, f, info.Size())
	return in, err
}
