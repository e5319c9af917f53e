// SPDX-License-Identifier: Apache-2.0

package swift

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // where the service takes nothing better
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/sregfs/sregfs/backends"
)

const linkDays = 7 // Config.LinkDays, if it is not set

// Share implements backends.Sharer: the link is a temporary URL (Swift's API, "Temporary URL
// middleware"), which everybody who has it can read by for some days. Nothing is changed there:
// who has the key revokes all such links with another one.
//
// Errors: errors.ErrUnsupported if there is no key, and if with is not empty.
func (c *client) Share(ctx context.Context, img backends.Image, with string) (string, error) {
	if with != "" {
		return "", fmt.Errorf("%w: Swift shares by a link: ask for that, and send it to %q", errors.ErrUnsupported, with)
	}
	f, err := c.Locate(ctx, img)
	if err != nil {
		return "", err
	}
	now, h, err := c.store.head(ctx, f.Path, newest)
	switch {
	case err != nil:
		return "", err
	case now.Version != img.Version:
		return "", backends.ErrChanged
	}
	o := c.store.at(f.Path)
	key, err := c.store.tempKey(ctx, o.container, isLarge(h))
	if err != nil {
		return "", err
	}
	l, err := c.store.capabilities(ctx)
	if err != nil {
		return "", err
	}
	s, err := c.store.login.get(ctx)
	if err != nil {
		return "", err
	}
	days := time.Duration(cmp.Or(c.store.login.cfg.LinkDays, linkDays))
	return tempURL(o.under(s.storage), key, l.TempURL.Digests, time.Now().Add(days*24*time.Hour)), nil
}

// tempURL signs an address. The path is signed as it is decoded.
func tempURL(u *url.URL, key string, digests []string, until time.Time) string {
	digest := sha256.New
	if len(digests) > 0 && !slices.Contains(digests, "sha256") {
		digest = sha1.New // older Swifts
	}
	sum := hmac.New(digest, []byte(key))
	expires := strconv.FormatInt(until.Unix(), 10)
	fmt.Fprintf(sum, "GET\n%s\n%s", expires, u.Path)
	u.RawQuery = url.Values{"temp_url_sig": {hex.EncodeToString(sum.Sum(nil))}, "temp_url_expires": {expires}}.Encode()
	return u.String()
}

// tempKey returns the key of a container or, if it has none, of the account. Only their owners
// are told. The segments of a large object are in another container, so that needs the account's.
//
// Errors: errors.ErrUnsupported if there is none.
func (s *store) tempKey(ctx context.Context, container string, large bool) (string, error) {
	if key := s.login.cfg.TempURLKey; key != "" {
		return key, nil
	}
	all := []object{{container: container}, {}}
	if large {
		all = all[1:]
	}
	for _, o := range all {
		resp, err := s.do(ctx, http.MethodHead, o, nil, nil, http.StatusForbidden)
		if err != nil {
			return "", err
		}
		resp.Body.Close()
		level := "Account"
		if o.container != "" {
			level = "Container"
		}
		for _, which := range []string{"Temp-Url-Key", "Temp-Url-Key-2"} {
			if key := resp.Header.Get("X-" + level + "-Meta-" + which); key != "" {
				return key, nil
			}
		}
	}
	return "", fmt.Errorf("%w: the account has no key for links, or does not tell it (set one: swift post -m Temp-URL-Key:SECRET; or set temp_url_key)",
		errors.ErrUnsupported)
}
