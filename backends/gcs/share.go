// SPDX-License-Identifier: Apache-2.0

package gcs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/google"
)

// linkLife is how long a signed link works: Google allows no more.
const linkLife = 7 * 24 * time.Hour

// Share implements backends.Sharer. With the key of a service account it signs a link that
// works for a week, to this version. With the setting "public" everybody may read the object
// from then on; without a login everybody may already. Somebody with an e-mail address may
// read it after a login.
//
// Errors: errors.ErrUnsupported if there is no key, and the image is not to be public.
func (c *client) Share(ctx context.Context, img backends.Image, with string) (string, error) {
	f, err := c.Locate(ctx, img)
	if err != nil {
		return "", err
	}
	s := c.store
	path := "/" + s.bucket + "/" + slashed(s.prefix+f.Path)
	host, entity := "https://storage.cloud.google.com", "user-"+with // that host asks for a login
	if with == "" {
		host, entity = s.base, "allUsers"
	}
	if with != "" || s.public {
		if err := s.allow(ctx, f.Path, img.Version, entity); err != nil {
			return "", err
		}
		return host + path, nil
	}
	known, err := s.login.Known(ctx)
	switch {
	case err != nil:
		return "", err
	case !known:
		return host + path, nil
	}
	signer, err := s.login.Signer(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		return "", fmt.Errorf("%w: a link is signed by the key of a service account, and this login is none: "+
			"set credentials to the file of one, or public = true if everybody may read what you share, or name somebody's e-mail address", errors.ErrUnsupported)
	}
	if err != nil {
		return "", err
	}
	return sign(signer, s.base, path, url.Values{"generation": {img.Version}}, time.Now(), linkLife)
}

// slashed escapes a name in an address that shows its folders.
func slashed(name string) string { return strings.ReplaceAll(escape(name), "%2F", "/") }

// allow lets somebody read a version of an object.
// https://cloud.google.com/storage/docs/json_api/v1/objectAccessControls/insert
func (s *store) allow(ctx context.Context, path, generation, entity string) error {
	body := struct {
		Entity string `json:"entity"`
		Role   string `json:"role"`
	}{entity, "READER"}
	err := s.call(ctx, http.MethodPost, s.object(path, "/acl", url.Values{"generation": {generation}}), body, nil)
	switch google.Status(err) {
	case http.StatusBadRequest:
		return fmt.Errorf("%w: the bucket lets nobody be allowed single objects (uniform bucket-level access): %v", fs.ErrPermission, err)
	case http.StatusPreconditionFailed:
		return fmt.Errorf("%w: the bucket or its organization forbids it: %v", fs.ErrPermission, err)
	}
	return err
}

// sign returns an address that whoever knows it can read for that long (V4, at most a week).
// path is escaped, but for its slashes.
// https://cloud.google.com/storage/docs/authentication/signatures
func sign(signer google.Signer, base, path string, q url.Values, now time.Time, life time.Duration) (string, error) {
	at := now.UTC().Format("20060102T150405Z")
	scope := at[:8] + "/auto/storage/goog4_request"
	_, host, _ := strings.Cut(base, "://")
	q.Set("X-Goog-Algorithm", "GOOG4-RSA-SHA256")
	q.Set("X-Goog-Credential", signer.Email+"/"+scope)
	q.Set("X-Goog-Date", at)
	q.Set("X-Goog-Expires", strconv.Itoa(int(life.Seconds())))
	q.Set("X-Goog-SignedHeaders", "host")
	query := strings.ReplaceAll(q.Encode(), "+", "%20") // sorted by name
	request := strings.Join([]string{http.MethodGet, path, query, "host:" + host, "", "host", "UNSIGNED-PAYLOAD"}, "\n")
	sum := sha256.Sum256([]byte(request))
	signature, err := signer.Sign([]byte("GOOG4-RSA-SHA256\n" + at + "\n" + scope + "\n" + hex.EncodeToString(sum[:])))
	if err != nil {
		return "", err
	}
	return base + path + "?" + query + "&X-Goog-Signature=" + hex.EncodeToString(signature), nil
}
