// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
)

// A pattern is what the verbs for many images take: one URI, a glob as in Images,
// or a collection, which has a slash at its end ("lab://vsoch/", "vsoch/" on every
// remote) or is all of a remote ("lab://").
type pattern struct {
	text       string
	many       bool
	remote     string // "" means all
	collection string // all that is meant is in it or below it
	name       string // only images of this name, in the collection itself; "" means all
	match      *index.Matcher
}

// readPattern reads a pattern. Errors: fs.ErrInvalid; fs.ErrNotExist for an
// unknown host.
func (v *reader) readPattern(text string) (pattern, error) {
	p := pattern{text: text, many: true}
	glob := strings.IndexAny(text, "*?[")
	folder := text
	switch {
	case glob >= 0:
		var err error
		if p.match, err = index.NewMatcher(text); err != nil {
			return p, err
		}
		folder = text[:strings.LastIndexByte(text[:glob], '/')+1]
	case !strings.HasSuffix(text, "/"):
		p.many = false
		return p, nil
	}
	if folder == "" {
		return p, nil
	}
	// An image in the collection has a name like this.
	u, err := backends.ParseURI(folder + "x")
	if err != nil {
		return p, err
	}
	p.remote = u.Remote
	if u.Host != "" {
		r, err := v.remoteOfHost(u)
		if err != nil {
			return p, err
		}
		p.remote = r.Name
	}
	if !u.Bare {
		p.collection = u.Ref.Collection
	}
	if glob < 0 && p.remote == "" && p.collection == "" {
		return p, fmt.Errorf("%w: %q means everything on every remote: say lab:// for all of one", fs.ErrInvalid, text)
	}
	return p, nil
}

// has reports whether a pattern for many images means this one.
func (p *pattern) has(remote string, ref backends.Ref) bool {
	if p.match != nil {
		return p.match.Match(remote, ref)
	}
	if p.name != "" && (p.name != ref.Name || p.collection != ref.Collection) {
		return false
	}
	return (p.remote == "" || p.remote == remote) &&
		(p.collection == "" || p.collection == ref.Collection || index.Below(ref.Collection, p.collection))
}

// Choose yields the images that a pattern means: a URI means one, which is looked
// up; a glob matches as in Images; "lab://vsoch/" means all in that collection, at
// any depth. If the pattern names the remote, listings below the collection that are
// out of date are made first; if that fails, what is known comes before the error. If it
// does not, what is known of every remote counts.
//
// Errors: those of Resolve and Lookup; fs.ErrNotExist if nothing matches; those of
// backends.Lister.
func (v *reader) Choose(ctx context.Context, text string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		p, err := v.readPattern(text)
		switch {
		case err != nil:
			yield(Record{}, err)
		case !p.many:
			yield(v.Find(ctx, text))
		default:
			v.chooseMany(ctx, &p, yield)
		}
	}
}

func (v *reader) chooseMany(ctx context.Context, p *pattern, yield func(Record, error) bool) {
	remotes := v.cat.Remotes()
	if p.remote != "" {
		r, err := v.cat.Remote(p.remote)
		if err != nil {
			yield(Record{}, err)
			return
		}
		remotes = []catalog.Remote{r}
	}
	var errs []error
	found, more := false, true
	for _, r := range remotes {
		err := v.chooseOf(ctx, r, p, func(rec Record) bool {
			found = true
			more = yield(rec, nil)
			return more
		})
		if !more {
			return
		}
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if err == nil && !found {
		err = backends.NotFound("no image matches %s%s", p.text, p.hint())
	}
	if err != nil {
		yield(Record{}, err)
	}
}

// hint says what a pattern without a remote was compared with.
func (p *pattern) hint() string {
	if p.remote != "" {
		return ""
	}
	return ", as far as is known here: say which remote, and it is asked (lab://" + strings.TrimPrefix(p.text, "/") + ")"
}

// chooseOf calls yield with the images of one remote until it returns false.
func (v *reader) chooseOf(ctx context.Context, r catalog.Remote, p *pattern, yield func(Record) bool) error {
	var all index.Matcher
	pick := func(rec Record) bool { return !p.has(rec.Remote, rec.Ref) || yield(rec) }
	match := p.match
	if match == nil {
		match = &all
	}
	if r.Local() {
		return v.imagesLocal(ctx, r, match, pick)
	}
	s, err := v.cat.State()
	if err != nil {
		return err
	}
	if p.remote != "" {
		err = v.cat.Crawl(ctx, r, p.collection, catalog.AllFresh)
	}
	return errors.Join(err, v.imagesStored(s.Index, r.Name, match, pick))
}
