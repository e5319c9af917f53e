// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
)

// sessionLife is how long it is remembered how far the push of a file came: services
// keep what was sent for a day to a week.
const sessionLife = 7 * 24 * time.Hour

// A pushSession is the backends.Session of a file that is pushed from where it lies: a push
// that is killed goes on when it is given again. (That of a draft is in its journal.)
type pushSession struct {
	store *index.Index
	key   []byte
	now   func() time.Time
	log   *slog.Logger
}

var _ backends.Session = (*pushSession)(nil)

// session returns that of the push of those bytes to ref; of another service under the
// remote's name nothing is known.
func (u *Uploads) session(s *index.Index, r catalog.Remote, ref backends.Ref, digest string) *pushSession {
	k := index.SessionKey(r.Name, ref.String(), digest, r.Client.Origin())
	return &pushSession{store: s, key: k, now: u.cat.Now, log: u.log}
}

// Load implements backends.Session.
func (p *pushSession) Load() []byte {
	saved, err := p.store.Get(p.key)
	if at, ok := sessionTime(saved); err != nil || !ok || p.now().Sub(at) > sessionLife {
		return nil
	}
	return saved[8:]
}

// Save implements backends.Session. It drops what is too old of others.
func (p *pushSession) Save(state []byte) error {
	changes := []index.KV{{Key: p.key}}
	if state != nil {
		changes[0].Value = append(binary.BigEndian.AppendUint64(nil, uint64(p.now().Unix())), state...)
	}
	for kv, err := range p.store.Scan(index.SessionPrefix(), nil) {
		if err != nil {
			break
		}
		if at, ok := sessionTime(kv.Value); !ok || p.now().Sub(at) > sessionLife {
			changes = append(changes, index.KV{Key: append([]byte(nil), kv.Key...)})
		}
	}
	err := p.store.Apply(changes...)
	if errors.Is(err, fs.ErrInvalid) {
		p.log.Debug("how far a push came is too much to remember", "bytes", len(state))
		return nil
	}
	return err
}

func sessionTime(saved []byte) (time.Time, bool) {
	if len(saved) < 8 {
		return time.Time{}, false
	}
	return time.Unix(int64(binary.BigEndian.Uint64(saved)), 0), true
}
