// SPDX-License-Identifier: Apache-2.0

package httpx

import (
	"errors"
	"io/fs"
	"net/url"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

func TestAddress(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"https://Lab.Org": "https://lab.org", "lab.org:8443/a/": "https://lab.org:8443/a", "http://127.0.0.1:80/": "http://127.0.0.1:80",
		"https://lab.org/a%2Fb/": "https://lab.org/a%2Fb",
	} {
		if u, err := Address(s); err != nil || u.String() != want {
			t.Errorf("Address(%q) = %v, %v, want %s", s, u, err, want)
		}
	}
	for _, s := range []string{
		"", "ftp://lab.org", "https://", "https://me:hunter2@lab.org", "https://lab.org/?a=hunter2", "https://lab.org/?", "https://lab.org/#x",
		"https://me:hunter2@ lab.org",
	} {
		if u, err := Address(s); !errors.Is(err, fs.ErrInvalid) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Address(%q) = %v, %v", s, u, err)
		}
	}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	home := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, c := range []struct{ home, address, want string }{
		{"https://lab.org/api", "https://store.org/x?sig=1", "https://store.org/x?sig=1"},
		{"https://lab.org/api", "/x", "https://lab.org/x"},
		{"http://127.0.0.1:1", "http://10.0.0.1/x", "http://10.0.0.1/x"},
		{"http://lab.org", "https://store.org/", "https://store.org/"},
		{"https://lab.org", "http://store.org/", ""},
		{"https://lab.org", "https://127.0.0.1/", ""},
		{"https://lab.org", "https://127.1/", ""},
		{"https://lab.org", "https://0x7f000001/", ""},
		{"https://lab.org", "https://[::1]/", ""},
		{"https://lab.org", "https://169.254.169.254/latest", ""},
		{"https://lab.org", "https://metadata.localhost./", ""},
		{"https://lab.org", "https://me:pw@store.org/", ""},
		{"https://lab.org", "file:///etc/passwd", ""},
		{"https://lab.org", "https:///x", ""},
		{"https://lab.org", "\x7f", ""},
	} {
		u, err := Target(home(c.home), c.address)
		switch {
		case c.want == "" && !errors.Is(err, backends.ErrBadAnswer):
			t.Errorf("Target(%s, %q) = %v, %v, want ErrBadAnswer", c.home, c.address, u, err)
		case c.want != "" && (err != nil || u.String() != c.want):
			t.Errorf("Target(%s, %q) = %v, %v, want %s", c.home, c.address, u, err, c.want)
		}
	}
}
