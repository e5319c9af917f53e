// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func TestLoad_hosts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		file string
		env  map[string]string
		args []string
		want string
	}{
		{"", nil, nil, "any"},
		{`hosts = "none"`, nil, nil, "none"},
		{`hosts = []`, nil, nil, "none"},
		{`hosts = ["quay.io", "cr.example.com:5000"]`, nil, nil, "quay.io,cr.example.com:5000"},
		{`hosts = ["any", "setup.py"]`, nil, nil, "any,setup.py"},
		{`allow_other = true`, nil, nil, "none"},
		{"", nil, []string{"--allow-other"}, "none"},
		{"", map[string]string{"SREGFS_ALLOW_OTHER": "1"}, nil, "none"},
		{"allow_other = true\nhosts = \"any\"", nil, nil, "any"},
		{"allow_other = true\nhosts = [\"quay.io\"]", nil, nil, "quay.io"},
		{`hosts = "none"`, map[string]string{"SREGFS_HOSTS": "ghcr.io"}, nil, "ghcr.io"},
		{`hosts = "none"`, map[string]string{"SREGFS_HOSTS": "ghcr.io"}, []string{"--hosts=quay.io;GCR.io"}, "quay.io,gcr.io"},
	} {
		s, err := load(t, tc.file, tc.env, tc.args...)
		if err != nil || s.Hosts.String() != tc.want {
			t.Errorf("%q %v %q: %s, %v; want %s", tc.file, tc.env, tc.args, s.Hosts.String(), err, tc.want)
		}
	}
	for _, bad := range []string{"quay", "localhost", "10.0.0.1", "none,quay.io", "http://quay.io", "*.io"} {
		if _, err := load(t, "", map[string]string{"SREGFS_HOSTS": bad}); err == nil || !strings.Contains(err.Error(), "no host on the Internet") {
			t.Errorf("--hosts=%s: %v", bad, err)
		}
	}
}

func TestHosts_Check(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		set, host string
		want      error
	}{
		{"any", "quay.io", nil}, {"any", "setup.py", fs.ErrInvalid}, {"any,setup.py", "setup.py", nil}, {"any", "localhost", fs.ErrInvalid},
		{"none", "quay.io", fs.ErrNotExist}, {"none", ".git", fs.ErrInvalid}, {"ghcr.io", "quay.io", fs.ErrNotExist},
		{"ghcr.io", "ghcr.io", nil}, {"ghcr.io", "ghcr.io:8443", fs.ErrNotExist}, {"ghcr.io", "x.ghcr.io", fs.ErrNotExist},
	} {
		var h Hosts
		if err := h.Set(tc.set); err != nil {
			t.Fatal(err)
		}
		if err := h.Check(tc.host); !errors.Is(err, tc.want) {
			t.Errorf("hosts = %q, %s: %v, want %v", tc.set, tc.host, err, tc.want)
		}
	}
}
