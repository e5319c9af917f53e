// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// newCommand returns a command that has parsed these flags.
func newCommand(t *testing.T, flags ...string) *command {
	t.Helper()
	c := &command{args: []string{"sregfs"}}
	if err := c.root().ParseFlags(flags); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestApplyOptions(t *testing.T) {
	t.Parallel()
	c := newCommand(t, "--push=sync", "--list-ttl=7s")
	const options = "rw,defaults,_netdev,noauto,user,nofail,x-systemd.device-timeout=5s,X-mount.mkdir,comment=a b," +
		"nosuid,nodev,dev,suid,exec,noatime,default_permissions,fsname=x," +
		"ro,allow_other,cache_size=2G,list_ttl=5s,push=async,uid=7,config=/etc/sregfs.toml,,"
	if err := c.applyOptions(options); err != nil {
		t.Fatal(err)
	}
	s := c.settings
	if !s.ReadOnly || !s.AllowOther || s.CacheSize != 2<<30 || s.UID != 7 || c.config != "/etc/sregfs.toml" {
		t.Errorf("settings %+v, config %q", s, c.config)
	}
	if s.Push != "sync" || s.ListTTL != 7*time.Second {
		t.Errorf("an option won over a flag: %+v", s)
	}
}

func TestApplyOptions_bad(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"auto_unmount", "allow_root", "lits_ttl=5s", "list_ttl", "list_ttl=often", "push=later", "foreground",
		"help", "option=ro", "remote", "remote=lab=oci;token=x", "user_id"} {
		c := newCommand(t)
		if err := c.applyOptions("rw," + text); err == nil {
			t.Errorf("-o %s: no error", text)
		}
	}
}

// The ways in which mount(8), systemd and mount.fuse3 call a helper.
func TestHelperArgs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   []string
		want []string
		fake bool
	}{
		{[]string{"src", "/mnt", "-o", "rw,noauto"}, []string{"src", "/mnt", "-o", "rw,noauto"}, false},
		{[]string{"src", "/mnt", "-sfnv", "-o", "rw"}, []string{"src", "/mnt", "-v", "-o", "rw"}, true},
		{[]string{"src", "/mnt", "-n", "-orw", "-t", "fuse.sregfs"}, []string{"src", "/mnt", "-o", "rw"}, false},
		{[]string{"-r", "-N", "/proc/1/ns/mnt", "src", "/mnt"}, []string{"-o", "ro", "src", "/mnt"}, false},
		{[]string{"src", "/mnt", "-w", "--push=async"}, []string{"src", "/mnt", "--push=async"}, false},
		{[]string{"src", "/mnt", "-x"}, []string{"src", "/mnt", "-x"}, false},
		{[]string{"src", "/mnt", "-o"}, []string{"src", "/mnt", "-o", ""}, false},
	} {
		got, fake := helperArgs(c.in)
		if diff := cmp.Diff(c.want, got); diff != "" || fake != c.fake {
			t.Errorf("helperArgs(%q) = %q, %v, want %q, %v", c.in, got, fake, c.want, c.fake)
		}
	}
}
