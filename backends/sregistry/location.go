// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/bounded"
)

// targetLife is how long a presigned URL is used. The server signs for five minutes of its
// own clock.
const targetLife = 4 * time.Minute

// A location is where the bytes of one version of an image are.
type location struct {
	old    bool   // not in the object store
	target string // the presigned URL; "" if there is none to use again
	until  time.Time
	etag   string // of the bytes in the object store
	size   int64  // -1 if not known
}

func locationKey(img backends.Image) string { return split(img.Ref).String() + "@" + img.Version }

// locations remembers them. The zero value is empty.
type locations struct{ all bounded.Map[string, location] }

// get returns the location of key, without a target that is too old.
func (p *locations) get(key string) (location, bool) {
	at, ok := p.all.Get(key)
	if ok && time.Now().After(at.until) {
		at.target = ""
	}
	return at, ok
}

func (p *locations) put(key string, at location) {
	at.until = time.Now().Add(targetLife)
	p.all.Update(key, func(old location, ok bool) (location, bool) {
		if ok && at.size < 0 {
			at.size = old.size
		}
		return at, true
	})
}

// refusalLife is how long a refusal is remembered; permissions may change meanwhile. Every
// refusalLook the configured token is asked for, in case it was replaced.
const (
	refusalLife = 10 * time.Minute
	refusalLook = time.Minute
)

// refusals remembers which images the login may not read. The zero value is empty.
type refusals struct{ all bounded.Map[name, refusal] }

type refusal struct {
	err          error
	token        string // "" for none
	until, again time.Time
}

// note remembers err if it says that the login may not read n. A refused login is not
// remembered: the next one can be right.
func (r *refusals) note(ctx context.Context, l *login, n name, err error) {
	if !errors.Is(err, fs.ErrPermission) || errors.Is(err, backends.ErrUnauthorized) {
		return
	}
	token, _ := l.get(ctx, "") // there may be none
	r.put(n, refusal{err: err, token: token, until: time.Now().Add(refusalLife)})
}

func (r *refusals) put(n name, v refusal) {
	v.again = time.Now().Add(refusalLook)
	r.all.Put(n, v)
}

// of returns the refusal of n; nil if there was none lately, or if the token has changed.
func (r *refusals) of(ctx context.Context, l *login, n name) error {
	was, ok := r.all.Get(n)
	switch now := time.Now(); {
	case !ok || now.After(was.until):
		return nil
	case now.Before(was.again):
		return was.err
	}
	if _, err := l.get(ctx, was.token); err == nil && was.token != "" {
		return nil
	}
	r.put(n, was)
	return was.err
}
