// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// completeWait is how long a shell waits for its completions; later ones are not offered.
const completeWait = 2 * time.Second

// completeImages offers the images that are known, one part at a time as shells complete
// file names: first remotes, then collections, then images. It sends no request to a
// registry. Errors are dropped, because a shell would print them into the command line.
func (a *app) completeImages(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWait)
	defer cancel()
	a.quiet = true
	found := map[string]bool{}
	err := a.with(ctx, func(c *control.Client) error {
		for rec, err := range c.ImagesBrief(ctx, verbs.ImagesOptions{Query: patternOf(typed)}) {
			if err != nil {
				return err
			}
			if part, ok := nextPart(rec.URI, typed); ok {
				found[part] = true
			}
		}
		return nil
	})
	if err != nil && len(found) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var all []string
	open := false
	for part := range found {
		all = append(all, part)
		open = open || strings.HasSuffix(part, "/")
	}
	slices.Sort(all)
	if open {
		return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completeImage is completeImages for a command whose first argument is an image and whose
// second is a file.
func (a *app) completeImage(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeImages(cmd, args, typed)
}

// patternOf returns the query for names that begin with typed.
func patternOf(typed string) string {
	if strings.ContainsAny(typed, `*?[\`) {
		return typed
	}
	return typed + "*"
}

// nextPart returns a URI up to the end of the part that is being typed; false if it does
// not begin so. A user may leave out the remote, so uri is also compared without it.
func nextPart(uri, typed string) (string, bool) {
	if !strings.Contains(typed, "://") && !strings.HasPrefix(uri, typed) {
		_, uri, _ = strings.Cut(uri, "://") // a URI without its remote
	}
	if !strings.HasPrefix(uri, typed) {
		return "", false
	}
	start := 0
	if i := strings.Index(uri, "://"); i >= 0 {
		start = i + 2 // its last slash ends the remote
	}
	for i := start; i < len(uri); i++ {
		if uri[i] == '/' && i >= len(typed) {
			return uri[:i+1], true
		}
	}
	return uri, true
}
