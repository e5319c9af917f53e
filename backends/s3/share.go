// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7/pkg/signer"

	"github.com/sregfs/sregfs/backends"
)

// linkLife is the longest that an address can be signed for.
const linkLife = 7 * 24 * time.Hour

// Share implements backends.Sharer: the link is the signed address of the object, which is good
// for seven days, or for as long as the login is if that is shorter. Without a login the object
// is everybody's, and so is its address. Who has replaced the object since has replaced
// what the link gives.
//
// Errors: errors.ErrUnsupported if with is not empty: send that person the link.
func (c *client) Share(ctx context.Context, img backends.Image, with string) (string, error) {
	if with != "" {
		return "", fmt.Errorf("%w: an object is shared by its link: ask for that, and send it to %q", errors.ErrUnsupported, with)
	}
	f, err := c.Current(ctx, img)
	if err != nil {
		return "", err
	}
	b := c.bucket
	login, err := b.keys.get(ctx)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.home.String(), nil)
	if err != nil {
		return "", err
	}
	req.URL = b.address(b.key(f.Path))
	if img.Ref.Version != "" {
		req.URL.RawQuery = byID(f.ID).Encode()
	}
	switch life := int64(linkLife / time.Second); {
	case login.AccessKeyID == "":
	case b.old:
		req = signer.PreSignV2(*req, login.AccessKeyID, login.SecretAccessKey, life, b.virtual)
	default:
		req = signer.PreSignV4(*req, login.AccessKeyID, login.SecretAccessKey, login.SessionToken, b.region, life)
	}
	return req.URL.String(), nil
}
