// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/fsys/fusefs"
)

// meaningless are the mount options that change nothing here, whoever gives them: mount(8)
// and systemd act on them before or after us, or they speak of what the tree has not
// (modes of its own, devices, times of reading, symbolic links), or ask for what is so
// anyway. One that restricts is not among them.
var meaningless = []string{
	"rw", "defaults", "auto", "noauto", "nofail", "_netdev", "nouser", "nogroup", "noowner", "default_permissions",
	"nosuid", "nodev", "suid", "dev", "async", "nosymfollow", "symfollow", "silent", "loud", "nomand",
	"atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime",
	"iversion", "noiversion",
}

// meaninglessWithValue are how those begin that have a value.
var meaninglessWithValue = []string{"x-", "X-", "comment=", "fsname=", "subtype=", "blkdev=", "helper=", "uhelper="}

// flagsOf are the mount options that the kernel applies; with "user=NAME" mount(8) says
// who called it. As in mount(8) a later one overrides an earlier one.
var flagsOf = map[string]func(*fusefs.MountFlags){
	"exec":     func(f *fusefs.MountFlags) { f.NoExec = false },
	"noexec":   func(f *fusefs.MountFlags) { f.NoExec = true },
	"user":     func(f *fusefs.MountFlags) { f.NoExec = true },
	"users":    func(f *fusefs.MountFlags) { f.NoExec = true },
	"owner":    func(*fusefs.MountFlags) {}, // nosuid and nodev, which always are
	"group":    func(*fusefs.MountFlags) {},
	"sync":     func(f *fusefs.MountFlags) { f.Sync = true },
	"dirsync":  func(f *fusefs.MountFlags) { f.DirSync = true },
	"dirasync": func(f *fusefs.MountFlags) { f.DirSync = false },
}

// labels are the options that give the tree a label of SELinux.
var labels = []string{"context", "fscontext", "defcontext", "rootcontext"}

// refused are the options that cannot be applied, and what to do.
var refused = map[string]string{
	"auto_unmount": "not supported, because the helper that it starts never ends: have fusermount3 -uz MOUNTPOINT run after sregfs (ExecStopPost= of a systemd unit)",
	"allow_root":   "not supported: use allow_other, which is safe because permissions are always checked",
	"remount":      "not supported: unmount and mount with the other options, or as root have the kernel do it: mount -i -o remount,bind,ro MOUNTPOINT",
	"bind":         "is for mount(8): mount --bind MOUNTPOINT ELSEWHERE, once it is mounted",
	"rbind":        "is for mount(8): mount --rbind MOUNTPOINT ELSEWHERE, once it is mounted",
	"mand":         "Linux has no mandatory locks any more",
}

// applyOptions takes the options of one -o. A flag wins over an option, wherever
// it stands.
func (c *command) applyOptions(text string) error {
	for _, option := range splitOptions(text) {
		if err := c.applyOption(strings.TrimSpace(option)); err != nil {
			return err
		}
	}
	return nil
}

// splitOptions splits at commas that are not in double quotes, as mount(8) does: a label
// of SELinux may have some.
func splitOptions(text string) []string {
	quoted := false
	return strings.FieldsFunc(text, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ',' && !quoted
	})
}

func (c *command) applyOption(option string) error {
	key, value, hasValue := strings.Cut(option, "=")
	name := strings.ReplaceAll(key, "_", "-")
	flag := c.flags.Lookup(name)
	isFlag := func(p string) bool { return strings.HasPrefix(option, p) }
	switch reason := refused[key]; {
	case option == "" || slices.Contains(meaningless, option) || slices.ContainsFunc(meaninglessWithValue, isFlag):
		return nil
	case flagsOf[key] != nil && (!hasValue || key == "user"):
		flagsOf[key](&c.mountFlags)
		return nil
	case slices.Contains(labels, key):
		return c.applyLabel(key, value, option)
	case option == "ro":
		name, value, flag = "read-only", "true", c.flags.Lookup("read-only")
	case reason != "":
		return usagef("-o %s: %s", key, reason)
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

// applyLabel takes an option that the kernel applies for root where SELinux is on.
// mount(8) leaves such options out where it is not.
func (c *command) applyLabel(key, value, option string) error {
	switch _, err := os.Stat("/sys/fs/selinux/enforce"); {
	case value == "":
		return usagef("-o %s: needs a value", key)
	case err != nil:
		return usagef("-o %s: SELinux is not on here: leave it out", key)
	case os.Geteuid() != 0:
		return usagef("-o %s: only root may label a mount", key)
	}
	c.mountFlags.Labels = append(c.mountFlags.Labels, option)
	return nil
}

func (c *command) optionNames() []string {
	var all []string
	c.flags.VisitAll(func(f *pflag.Flag) { all = append(all, strings.ReplaceAll(f.Name, "-", "_")) })
	all = append(all, meaningless...)
	return append(slices.AppendSeq(all, maps.Keys(flagsOf)), labels...)
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
