// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// maxPage bounds the bytes of one page.
const maxPage = 32 << 20

// page asks for what everybody may have, and decodes it into v; it may be larger than
// other metadata.
func (c *client) page(ctx context.Context, path string, v any) error {
	return c.asUser(ctx, func(auth string) error {
		req, err := httpx.NewRequest(ctx, http.MethodGet, c.url(path), nil)
		if err != nil {
			return err
		}
		if auth != "" {
			req.Header.Set("Authorization", auth)
		}
		resp, err := c.do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
		switch {
		case err != nil:
			return backends.TransportError(err)
		case len(text) > maxPage:
			return fmt.Errorf("%w: an answer of more than %d bytes", backends.ErrBadAnswer, maxPage)
		}
		return decode(resp.Header, text, v)
	})
}

// A pageOf is one of a long list.
type pageOf[T any] struct {
	Count   int
	Results []T
}

// pages yields those of the list at path, each as large as the server gives it.
func pages[T any](ctx context.Context, c *client, path string) iter.Seq2[pageOf[T], error] {
	return func(yield func(pageOf[T], error) bool) {
		next := fmt.Sprintf("%s?limit=%d", path, pageSize)
		seen := map[string]bool{}
		for n := 0; next != ""; n++ {
			if n == maxPages || seen[next] {
				yield(pageOf[T]{}, fmt.Errorf("%w: the list has no end", backends.ErrBadAnswer))
				return
			}
			seen[next] = true
			var got struct {
				Count   int    `json:"count"`
				Next    string `json:"next"`
				Results *[]T   `json:"results"`
			}
			err := c.page(ctx, next, &got)
			if err == nil && got.Results == nil {
				err = fmt.Errorf("%w: a page of a list without results", backends.ErrBadAnswer)
			}
			if err == nil {
				next, err = nextPage(path, got.Next)
			}
			if err == nil && next != "" {
				c.perPage.Store(int64(len(*got.Results)))
			}
			if n > 0 {
				err = backends.BrokenOff(err)
			}
			if err != nil {
				yield(pageOf[T]{}, err)
				return
			}
			if !yield(pageOf[T]{got.Count, *got.Results}, nil) {
				return
			}
		}
	}
}

// nextPage takes from a "next" link what it adds to our own address: the server
// often does not know by which name it is reached.
func nextPage(path, link string) (string, error) {
	if link == "" {
		return "", nil
	}
	u, err := url.Parse(link)
	if err != nil {
		return "", fmt.Errorf("%w: a link to the next page that is none", backends.ErrBadAnswer)
	}
	return path + "?" + u.RawQuery, nil
}

// namesForPage is how many names of a listing are worth a page of facts: asking for one
// image's alone is a request too, and the server allows but some of those.
const namesForPage = 20

// Facts is what the list of all public containers said a moment ago. The zero value is empty.
type facts struct {
	reading backends.Locks // one reading of the list at a time

	mu     sync.Mutex // guards the fields below
	all    map[name]manifest
	cost   int // pages that the list has
	until  time.Time
	forgot int // how many times, so that what was read before is not kept after
}

// of returns what is told of each public container, if that takes few requests for n
// names: else nothing, and who wants the facts of one asks for them.
func (f *facts) of(ctx context.Context, c *client, n int) map[name]manifest {
	if n == 0 {
		return nil
	}
	unlock, err := f.reading.Lock(ctx, "")
	if err != nil {
		return nil
	}
	defer unlock()
	most := 1 + n/namesForPage
	if c.listing.total() > most*int(cmp.Or(c.perPage.Load(), pageSize)) {
		return nil
	}
	f.mu.Lock()
	all, generation := f.all, f.forgot
	fresh := time.Now().Before(f.until) && (all != nil || f.cost > most)
	f.mu.Unlock()
	if fresh {
		return all
	}
	all, cost := c.readFacts(ctx, most)
	f.mu.Lock()
	defer f.mu.Unlock()
	if generation == f.forgot && ctx.Err() == nil {
		f.all, f.cost, f.until = all, cost, time.Now().Add(listingLife)
	}
	return all
}

// readFacts reads the list unless it has more pages than most, which is what it returns
// then, or cannot be had.
func (c *client) readFacts(ctx context.Context, most int) (all map[name]manifest, cost int) {
	all = map[name]manifest{}
	for page, err := range pages[manifest](ctx, c, "/api/containers/") {
		if err != nil {
			c.log.Debug("a listing has but names", "err", err)
			return nil, maxPages
		}
		if size := len(page.Results); cost == 0 && size > 0 {
			cost = (page.Count + size - 1) / size
		}
		if cost > most {
			return nil, cost
		}
		for _, m := range page.Results {
			if in := collectionIn(m.Collection); in != "" && m.Name != "" && m.Tag != "" && m.ID != "" {
				all[nameOf(in, m.Name, m.Tag)] = m
			}
		}
	}
	return all, cost
}

// forget is for when something changed.
func (f *facts) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all, f.cost, f.until = nil, 0, time.Time{}
	f.forgot++
}
