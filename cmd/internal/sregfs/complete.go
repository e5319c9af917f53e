// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/backends/all"
)

// completed lets shells complete the mount point, mount options and types of remotes.
func (c *command) completed(root *cobra.Command) {
	root.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	for name, offer := range map[string]func(typed string) []string{"option": c.completeOption, "remote": completeRemote} {
		_ = root.RegisterFlagCompletionFunc(name, func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return offer(typed), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		})
	}
	c.flags.VisitAll(func(f *pflag.Flag) {
		if all := values(f); len(all) > 0 {
			_ = root.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(all, cobra.ShellCompDirectiveNoFileComp))
		}
	})
}

// values are those that a flag can have, if its usage lists them: `sync|async`.
func values(f *pflag.Flag) []string {
	name, _ := pflag.UnquoteUsage(f)
	if !strings.Contains(name, "|") || name != strings.ToLower(name) {
		return nil
	}
	return strings.Split(name, "|")
}

// completeOption completes the last of several mount options, which are separated by commas.
func (c *command) completeOption(typed string) []string {
	names := append(slices.Collect(maps.Keys(flagsOf)), "ro", "allow_other", "noauto", "nofail", "_netdev")
	c.flags.VisitAll(func(f *pflag.Flag) {
		switch {
		case f.Name == "help" || f.Name == "version" || f.Name == "option" || f.Name == "foreground":
		case f.Value.Type() == "bool":
			names = append(names, strings.ReplaceAll(f.Name, "-", "_"))
		case len(values(f)) > 0:
			for _, value := range values(f) {
				names = append(names, strings.ReplaceAll(f.Name, "-", "_")+"="+value)
			}
		default:
			names = append(names, strings.ReplaceAll(f.Name, "-", "_")+"=")
		}
	})
	slices.Sort(names)
	before := typed[:strings.LastIndexByte(typed, ',')+1]
	var offered []string
	for _, name := range slices.Compact(names) {
		if strings.HasPrefix(before+name, typed) {
			offered = append(offered, before+name)
		}
	}
	return offered
}

// completeRemote completes the type in NAME=TYPE.
func completeRemote(typed string) []string {
	name, typ, ok := strings.Cut(typed, "=")
	if !ok {
		return nil
	}
	var offered []string
	for _, t := range all.Names() {
		if strings.HasPrefix(t, typ) {
			offered = append(offered, name+"="+t)
		}
	}
	return offered
}
