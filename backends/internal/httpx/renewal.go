// SPDX-License-Identifier: Apache-2.0

package httpx

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A refusal that need not mean the login is taken for that of an old one maxGuesses times
// in guessTime at most, where finding out costs a new login: a command that is run. One
// would not do: that a list of digests is missing, say, is how most servers have it.
const (
	maxGuesses = 3
	guessTime  = time.Minute
)

// A Renewal finds the login that has come after one that was refused. Its zero value is
// ready for use by many goroutines.
type Renewal struct {
	mu      sync.Mutex // guards the fields below
	since   time.Time
	guesses int
}

// Again returns another login than had, if err can mean that had is too old and there is
// one. That is a 401, but some services say 403, or 404, as for all that one may not see:
// then a login is read again, and now and then made anew.
func (r *Renewal) Again(ctx context.Context, secret backends.SecretFunc, had string, err error) (string, bool) {
	sure := errors.Is(err, backends.ErrUnauthorized)
	if had == "" || !sure && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
		return "", false
	}
	for _, fresh := range []bool{false, true} {
		if fresh && !sure && !r.MayGuess() {
			break
		}
		if token, err := secret(ctx, fresh); err == nil && token != "" && token != had {
			return token, true
		}
	}
	return "", false
}

// MayGuess reports whether what may be the age of a login is worth a new one. It counts.
func (r *Renewal) MayGuess() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.since) > guessTime {
		r.since, r.guesses = now, 0
	}
	r.guesses++
	return r.guesses <= maxGuesses
}
