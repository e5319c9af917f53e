// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// noDomains are last labels that the list of public suffixes has and under which nothing
// is found on the Internet: RFC 7686, RFC 3172.
var noDomains = []string{"onion", "arpa"}

// CheckHost returns fs.ErrInvalid, with the reason, unless name can be that of a
// service on the Internet: "quay.io", "registry.example.com:5000". It makes no request
// and asks no name server. By RFC 1123 a host's name is made of labels of letters, digits
// and hyphens; here in lower case, so that a host has one name; and the last label is one
// under which names are registered. So "localhost", "registry.local" and addresses are none,
// nor is nearly any file's name.
func CheckHost(name string) error {
	bad := func(why string) error {
		return fmt.Errorf("%w: %q is no host on the Internet: %s", fs.ErrInvalid, name, why)
	}
	host, port, hasPort := strings.Cut(name, ":")
	if n, err := strconv.ParseUint(port, 10, 16); hasPort && (err != nil || n == 0 || port[0] == '0') {
		return bad("the port is no number from 1 to 65535")
	}
	if port == "443" {
		return bad("write it without :443, which is meant anyway")
	}
	labels := strings.Split(host, ".")
	if len(host) > 253 || len(labels) < 2 {
		return bad("a host has a dot in its name, and at most 253 characters")
	}
	if net.ParseIP(host) != nil {
		return bad("it is an address")
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return bad("its parts are lower-case letters, digits and hyphens")
		}
	}
	last := labels[len(labels)-1]
	suffix, managed := publicsuffix.PublicSuffix(host)
	if !managed && !strings.Contains(suffix, ".") || slices.Contains(noDomains, last) {
		return bad("nothing ends in ." + last + " there")
	}
	return nil
}

// domains are the top-level domains that programs' files end in, too, beside those of
// foreign.
var domains = strings.Fields(`
	ac am as build cc cf ch cl data do dot fm gd id in inc la map md me mk ml mm mo mov ms pm properties ps pt pub
	run sc sh so st sv target tf tm vi work xyz zip zone`)

// IsFileLike reports whether a host's name reads as that of a file, too: one of two
// labels, the last of which is an extension of files: "setup.py", "main.nf", "build.sh".
func IsFileLike(host string) bool {
	_, last, _ := strings.Cut(host, ".")
	if host == "ttl.sh" { // a registry that many use
		return false
	}
	return slices.Contains(domains, last) || slices.Contains(foreign, last)
}
