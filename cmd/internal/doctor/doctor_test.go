// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// machine returns one whose root has these files, and whose PATH these programs: what a file
// of theirs says is what they print.
func machine(t *testing.T, files map[string]string) Machine {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return Machine{Root: root, UID: 1000, State: root, Mount: "/images", LookPath: func(name string) (string, error) {
		path := filepath.Join(root, "usr/bin", name)
		_, err := os.Stat(path)
		return path, err
	}}
}

func want(t *testing.T, name string, f Finding, result Result, text string) {
	t.Helper()
	if f.Result != result || !strings.Contains(f.Detail+": "+f.Remedy, text) || (result == OK) != (f.Remedy == "") {
		t.Errorf("%s: %+v, want %s %q", name, f, result, text)
	}
}

func TestDevice(t *testing.T) {
	t.Parallel()
	m := machine(t, nil)
	want(t, "none", m.device(), Fail, "modprobe fuse")
	m = machine(t, map[string]string{"dev/fuse": ""})
	want(t, "a file", m.device(), Fail, "is no device")
	if os.Geteuid() != 0 {
		if err := os.Chmod(m.path("dev/fuse"), 0); err != nil {
			t.Fatal(err)
		}
		want(t, "closed", m.device(), Fail, "chmod 666")
	}
	if err := errors.Join(os.Remove(m.path("dev/fuse")), os.Symlink("/dev/null", m.path("dev/fuse"))); err != nil {
		t.Fatal(err)
	}
	want(t, "a device", m.device(), OK, "/dev/fuse")
}

func TestHelper(t *testing.T) {
	t.Parallel()
	m := machine(t, nil)
	want(t, "none", m.helper(), Fail, "fuse3")
	m.UID = 0
	want(t, "none, for root", m.helper(), Warn, "fuse3")
	m = machine(t, map[string]string{"usr/bin/fusermount3": ""})
	want(t, "not setuid", m.helper(), Fail, "chmod 4755")
	if err := os.Chmod(m.path("usr/bin/fusermount3"), 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		want(t, "setuid of a user", m.helper(), Fail, "chown root")
		return
	}
	want(t, "setuid", m.helper(), OK, "fusermount3")
	if err := os.Chown(m.path("usr/bin/fusermount3"), 1234, 1234); err != nil {
		t.Fatal(err)
	}
	want(t, "setuid of a user", m.helper(), Fail, "chown root")
}

func TestOtherUsers(t *testing.T) {
	t.Parallel()
	m := machine(t, map[string]string{"etc/fuse.conf": "#user_allow_other\nmount_max = 1000\n"})
	want(t, "not wanted", m.otherUsers(), OK, "only")
	m.AllowOther = true
	want(t, "wanted", m.otherUsers(), Fail, "add a line user_allow_other")
	m.UID = 0
	want(t, "root", m.otherUsers(), OK, "root")
	m = machine(t, map[string]string{"etc/fuse.conf": " user_allow_other # yes"})
	m.AllowOther = true
	want(t, "set", m.otherUsers(), OK, "is set")
}

func TestPassthrough(t *testing.T) {
	t.Parallel()
	for release, tt := range map[string]struct {
		uid    int
		result Result
	}{"5.14.0-362.el9": {0, Warn}, "6.8.0": {1000, Warn}, "6.9.1-arch": {0, OK}, "6.10.0": {1000, OK}, "7.0.0": {0, OK}, "": {0, Warn}} {
		m := machine(t, map[string]string{"proc/sys/kernel/osrelease": release + "\n"})
		m.UID = tt.uid
		want(t, release, m.passthrough(), tt.result, "Linux "+release)
	}
}

func TestLocate(t *testing.T) {
	t.Parallel()
	for text, result := range map[string]Result{
		"PRUNEFS = \"NFS fuse.sshfs\"\n":                       Warn,
		"# PRUNEFS = \"fuse.sregfs\"\n":                        Warn,
		"PRUNEFS=\"NFS fuse.sregfs\"\nPRUNEPATHS=\"/tmp\"\n":   OK,
		"PRUNEFS = \"NFS\"\nPRUNEPATHS = \"/tmp /images\"\n":   OK,
		"PRUNEFS = \"NFS\"\nPRUNEPATHS = \"/tmp /images/x\"\n": Warn,
	} {
		m := machine(t, map[string]string{"etc/updatedb.conf": text})
		want(t, text, m.locate(), result, "")
	}
	want(t, "none", machine(t, nil).locate(), OK, "there is no")
}

func TestApptainer(t *testing.T) {
	t.Parallel()
	all := machine(t, nil).apptainer(t.Context())
	want(t, "none", all[0], Warn, "install")
	build := func(limits string, mode os.FileMode, proc map[string]string) Machine {
		m := machine(t, proc)
		write := func(name, text string, mode os.FileMode) {
			path := m.path(name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755), os.Chmod(path, mode)); err != nil {
				t.Fatal(err)
			}
		}
		write("usr/bin/apptainer", "#!/bin/sh\necho LIBEXECDIR="+m.path("lib")+"\necho APPTAINER_CONF_FILE="+m.path("conf")+"\n", 0o755)
		write("lib/apptainer/bin/starter-suid", "", mode)
		write("conf", "allow setuid = yes\n# limit container paths = /x\n"+limits, 0o644)
		return m
	}
	suid := 0o755 | os.ModeSetuid
	for _, tt := range []struct {
		name   string
		limits string
		mode   os.FileMode
		proc   map[string]string
		n      int
		result Result
		text   string
	}{
		{"setuid", "limit container paths = NULL\n", suid, nil, 1, OK, "setuid"},
		{"paths without the mount", "limit container paths = /scratch, /image\n", suid, nil, 2, Warn, "allows images of /scratch, /image only"},
		{"paths with the mount", "limit container paths = /scratch, /images\n", suid, nil, 2, OK, "/images"},
		{"owners", "limit container owners = root\n", suid, nil, 2, Warn, "allows images of root"},
		{"setuid not allowed", "allow setuid = no\nlimit container owners = root\n", suid, nil, 1, OK, "user namespaces"},
		{"in user namespaces", "limit container owners = root\n", 0o755, nil, 1, OK, "user namespaces"},
		{"without any", "", 0o755, map[string]string{"proc/sys/user/max_user_namespaces": "0\n"}, 1, Fail, "apptainer-suid"},
		{"not for users", "", 0o755, map[string]string{"proc/sys/kernel/unprivileged_userns_clone": "0\n"}, 1, Fail, "sysctl"},
		{"AppArmor", "", 0o755, map[string]string{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, 1, Warn, "AppArmor"},
	} {
		all := build(tt.limits, tt.mode, tt.proc).apptainer(t.Context())
		if len(all) != tt.n {
			t.Errorf("%s: %+v, want %d", tt.name, all, tt.n)
			continue
		}
		want(t, tt.name, all[tt.n-1], tt.result, tt.text)
	}
}

func TestDisk(t *testing.T) {
	t.Parallel()
	const g = 1 << 30
	good := disk{free: 100 * g, total: 200 * g, inodes: 1000, files: 2000}
	for name, tt := range map[string]struct {
		change func(*disk)
		min    int64
		result Result
		text   string
	}{
		"good":                   {func(*disk) {}, 0, OK, "100 GiB of 200 GiB free"},
		"full":                   {func(d *disk) { d.free = 0 }, 0, Fail, "make room"},
		"less than min_free":     {func(d *disk) { d.free = 10 * g }, 20 * g, Fail, "make room"},
		"nearly full":            {func(d *disk) { d.free = g }, 0, Warn, "make room"},
		"read-only":              {func(d *disk) { d.readOnly = true }, 0, Fail, "read-only"},
		"no inodes":              {func(d *disk) { d.inodes = 3 }, 0, Fail, "3 of 2000 inodes free"},
		"few inodes":             {func(d *disk) { d.inodes, d.files = 1000, 200_000 }, 0, Warn, "inodes free"},
		"inodes are not counted": {func(d *disk) { d.inodes, d.files = 0, 0 }, 0, OK, ""},
		"quota":                  {func(d *disk) { d.used, d.limit = g, 10*g }, 0, OK, "1.0 GiB of a quota of 10 GiB used"},
		"much of the quota":      {func(d *disk) { d.used, d.limit = 95*g, 100*g }, 0, Warn, "quota"},
		"all of the quota":       {func(d *disk) { d.used, d.limit = 10*g, 10*g }, 0, Fail, "quota raised"},
	} {
		d := good
		tt.change(&d)
		want(t, name, d.finding("disk", "/x", tt.min), tt.result, tt.text)
	}
	m := machine(t, nil)
	m.State, m.Cache = filepath.Join(m.Root, "not/made/yet"), ""
	if all := m.disks(); len(all) != 1 || !strings.Contains(all[0].Detail, "not/made/yet: ") || !strings.Contains(all[0].Detail, " free") {
		t.Errorf("%+v", all)
	}
}

func TestIndex(t *testing.T) {
	t.Parallel()
	m := machine(t, nil)
	want(t, "here", m.index(), OK, m.Root)
	m.State = ""
	want(t, "nowhere", m.index(), Fail, "SREGFS_HOME")
}
