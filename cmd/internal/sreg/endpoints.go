// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/engine"
)

// A foundEndpoint is a place that keeps images, on one remote.
type foundEndpoint struct {
	Remote string `json:"remote"`
	backends.Endpoint
}

// searchEndpoints prints the places that the remote of that name finds; with "" all remotes
// that have some are asked.
func (a *app) searchEndpoints(ctx context.Context, remote, query string) error {
	o, err := a.options()
	if err != nil {
		return err
	}
	asked := o.Settings.Remotes
	if remote != "" {
		r, err := remoteNamed(o, remote)
		if err != nil {
			return err
		}
		asked = []config.Remote{r}
	}
	a.nothing = "no place was found"
	return printAll(a, findEndpoints(ctx, o, asked, query),
		column[foundEndpoint]{"REMOTE", func(e foundEndpoint) string { return e.Remote }, nil},
		column[foundEndpoint]{"ID", func(e foundEndpoint) string { return e.ID }, nil},
		column[foundEndpoint]{"NAME", func(e foundEndpoint) string { return e.Name }, nil},
		column[foundEndpoint]{"KIND", func(e foundEndpoint) string { return e.Kind }, nil},
		column[foundEndpoint]{"READABLE", func(e foundEndpoint) string { return yesNo(e.Readable) }, func(e foundEndpoint) any { return e.Readable }},
	)
}

func yesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

// findEndpoints yields what the remotes find, one after the other. That a remote has no such
// places is an error only if none has.
func findEndpoints(ctx context.Context, o engine.Options, remotes []config.Remote, query string) iter.Seq2[foundEndpoint, error] {
	return func(yield func(foundEndpoint, error) bool) {
		var none error
		searched := false
		for _, r := range remotes {
			err := findOn(ctx, o, r, query, func(e foundEndpoint) bool { return yield(e, nil) })
			switch {
			case errors.Is(err, errors.ErrUnsupported):
				none = err
				continue
			case err != nil && !errors.Is(err, errEnough):
				yield(foundEndpoint{}, err)
			}
			if err != nil {
				return
			}
			searched = true
		}
		switch {
		case searched || none == nil:
		case len(remotes) == 1:
			yield(foundEndpoint{}, none)
		default:
			yield(foundEndpoint{}, fmt.Errorf("%w: no remote has places to look for (\"sreg remote add globus globus\" makes one that has)", errors.ErrUnsupported))
		}
	}
}

// errEnough ends a search of which no more is wanted.
var errEnough = errors.New("no more is wanted")

// findOn calls fn with what one remote finds.
//
// Errors: errEnough once fn returns false; those of backends.Client's FindEndpoints.
func findOn(ctx context.Context, o engine.Options, r config.Remote, query string, fn func(foundEndpoint) bool) error {
	p, err := newProbe(ctx, o, r)
	if err != nil {
		return err
	}
	defer p.close()
	for e, err := range p.client.FindEndpoints(ctx, query) {
		if err != nil {
			return err
		}
		if !fn(foundEndpoint{r.Name, e}) {
			return errEnough
		}
	}
	return nil
}
