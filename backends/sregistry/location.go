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

const (
	// targetLife is how long a presigned URL is used. The server signs for five
	// minutes of its own clock.
	targetLife = 4 * time.Minute
)

// A place is where the bytes of one version of an image are.
type place struct {
	old    bool   // not in the object store
	target string // the presigned URL; "" if there is none to use again
	until  time.Time
	etag   string // of the bytes in the object store
	size   int64  // -1 if not known
}

func placeKey(img backends.Image) string { return split(img.Ref).String() + "@" + img.Version }

// Places remembers them. The zero value is empty.
type places struct{ all bounded.Map[string, place] }

// get returns the place of key, without a target that is too old.
func (p *places) get(key string) (place, bool) {
	at, ok := p.all.Get(key)
	if ok && time.Now().After(at.until) {
		at.target = ""
	}
	return at, ok
}

func (p *places) put(key string, at place) {
	at.until = time.Now().Add(targetLife)
	p.all.Update(key, func(old place, ok bool) (place, bool) {
		if ok && at.size < 0 {
			at.size = old.size
		}
		return at, true
	})
}

// refusalLife is how long a refusal is believed: until somebody is given a permission.
// Whether there is another token is looked at every refusalLook.
const (
	refusalLife = 10 * time.Minute
	refusalLook = time.Minute
)

// Refusals remembers which images are not for us. The zero value is empty.
type refusals struct{ all bounded.Map[name, refusal] }

type refusal struct {
	err          error
	token        string // "" for none
	until, again time.Time
}

// note remembers err if it says that n is not for us. A login that is refused is another
// matter: the next one can be right.
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

// of returns the refusal of n, nil if there was none lately, or to another token.
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
