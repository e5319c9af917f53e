// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/inspect"
)

// keep stores what an image says of itself, for those who search. It is no harm if that
// fails.
func (v *reader) keep(r catalog.Remote, img backends.Image, facts *inspect.Facts) {
	if img.Ref.Version != "" { // what a tag means is searched
		return
	}
	s, err := v.cat.State()
	if err == nil {
		err = s.Index.SaveText(r.Name, img.Ref, textOf(cache.KeyOf(r.Name, img), facts))
	}
	if err != nil {
		v.log.Debug("texts cannot be kept", "image", backends.URI{Remote: r.Name, Ref: img.Ref}, "err", err)
	}
}

func textOf(key cache.Key, facts *inspect.Facts) index.Text {
	return index.Text{Key: key, Labels: facts.Labels, Help: facts.Help, Definition: facts.Definition}
}

// maxNew is how many files a search looks into that nobody has looked into before: the rest
// is for the next one.
const maxNew = 500

// findWithin calls add with the images of a remote that a query finds by their labels and
// texts.
func (v *reader) findWithin(ctx context.Context, r catalog.Remote, q *query, add func(Hit) bool) error {
	if q.text == "" || q.label == nil && strings.ContainsAny(q.text, "*?[") {
		return nil
	}
	s, err := v.cat.State()
	if err != nil {
		return err
	}
	if r.Local() {
		return v.findLocal(ctx, r, s.Index, q, add)
	}
	if err := v.readCached(ctx, s); err != nil {
		return err
	}
	found := func(ref backends.Ref) bool {
		e, ok := s.Index.Entry(r.Name, ref)
		if !ok || !e.Shown() {
			return true
		}
		t, ok := s.Index.Text(r.Name, ref)
		if !ok || t.Key != cache.KeyOf(r.Name, e.Image) {
			t = index.Text{} // of other bytes
		}
		match, ok := q.within(e.Image.Labels, &t)
		return !ok || add(Hit{Record: v.record(r.Name, e.Image), Match: match})
	}
	if q.label != nil {
		for ref, err := range s.Index.Labelled(r.Name, *q.label) {
			if err != nil || !found(ref) {
				return err
			}
		}
		return nil
	}
	for ref := range s.Index.Texts(r.Name, q.text) {
		if !found(ref) {
			return nil
		}
	}
	return nil
}

// findLocal is findWithin for the files of this machine. Nobody says when there are new ones:
// they are all walked.
func (v *reader) findLocal(ctx context.Context, r catalog.Remote, s *index.Index, q *query, add func(Hit) bool) error {
	var all index.Matcher
	left := maxNew
	return v.imagesLocal(ctx, r, &all, func(rec Record) bool {
		if ctx.Err() != nil {
			return false
		}
		key := cache.KeyOf(rec.Remote, rec.image())
		t, ok := s.Text(rec.Remote, rec.Ref)
		if ok = ok && t.Key == key; !ok && left > 0 {
			left--
			t = v.readText(ctx, rec)
		}
		match, ok := q.within(rec.Labels, &t)
		return !ok || add(Hit{Record: rec, Match: match})
	})
}

// readText looks into an image, if its bytes are here, and stores what it says.
func (v *reader) readText(ctx context.Context, rec Record) index.Text {
	facts, err := v.factsHere(ctx, rec)
	if err != nil {
		v.log.Debug("an image cannot be looked into", "image", rec.URI, "err", err)
	}
	if facts == nil {
		return index.Text{}
	}
	r, err := v.cat.Remote(rec.Remote)
	if err == nil {
		v.keep(r, rec.image(), facts)
	}
	return textOf(cache.KeyOf(rec.Remote, rec.image()), facts)
}

// keptTexts returns the stored texts of a remote, or of all, by URI.
func (v *reader) keptTexts(remote string) map[string]index.Text {
	kept := make(map[string]index.Text)
	s, err := v.cat.State()
	if err != nil {
		return kept // they are read again
	}
	for _, r := range v.cat.Remotes() {
		if remote != "" && remote != r.Name {
			continue
		}
		for ref, t := range s.Index.Texts(r.Name, "") {
			kept[backends.URI{Remote: r.Name, Ref: ref}.String()] = index.Text{Key: t.Key, Labels: t.Labels}
		}
	}
	return kept
}

// readCached looks into what came into the cache since the last search: who reads an image in
// the mount tells nobody its name.
func (v *reader) readCached(ctx context.Context, s *catalog.State) error {
	all := make(map[cache.Key]*Cached)
	if s.Cache == nil {
		return nil
	}
	for info := range s.Cache.Infos() {
		if info.State == cache.Cached && !s.Index.IsRead(info.Key) && len(all) < maxNew {
			all[info.Key] = cachedOf(info)
		}
	}
	if len(all) == 0 {
		return nil
	}
	var found []Record
	b := blobs{*v}
	err := b.nameBlobs(ctx, s.Index, all, func(_ *Cached, remote string, img backends.Image) {
		if img.Ref.Version == "" {
			found = append(found, v.record(remote, img))
		}
	})
	for _, rec := range found {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		v.readText(ctx, rec)
	}
	return errors.Join(err, s.Index.MarkRead(slices.Collect(maps.Keys(all))...))
}

// maxSnippet is how much of a line is shown, in bytes.
const maxSnippet = 100

// within says what in an image's labels and texts a query means.
func (q *query) within(listed map[string]string, t *index.Text) (Match, bool) {
	if q.label != nil {
		for _, labels := range []map[string]string{t.Labels, listed} {
			if key, value, ok := q.label.In(labels); ok {
				return Match{Kind: ByLabel, Text: snippet(key+"="+value, q.label.Value)}, true
			}
		}
		return Match{}, false
	}
	for _, part := range []struct{ name, text string }{{"help", t.Help}, {"definition", t.Definition}} {
		for line := range strings.Lines(part.text) {
			if strings.Contains(strings.ToLower(line), q.text) {
				return Match{Kind: ByText, Text: part.name + ": " + snippet(line, q.text)}, true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Labels)) {
		if line := name + "=" + t.Labels[name]; strings.Contains(strings.ToLower(line), q.text) {
			return Match{Kind: ByText, Text: snippet(line, q.text)}, true
		}
	}
	return Match{}, false
}

// snippet returns a line, or of a long one what is around a text.
func snippet(line, text string) string {
	line = strings.TrimSpace(line)
	if len(line) <= maxSnippet {
		return line
	}
	at := max(strings.Index(strings.ToLower(line), strings.ToLower(text)), 0)
	begin := min(max(at-maxSnippet/4, 0), len(line)-maxSnippet)
	for begin > 0 && !utf8.RuneStart(line[begin]) {
		begin--
	}
	cut := strings.ToValidUTF8(line[begin:begin+maxSnippet], "") + "…"
	if begin > 0 {
		cut = "…" + cut
	}
	return cut
}
