// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// Keys finds the login. The first of these counts:
//
//	the stored login (sreg login, token_file, token_env, token_command)
//	none, with anonymous
//	the profile that a setting names, or what the metadata service of the machine gives, with instance
//	AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
//	AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN, and AWS_CONTAINER_CREDENTIALS_*
//	the profile AWS_PROFILE, or default, in ~/.aws
//	none
//
// The metadata service is asked only where a setting says that there is one: elsewhere its
// address is somebody else's, or nobody's, which takes long to find out.
type keys struct {
	user    string
	session string              // goes with user, where it is in the environment too
	secret  backends.SecretFunc // nil: the chain below
	renewal httpx.Renewal
	http    *http.Client

	mu    sync.Mutex // guards what follows: minio-go waits with a lock of its own, without a context
	chain []origin
	found credentials.Provider
	now   credentials.Value
}

func newKeys(env backends.Env, cfg Config, region string, hc *http.Client) *keys {
	k := &keys{user: env.User, secret: env.Secret, http: hc}
	iam := origin{&credentials.IAM{Region: region}, true}
	id, secret, session := env.Getvar("AWS_ACCESS_KEY_ID"), env.Getvar("AWS_SECRET_ACCESS_KEY"), env.Getvar("AWS_SESSION_TOKEN")
	if env.User != "" && env.User == id {
		k.session = session
	}
	switch {
	case cfg.Anonymous:
		k.secret = nil
	case cfg.Profile != "":
		k.chain = []origin{{&credentials.FileAWSCredentials{Profile: cfg.Profile}, true}}
	case cfg.Instance:
		k.chain = []origin{iam}
	case id != "" && secret != "":
		k.now = credentials.Value{AccessKeyID: id, SecretAccessKey: secret, SessionToken: session}
	default:
		if env.Getvar("AWS_WEB_IDENTITY_TOKEN_FILE")+env.Getvar("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")+env.Getvar("AWS_CONTAINER_CREDENTIALS_FULL_URI") != "" {
			k.chain = append(k.chain, iam)
		}
		k.chain = append(k.chain, origin{&credentials.FileAWSCredentials{}, false})
	}
	return k
}

// An origin may have a login. Where it must, its error is what there is to say.
type origin struct {
	credentials.Provider
	must bool
}

// get returns the login; without an AccessKeyID there is none.
//
// Errors: backends.ErrUnauthorized.
func (k *keys) get(ctx context.Context) (credentials.Value, error) {
	if k.secret != nil {
		text, err := k.secret(ctx, false)
		if err != nil {
			return credentials.Value{}, err
		}
		return k.parse(text)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.chain) == 0 || k.found != nil && !k.found.IsExpired() {
		return k.now, nil
	}
	return k.look(ctx)
}

// look asks the providers in turn. k.mu is held.
func (k *keys) look(ctx context.Context) (credentials.Value, error) {
	for _, from := range k.chain {
		v, err := from.RetrieveWithCredContext(&credentials.CredContext{Client: k.http, Context: ctx})
		if ctx.Err() != nil {
			return v, ctx.Err()
		}
		if err == nil && v.AccessKeyID != "" {
			k.found, k.now = from, v
			return v, nil
		}
		if err != nil && from.must {
			return v, fmt.Errorf("%w: %v", backends.ErrUnauthorized, err)
		}
	}
	return credentials.Value{}, nil
}

// again returns another login than had, if err can mean that had is too old.
func (k *keys) again(ctx context.Context, had credentials.Value, err error) (credentials.Value, bool) {
	if had.AccessKeyID == "" || errors.Is(err, fs.ErrNotExist) {
		return had, false
	}
	if k.secret == nil {
		if !errors.Is(err, backends.ErrUnauthorized) {
			return had, false
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if same(k.now, had) {
			if next, err := k.look(ctx); err != nil || next.AccessKeyID == "" {
				return had, false
			}
		}
		return k.now, !same(k.now, had)
	}
	parsed := func(ctx context.Context, fresh bool) (string, error) {
		text, err := k.secret(ctx, fresh)
		if err != nil {
			return "", err
		}
		v, err := k.parse(text)
		return joined(v), err
	}
	text, ok := k.renewal.Again(ctx, parsed, joined(had), err)
	if !ok {
		return had, false
	}
	part := strings.SplitN(text, "\x00", 3)
	return credentials.Value{AccessKeyID: part[0], SecretAccessKey: part[1], SessionToken: part[2]}, true
}

func same(a, b credentials.Value) bool { return joined(a) == joined(b) }

func joined(v credentials.Value) string {
	return v.AccessKeyID + "\x00" + v.SecretAccessKey + "\x00" + v.SessionToken
}

// parse reads a stored login: ACCESS:SECRET[:SESSION], the secret key of user, or JSON as
// "aws configure export-credentials" and credential_process give it. No error tells any of it.
//
// Errors: backends.ErrUnauthorized.
func (k *keys) parse(text string) (v credentials.Value, err error) {
	text = strings.TrimSpace(text)
	bad := func(why string) (credentials.Value, error) {
		return credentials.Value{}, fmt.Errorf("%w: the stored login %s (it is ACCESS:SECRET[:SESSION])", backends.ErrUnauthorized, why)
	}
	switch part := strings.SplitN(text, ":", 3); {
	case strings.HasPrefix(text, "{"):
		var told struct{ AccessKeyID, SecretAccessKey, SessionToken string }
		if json.Unmarshal([]byte(text), &told) != nil {
			return bad("begins like JSON but is none")
		}
		v.AccessKeyID, v.SecretAccessKey, v.SessionToken = told.AccessKeyID, told.SecretAccessKey, told.SessionToken
	case k.user != "":
		v.AccessKeyID, v.SecretAccessKey, v.SessionToken = k.user, text, k.session
	case len(part) == 1:
		return bad("has no colon")
	default:
		v.AccessKeyID, v.SecretAccessKey = part[0], part[1]
		if len(part) == 3 {
			v.SessionToken = part[2]
		}
	}
	for _, word := range []string{v.AccessKeyID, v.SecretAccessKey, v.SessionToken} {
		if strings.ContainsFunc(word, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
			return bad("has a character that no key has")
		}
	}
	if v.AccessKeyID == "" || v.SecretAccessKey == "" {
		return bad("has not both keys")
	}
	return v, nil
}
