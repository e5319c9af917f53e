// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// apptainer looks at how containers are started here: setuid, or in a user namespace.
func (m Machine) apptainer(ctx context.Context) []Finding {
	for _, name := range []string{"apptainer", "singularity"} {
		if path, err := m.LookPath(name); err == nil {
			return m.installed(ctx, name, path)
		}
	}
	return []Finding{warn("apptainer", "neither apptainer nor singularity is in $PATH", "install one of them to run images")}
}

func (m Machine) installed(ctx context.Context, name, path string) []Finding {
	built := map[string]string{}
	for _, line := range lines(run(ctx, path, "buildcfg")) {
		key, value, _ := strings.Cut(line, "=")
		built[key] = value
	}
	lib, conf := built["LIBEXECDIR"], built[strings.ToUpper(name)+"_CONF_FILE"]
	info, err := os.Stat(filepath.Join(lib, name, "bin", "starter-suid"))
	suid := err == nil && info.Mode()&fs.ModeSetuid != 0
	settings := map[string]string{}
	text, _ := os.ReadFile(conf)
	for _, line := range lines(string(text)) {
		key, value, _ := strings.Cut(line, "=")
		settings[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	if settings["allow setuid"] == "no" {
		suid = false
	}
	all := []Finding{m.starts(name, path, suid)}
	for _, limit := range []string{"limit container paths", "limit container owners", "limit container groups"} {
		value := settings[limit]
		switch {
		case value == "" || value == "NULL" || !suid: // applied by the setuid program alone
		case limit == "limit container paths" && m.Mount != "" && within(m.Mount, value):
			all = append(all, ok(limit, "it has the mount at "+m.Mount))
		default:
			all = append(all, warn(limit, conf+" allows images of "+value+" only", "add the mount point, or the owner of the files in the mount (--uid), there"))
		}
	}
	return all
}

// within reports whether a path is below one of a list with commas.
func within(path, list string) bool {
	for dir := range strings.SplitSeq(list, ",") {
		if rel, err := filepath.Rel(strings.TrimSpace(dir), path); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return true
		}
	}
	return false
}

// starts is whether an ordinary user can start containers at all.
func (m Machine) starts(name, path string, suid bool) Finding {
	switch {
	case suid:
		return ok(name, path+", setuid: the kernel mounts images")
	case m.UID == 0:
		return ok(name, path)
	}
	zero := func(file string) bool { return strings.TrimSpace(m.read(file)) == "0" }
	switch {
	case zero("/proc/sys/user/max_user_namespaces"), zero("/proc/sys/kernel/unprivileged_userns_clone"):
		return fail(name, path+" is not setuid, and users may have no user namespaces", "sysctl user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1, or install "+name+"-suid")
	case strings.TrimSpace(m.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")) == "1":
		return warn(name, path+" is not setuid, and AppArmor restricts user namespaces", "install the AppArmor profile of "+name+", or "+name+"-suid")
	}
	return ok(name, path+", in user namespaces: squashfuse mounts images")
}
