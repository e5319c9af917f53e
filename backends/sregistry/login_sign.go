// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A kind is what a signature allows.
type kind string

const (
	kindPull   kind = "pull"
	kindPush   kind = "push"
	kindUpload kind = "upload"
	kindDelete kind = "delete"
)

// stampLayout is the time of a signature in UTC: it is good for its hour alone.
const signTimeLayout = "20060102T15Z"

func encodeUser(user string) string { return base64.StdEncoding.EncodeToString([]byte(user)) }

// sign returns the Authorization header, which is also the SREGISTRY_EVENT of
// an upload. The collection stands in it as the server has it.
func sign(user, token string, k kind, stamp string, n name) string {
	mac := hmac.New(sha256.New, []byte(token))
	fmt.Fprintf(mac, "%s|%s|%s|%s|%s|", k, n.collection, stamp, n.container, n.tag)
	return fmt.Sprintf("SREGISTRY-HMAC-SHA256 Credential=%s/%s/%s,Signature=%s",
		k, encodeUser(user), stamp, hex.EncodeToString(mac.Sum(nil)))
}

// A clock is how far that of the server is ahead of ours, as far as an accepted
// signature has shown. The zero value is in time.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time   { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) set(at time.Time) { c.offset.Store(int64(time.Until(at))) }

// signed calls send with a signature; again with that of the hour in which the
// server lives, and again with a fresh token, as long as it is refused. send
// must not have changed anything when it was refused.
func (c *client) signed(ctx context.Context, k kind, n name, send func(auth string) error) error {
	if c.login.user == "" {
		return fmt.Errorf("%w: the remote has no user (set user and token_file)", backends.ErrUnauthorized)
	}
	token, err := c.login.get(ctx, "")
	if err != nil {
		return err
	}
	try := func(token string, at time.Time) error { return send(sign(c.login.user, token, k, signTime(at), n)) }
	at := c.clock.now()
	if err = try(token, at); k == kindPull && shut(err) {
		if fresh, noToken := c.login.get(ctx, token); noToken == nil {
			err = try(fresh, at) // which another login may be allowed
		}
	}
	if !k.refused(err) {
		return err
	}
	other, told := neighbour(at, err)
	if k == kindUpload && !told {
		return c.notAccepted(ctx, k, err) // a whole image is not sent again for a guess
	}
	if !other.IsZero() {
		again := try(token, other)
		if !k.refused(again) && told {
			c.clock.set(other)
		}
		if !k.refused(again) || k == kindUpload {
			return c.notAccepted(ctx, k, again)
		}
	}
	if fresh, noToken := c.login.get(ctx, token); noToken == nil {
		err = try(fresh, at)
	}
	return c.notAccepted(ctx, k, err)
}

func signTime(t time.Time) string { return t.UTC().Format(signTimeLayout) }

// hourEdge is how far the clocks of a server and of a proxy before it may be apart.
const hourEdge = 5 // minutes

// neighbour returns the time to sign with when that of at was refused: the server's
// own if it told another hour; the hour that is nearest, if it does not tell its
// time or an hour has just ended; the zero time if it was not the hour.
func neighbour(at time.Time, refusal error) (_ time.Time, told bool) {
	e, ok := errors.AsType[*answerError](refusal)
	switch {
	case ok && !e.date.IsZero() && signTime(e.date) != signTime(at):
		return e.date, true
	case ok && !e.date.IsZero() && at.Minute() >= hourEdge && at.Minute() < 60-hourEdge:
		return time.Time{}, false
	case at.Minute() < 30:
		return at.Add(-time.Hour), false
	}
	return at.Add(time.Hour), false
}

// refused reports whether err can mean a signature that does not hold: the server says
// 400 for it, to a deletion 403, and its upload views break with 500. For a pull 403
// means that the user may not, whatever the signature is.
func (k kind) refused(err error) bool {
	if errors.Is(err, backends.ErrRateLimited) {
		return false
	}
	switch statusOf(err) {
	case http.StatusBadRequest, http.StatusUnauthorized:
		return true
	case http.StatusForbidden:
		return k != kindPull
	case http.StatusInternalServerError:
		return k == kindPush || k == kindUpload
	}
	return false
}

// notAccepted makes of a refusal what it means. That of an upload, which says nothing,
// can mean the login or the collection: the login can be asked about.
func (c *client) notAccepted(ctx context.Context, k kind, err error) error {
	if !k.refused(err) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	if statusOf(err) != http.StatusInternalServerError {
		return fmt.Errorf("%w: the server does not accept the signature: %v", backends.ErrUnauthorized, err)
	}
	if login := c.CheckLogin(ctx); login != nil {
		return login
	}
	return fmt.Errorf("%w: the server refuses the push (a push into a collection needs to be its owner): %v", fs.ErrPermission, err)
}
