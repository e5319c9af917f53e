// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/all"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/config"
)

// A completer offers words for what is being typed.
type completer = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

// completed gives each command, that has none of its own, the completion of its arguments
// and flags by what its usage calls them: URI, REMOTE, FILE.
func (a *app) completed(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		a.completed(sub)
	}
	words := placeholders(cmd)
	if cmd.ValidArgsFunction == nil && len(words) > 0 {
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			at := len(args)
			if last := len(words) - 1; at > last {
				if at = last; !strings.HasSuffix(words[last], "...") {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
			}
			return a.offer(strings.TrimSuffix(words[at], "..."))(cmd, args, typed)
		}
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		name, _ := pflag.UnquoteUsage(f)
		if _, has := cmd.GetFlagCompletionFunc(f.Name); has || f.Value.Type() == "bool" {
			return
		}
		if f.Name == "output" {
			name = "FORMAT"
		}
		_ = cmd.RegisterFlagCompletionFunc(f.Name, a.offer(strings.ToUpper(name)))
	})
}

// placeholders are the arguments in a command's usage: "pull URI [FILE]".
func placeholders(cmd *cobra.Command) []string {
	var words []string
	for _, word := range strings.Fields(cmd.Use)[1:] {
		word = strings.Trim(word, "[]")
		if strings.HasSuffix(cmd.CommandPath(), "remote "+cmd.Name()) && word == "NAME" && cmd.Name() != "add" {
			word = "REMOTE"
		}
		words = append(words, strings.ReplaceAll(word, "]...", "..."))
	}
	return words
}

// offer returns what completes an argument of that name.
func (a *app) offer(word string) completer {
	word, _, _ = strings.Cut(word, "[") // REMOTE[/COLLECTION]
	fixed := func(words ...string) completer {
		return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return words, cobra.ShellCompDirectiveNoFileComp
		}
	}
	switch word {
	case "URI", "QUERY", "URI|PATTERN":
		return a.completeImages
	case "REMOTE":
		return a.completeRemotes
	case "ID", "ID|PATTERN":
		return a.completeUploads
	case "TYPE":
		return fixed(all.Names()...)
	case "FORMAT":
		return fixed("text", "json", "yaml", "csv", "name")
	case "URI|PATH": // an image, or a file by its beginning
		return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if strings.HasPrefix(typed, "/") || strings.HasPrefix(typed, ".") {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return a.completeImages(cmd, args, typed)
		}
	case "FILE", "PATH", "RECIPE":
		return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		}
	case "DIR", "DIRECTORY", "IMAGES", "STATE":
		return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
	}
	return fixed()
}

// completeRemotes offers the remotes that are configured.
func (a *app) completeRemotes(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, name := range a.remoteNames() {
		if strings.HasPrefix(name, typed) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// remoteNames are the remotes of the configuration, and the local one.
func (a *app) remoteNames() []string {
	a.quiet = true
	names := []string{config.Local}
	if o, err := a.options(); err == nil {
		for _, r := range o.Settings.Remotes {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// completeUploads offers the short IDs of the uploads, with what they are for.
func (a *app) completeUploads(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWait)
	defer cancel()
	a.quiet = true
	var ids []string
	_ = a.with(ctx, func(c *control.Client) error { // an error would be printed into the command line
		st, err := c.Status(ctx)
		for _, d := range st.Uploads {
			ids = append(ids, shortID(d.ID, st.Uploads)+"\t"+backends.Printable(destination(d.Target)))
		}
		return err
	})
	return ids, cobra.ShellCompDirectiveNoFileComp
}

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
	for _, name := range a.remoteNames() { // also those of which nothing is known yet
		if uri := name + "://"; strings.HasPrefix(uri, typed) {
			found[uri] = true
		}
	}
	if err != nil && len(found) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var parts []string
	open := false
	for part := range found {
		parts = append(parts, part)
		open = open || strings.HasSuffix(part, "/")
	}
	slices.Sort(parts)
	if open {
		return parts, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	return parts, cobra.ShellCompDirectiveNoFileComp
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
