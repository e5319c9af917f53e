// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/engine"
)

const maxTagsNamed = 8

// withKnownTags adds to an error that an image is not there which tags of it are known, of
// those images that the command line names. It asks no registry.
func (a *app) withKnownTags(ctx context.Context, c *control.Client, err error) error {
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, backends.ErrNoVariant) {
		return err
	}
	for _, arg := range a.operands {
		u, parseErr := backends.ParseURI(arg)
		if parseErr != nil {
			continue
		}
		if tags := knownTags(ctx, c, u); len(tags) > 0 {
			return fmt.Errorf("%w (known tags of %s: %s)", err, u.Ref.Repository(), strings.Join(tags, ", "))
		}
	}
	return err
}

// knownTags returns the tags of an image; none if the one that is asked for is among them.
func knownTags(ctx context.Context, c *control.Client, u backends.URI) []string {
	var tags []string
	for r, err := range c.ImagesBrief(ctx, verbs.ImagesOptions{Query: "*" + u.Ref.Repository() + ":*"}) {
		if err != nil {
			return nil
		}
		known, err := backends.ParseURI(r.URI)
		if err != nil || known.Ref.Repository() != u.Ref.Repository() || u.Remote != "" && known.Remote != u.Remote {
			continue
		}
		if known.Ref.Tag == u.Ref.Tag {
			return nil
		}
		if len(tags) == maxTagsNamed {
			return append(tags, "…")
		}
		tags = append(tags, known.Ref.Tag)
	}
	return tags
}

// withRemedy adds to a refused login what to do about it, where the error does not say it.
func (a *app) withRemedy(o engine.Options, err error) error {
	if !errors.Is(err, backends.ErrUnauthorized) || strings.Contains(err.Error(), "run \"") {
		return err
	}
	for _, arg := range a.operands {
		u, parseErr := backends.ParseURI(arg)
		if parseErr != nil {
			continue
		}
		for _, r := range o.Settings.Remotes {
			if text := remedy(r, "login", err); r.Name == u.Remote && text != "" {
				return fmt.Errorf("%w (%s)", err, text)
			}
		}
	}
	return err
}
