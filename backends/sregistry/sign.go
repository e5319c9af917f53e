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
	"sync"
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
const stampLayout = "20060102T15Z"

func encodeUser(user string) string { return base64.StdEncoding.EncodeToString([]byte(user)) }

// sign returns the Authorization header, which is also the SREGISTRY_EVENT of
// an upload. The collection stands in it as the server has it.
func sign(user, token string, k kind, stamp string, n name) string {
	mac := hmac.New(sha256.New, []byte(token))
	fmt.Fprintf(mac, "%s|%s|%s|%s|%s|", k, n.collection, stamp, n.container, n.tag)
	return fmt.Sprintf("SREGISTRY-HMAC-SHA256 Credential=%s/%s/%s,Signature=%s",
		k, encodeUser(user), stamp, hex.EncodeToString(mac.Sum(nil)))
}

// A login has the token of a user. It is read when it is first needed, and
// again when it was refused.
type login struct {
	user   string
	secret backends.SecretFunc

	mu    sync.Mutex // guards the field below
	token string
}

// get returns the token; a fresh one if the last is the one refused.
// Errors: backends.ErrUnauthorized if there is none, or only the refused one.
func (l *login) get(ctx context.Context, refused string) (string, error) {
	if l.secret == nil {
		return "", fmt.Errorf("%w: the remote has no token (set user and token_file)", backends.ErrUnauthorized)
	}
	l.mu.Lock()
	token := l.token
	l.mu.Unlock()
	if token != "" && token != refused {
		return token, nil
	}
	token, err := l.secret(ctx, refused != "")
	if err != nil {
		return "", err
	}
	if token == "" || token == refused {
		return "", fmt.Errorf("%w: the server refuses the token", backends.ErrUnauthorized)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token = token
	return token, nil
}

// known reports whether there is a token to try with.
func (l *login) known() bool { return l.secret != nil }

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
	now := time.Now()
	err = send(sign(c.login.user, token, k, stamp(now), n))
	if !k.refused(err) {
		return err
	}
	stamped, told := neighbour(now, err)
	if k == kindUpload && !told {
		return notAccepted(err) // a whole image is not sent again for a guess
	}
	again := send(sign(c.login.user, token, k, stamp(stamped), n))
	if !k.refused(again) || k == kindUpload {
		return notAccepted(again)
	}
	fresh, noToken := c.login.get(ctx, token)
	if noToken != nil {
		return notAccepted(err)
	}
	return notAccepted(send(sign(c.login.user, fresh, k, stamp(now), n)))
}

func stamp(t time.Time) string { return t.UTC().Format(stampLayout) }

// neighbour returns the time to sign with when that of now was refused: the
// server's own if it told another, or the hour that is nearest.
func neighbour(now time.Time, refusal error) (_ time.Time, told bool) {
	if e, ok := errors.AsType[*answerError](refusal); ok && !e.date.IsZero() && stamp(e.date) != stamp(now) {
		return e.date, true
	}
	if now.Minute() < 30 {
		return now.Add(-time.Hour), false
	}
	return now.Add(time.Hour), false
}

// refused reports whether err can mean a signature that does not hold. Besides
// 401 and 403 the server says 400 for it, and its upload views break with 500.
func (k kind) refused(err error) bool {
	switch statusOf(err) {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return true
	case http.StatusInternalServerError:
		return k == kindPush || k == kindUpload
	}
	return false
}

// notAccepted makes of a refusal what it most likely means.
func notAccepted(err error) error {
	if statusOf(err) != http.StatusBadRequest || errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w: the server does not accept the signature: %v", backends.ErrUnauthorized, err)
}
