// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/backends"
)

// ignored are mount options that mount(8), systemd or fuse(8) act on, or that say
// what is so anyway: nothing here depends on them.
var ignored = []string{"rw", "defaults", "auto", "noauto", "user", "nouser", "users", "owner", "nofail", "_netdev", "nosuid",
	"nodev", "suid", "dev", "exec", "sync", "async", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime",
	"strictatime", "default_permissions", "noexec"}

// ignoredWithValue are those that have a value.
var ignoredWithValue = []string{"x-", "X-", "comment=", "fsname=", "subtype=", "blkdev="}

// applyOptions takes the options of one -o. A flag wins over an option, wherever
// it stands.
func (c *command) applyOptions(text string) error {
	for _, option := range strings.Split(text, ",") {
		if err := c.applyOption(strings.TrimSpace(option)); err != nil {
			return err
		}
	}
	return nil
}

func (c *command) applyOption(option string) error {
	key, value, hasValue := strings.Cut(option, "=")
	name := strings.ReplaceAll(key, "_", "-")
	flag := c.flags.Lookup(name)
	switch {
	case option == "" || slices.Contains(ignored, option):
		return nil
	case slices.ContainsFunc(ignoredWithValue, func(p string) bool { return strings.HasPrefix(option, p) }):
		return nil
	case option == "ro":
		name, value, flag = "read-only", "true", c.flags.Lookup("read-only")
	case key == "auto_unmount":
		return usagef("-o auto_unmount: not supported, because the helper that it starts never ends: have fusermount3 -uz MOUNTPOINT run after sregfs (ExecStopPost= of a systemd unit)")
	case key == "allow_root":
		return usagef("-o allow_root: not supported: use allow_other, which is safe because permissions are always checked")
	case flag == nil || name == "option" || name == "help" || name == "version" || name == "foreground":
		return usagef("-o %s: unknown mount option%s", key, backends.DidYouMean(key, c.optionNames()))
	case name == "remote" && strings.Contains(value, "token="):
		return usagef("-o remote: a token does not belong on the command line: use a configuration file")
	}
	if !hasValue && value == "" {
		if value = flag.NoOptDefVal; value == "" {
			return usagef("-o %s: needs a value", key)
		}
	}
	if c.flags.Changed(name) && name != "remote" {
		return nil
	}
	if err := c.flags.Set(name, value); err != nil {
		return usagef("-o %s: %v", option, err)
	}
	return nil
}

func (c *command) optionNames() []string {
	var all []string
	c.flags.VisitAll(func(f *pflag.Flag) { all = append(all, strings.ReplaceAll(f.Name, "-", "_")) })
	return append(all, ignored...)
}

// helperArgs turns what mount(8) gives its helpers (SOURCE DIR [-sfnvrw] [-N ns]
// [-o options] [-t type]) into our own arguments. fake means that nothing is to
// be done.
func helperArgs(args []string) (own []string, fake bool) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if len(arg) < 2 || arg[0] != '-' || arg[1] == '-' {
			own = append(own, arg)
			continue
		}
		for j, letter := range arg[1:] {
			value := arg[j+2:]
			switch letter {
			case 'f':
				fake = true
				continue
			case 'v':
				own = append(own, "-v")
				continue
			case 'r':
				own = append(own, "-o", "ro")
				continue
			case 'o', 't', 'N':
				if value == "" && i+1 < len(args) {
					i++
					value = args[i]
				}
				if letter == 'o' {
					own = append(own, "-o", value)
				}
			case 's', 'n', 'w':
				continue
			default:
				own = append(own, "-"+string(letter))
				continue
			}
			break
		}
	}
	return own, fake
}
