// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
)

// A Hit is an image that a search found, or a remote that it could not ask.
type Hit struct {
	Record
	Match  Match  `json:"match"`
	Failed string `json:"failed,omitempty"` // why a remote was not searched; there is no image then
}

// A Match is why a search found an image.
type Match struct {
	Kind string `json:"kind"`           // one of the constants
	Text string `json:"text,omitempty"` // what matched, if that was not the name
}

// The kinds of Match, the best first.
const (
	ByName     = "name"
	ByLabel    = "label"
	ByText     = "text"     // its help, its definition, or a label, in some part
	ByRegistry = "registry" // the service says so, for reasons of its own
)

// SearchOptions say what Search looks for.
type SearchOptions struct {
	Queries []string `json:"queries"`          // one after the other; none means all
	Remote  string   `json:"remote,omitempty"` // the only one that is searched; "" means all
	Strict  bool     `json:"strict,omitempty"` // a remote that cannot be searched is an error
}

const (
	maxFound      = 10_000 // what one service may answer to a search; it may be endless
	maxRanked     = 10_000 // with more hits nobody looks at their order
	searchTimeout = 30 * time.Second
)

// Search looks for images by their names, in the stored listings, by their labels, and in the
// texts of those that were looked into or are here; and it asks the services that can search
// themselves. A remote that cannot, and was never listed, is listed first.
//
// A query is a part of a URI, whatever its case, or a glob for all of one; "KEY=VALUE" or
// "label:KEY" asks for a label, and "lab://green" for "green" on that remote. Of each query the
// hits come in the order of Match's kinds, and those by name whole names first, then
// beginnings, then parts. An image is yielded once.
//
// If a remote cannot be searched the others still are, and a Hit says so; with Strict, and of
// a remote that is named, that is an error, which comes last.
//
// Errors: fs.ErrNotExist for an unknown remote; fs.ErrInvalid for a bad pattern; those of
// backends.Lister and backends.Searcher, joined.
func (v *reader) Search(ctx context.Context, o SearchOptions) iter.Seq2[Hit, error] {
	return func(yield func(Hit, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		texts := o.Queries
		if len(texts) == 0 {
			texts = []string{""}
		}
		s := &search{v: v, options: o, yield: yield, seen: make(map[string]bool), missed: make(map[string]bool)}
		for _, text := range texts {
			err := s.run(ctx, text)
			if s.stopped {
				return
			}
			if err != nil {
				s.errs = append(s.errs, err)
				break
			}
		}
		if err := errors.Join(s.errs...); err != nil {
			yield(Hit{}, err)
		}
	}
}

// A search is one call of Search.
type search struct {
	v       *reader
	options SearchOptions
	yield   func(Hit, error) bool
	stopped bool // by yield
	seen    map[string]bool
	missed  map[string]bool // remotes that were reported
	errs    []error

	// Of the present query.
	query  query
	ranked []rankedHit // not yielded yet
	many   bool        // more than are ranked: they are yielded as they come
}

type rankedHit struct {
	rank int
	hit  Hit
}

// run runs one query. Its error ends the search.
func (s *search) run(ctx context.Context, text string) error {
	q, err := s.v.readQuery(text, s.options.Remote)
	if err != nil {
		return err
	}
	s.query, s.ranked, s.many = q, nil, q.text == "" && q.label == nil
	answers := s.v.askSearchers(ctx, &q)
	for _, r := range q.remotes {
		if err := s.known(ctx, r); err != nil || s.stopped {
			return err
		}
	}
	for i, a := range answers() {
		for _, rec := range a.found {
			s.add(Hit{Record: rec, Match: Match{Kind: ByRegistry}})
		}
		if err := s.fail(q.remotes[i], a.err); err != nil {
			return err
		}
	}
	s.flush()
	return ctx.Err()
}

// known finds what is known of a remote.
func (s *search) known(ctx context.Context, r catalog.Remote) error {
	byName := func(rec Record) bool { return s.add(Hit{Record: rec, Match: Match{Kind: ByName}}) }
	if s.query.label == nil {
		mode := catalog.NeverMade
		if r.Client == nil || r.Client.Caps().Has(backends.CanSearch) {
			mode = catalog.StoredOnly
		}
		if err := s.fail(r, s.v.imagesOf(ctx, r, mode, s.query.match, byName)); err != nil || s.stopped {
			return err
		}
	}
	if err := s.v.findWithin(ctx, r, &s.query, s.add); err != nil {
		// What registries say of names and what this machine keeps of texts are two things.
		s.v.log.Debug("texts cannot be searched", "remote", r.Name, "err", err)
	}
	return ctx.Err()
}

// fail reports why a remote was not searched. Its error ends the search.
func (s *search) fail(r catalog.Remote, err error) error {
	err = s.v.missed(r, s.query.asked, err)
	_, ofRegistry := errors.AsType[*backends.Error](err)
	switch {
	case err == nil:
		return nil
	case !ofRegistry:
		return err
	case s.options.Strict, s.query.asked != "":
		s.errs = append(s.errs, err)
	case !s.missed[r.Name]:
		s.missed[r.Name] = true
		s.stopped = s.stopped || !s.yield(Hit{Record: Record{Remote: r.Name}, Failed: err.Error()}, nil)
	}
	return nil
}

// add yields a hit in its turn, unless the image was there before. It returns false once
// nobody wants more.
func (s *search) add(h Hit) bool {
	if s.seen[h.URI] || s.stopped {
		return !s.stopped
	}
	s.seen[h.URI] = true
	if s.many {
		s.stopped = !s.yield(h, nil)
		return !s.stopped
	}
	s.ranked = append(s.ranked, rankedHit{s.query.rank(&h), h})
	if len(s.ranked) > maxRanked {
		s.many = true
		s.flush()
	}
	return !s.stopped
}

func (s *search) flush() {
	slices.SortStableFunc(s.ranked, func(a, b rankedHit) int { return cmp.Compare(a.rank, b.rank) })
	for _, r := range s.ranked {
		if s.stopped = s.stopped || !s.yield(r.hit, nil); s.stopped {
			break
		}
	}
	s.ranked = nil
}

// A query is one of a search, as it was read.
type query struct {
	text    string // without the remote, in lower case
	asked   string // the remote that was named
	remotes []catalog.Remote
	match   *index.Matcher
	label   *index.LabelQuery // nil: by name and text
}

// readQuery reads one query. remote is the only one that is searched, unless it is "".
func (v *reader) readQuery(text, remote string) (query, error) {
	q := query{asked: remote, remotes: v.cat.Remotes()}
	scheme, rest, ok := strings.Cut(text, "://")
	if ok && !strings.ContainsAny(scheme, "*?[=") {
		r, _, err := v.resolveScheme(text, backends.URI{Remote: scheme})
		if err != nil {
			return q, fmt.Errorf("search %s: %w", text, err)
		}
		if remote != "" && remote != r.Name {
			return q, fmt.Errorf("%w: search %s: that is not on %s", fs.ErrInvalid, text, remote)
		}
		q.asked, text = r.Name, rest
	}
	if q.asked != "" {
		r, err := v.cat.Remote(q.asked)
		if err != nil {
			return q, err
		}
		q.remotes = []catalog.Remote{r}
	}
	q.text = strings.ToLower(text)
	if q.text == "*" { // as with sregistry
		q.text = ""
	}
	key, isLabel := strings.CutPrefix(text, "label:")
	if key, value, withValue := strings.Cut(key, "="); isLabel || withValue && key != "" {
		q.label = &index.LabelQuery{Key: key, Value: value}
		return q, nil
	}
	pattern := q.text
	if ok && q.asked != "" && q.text != "" && !strings.ContainsAny(q.text, "*?[\\") {
		pattern = q.asked + "://*" + q.text + "*" // the name of the remote itself is not meant
	}
	var err error
	q.match, err = index.NewMatcher(pattern)
	return q, err
}

// The ranks of hits, the best first. Those of other kinds than ByName follow.
const (
	rankExact = iota
	rankPrefix
	rankPart
	rankLabel
	rankText
	rankOther
)

// rank says how good a hit is.
func (q *query) rank(h *Hit) int {
	switch h.Match.Kind {
	case ByLabel:
		return rankLabel
	case ByText:
		return rankText
	}
	ref := h.Ref
	names := []string{ref.Name, ref.Collection, ref.Collection + "/" + ref.Name, ref.Name + ":" + ref.Tag, ref.String(), h.URI}
	best := rankOther
	for _, name := range names {
		switch name = strings.ToLower(name); {
		case name == q.text:
			return rankExact
		case strings.HasPrefix(name, q.text):
			best = min(best, rankPrefix)
		case strings.Contains(name, q.text):
			best = min(best, rankPart)
		}
	}
	if h.Match.Kind == ByName { // a glob
		return min(best, rankPart)
	}
	return best
}

// An answer is what a service found.
type answer struct {
	found []Record
	err   error
}

// askSearchers begins to ask the services, and returns a function that waits for their
// answers, one for each remote of the query. Nothing is left running when ctx ends.
func (v *browser) askSearchers(ctx context.Context, q *query) func() []answer {
	var g errgroup.Group
	answers := make([]answer, len(q.remotes))
	for i, r := range q.remotes {
		// The files of this machine are walked by Images; services do not understand globs.
		if r.Client == nil || r.Local() || !r.Client.Caps().Has(backends.CanSearch) || strings.HasPrefix(q.text, "label:") {
			continue
		}
		g.Go(func() error {
			answers[i].err = backends.Guard(v.log, func() (err error) {
				answers[i].found, err = v.searchOne(ctx, r, q.text)
				return err
			})
			return nil
		})
	}
	return func() []answer {
		g.Wait() //nolint:errcheck // the errors are in answers
		return answers
	}
}

func (v *browser) searchOne(ctx context.Context, r catalog.Remote, query string) ([]Record, error) {
	ctx, cancel := context.WithTimeout(ctx, searchTimeout)
	defer cancel()
	var found []Record
	for img, err := range r.Client.Search(ctx, query) {
		if err != nil {
			v.cat.Note(r.Name, err)
			return found, err
		}
		found = append(found, v.record(r.Name, index.Clean(img)))
		if len(found) == maxFound {
			v.log.Warn("search cut off: the registry finds more than we take", "remote", r.Name, "query", query, "taken", maxFound)
			break
		}
	}
	v.cat.Note(r.Name, nil)
	return found, nil
}
