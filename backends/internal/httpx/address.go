// SPDX-License-Identifier: Apache-2.0

package httpx

import (
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// Address reads where a service is, as a configuration says it: "HOST[:PORT][/PATH]",
// with "https://" or "http://" before it, else https is meant. The host comes back
// in lower case, the path without a slash at its end and without what stands in apis:
// an address is often copied with the path behind it that its API has ("/v2/").
//
// Errors: fs.ErrInvalid, also for a user name and a password, which belong elsewhere.
func Address(s string, apis ...string) (*url.URL, error) {
	if !strings.Contains(s, "://") && s != "" {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || s == "" || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("%w: url %q (want \"https://HOST[:PORT]\")", fs.ErrInvalid, hidden(s))
	case u.User != nil:
		return nil, fmt.Errorf("%w: url with a password: use user and token_file", fs.ErrInvalid)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("%w: url %q has more than an address", fs.ErrInvalid, backends.Redact(s))
	}
	u.Host = strings.ToLower(u.Host)
	for _, api := range append([]string{""}, apis...) {
		u.Path = strings.TrimRight(strings.TrimSuffix(u.Path, api), "/")
		u.RawPath = strings.TrimRight(strings.TrimSuffix(u.RawPath, api), "/")
	}
	return u, nil
}

// hidden takes what may be a password out of a text that is no URL.
func hidden(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return "…" + s[i:]
	}
	return s
}

// Target reads an address that a service at home has put into an answer: where an
// object is, where to go on. It has no redirect's protection, so the same is asked of
// it: no step from https down to http, and none from the Internet into a private
// network, as far as its spelling tells.
//
// Errors: backends.ErrBadAnswer.
func Target(home *url.URL, address string) (*url.URL, error) {
	u, err := home.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil:
		return nil, fmt.Errorf("%w: no address to go on at", backends.ErrBadAnswer)
	case u.Scheme == "http" && home.Scheme == "https":
		return nil, fmt.Errorf("%w: sent from https to %s, refused", backends.ErrBadAnswer, backends.Origin(u))
	case !backends.PublicHost(u.Hostname()) && backends.PublicHost(home.Hostname()):
		return nil, fmt.Errorf("%w: sent to the private address %s, refused", backends.ErrBadAnswer, backends.Origin(u))
	}
	return u, nil
}
