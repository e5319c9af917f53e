// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// maxFound is how many images a search yields.
const maxFound = 10_000

// Search takes "collection/", "collection/name[:tag]", "key=value" for a label,
// or words: the first is looked for among the names and is a collection too if
// there is one, the others must occur in what is found. The server searches only
// public collections.
func (c *client) Search(ctx context.Context, query string) iter.Seq2[backends.Image, error] {
	query = strings.TrimSpace(query)
	if key, value, ok := strings.Cut(query, "="); ok && !strings.ContainsAny(key, " /") {
		return c.searchLabels(ctx, key, value)
	}
	words := strings.Fields(query)
	if len(words) == 0 {
		return backends.Fail[backends.Image](fmt.Errorf("%w: nothing to search for", fs.ErrInvalid))
	}
	return func(yield func(backends.Image, error) bool) {
		found, err := c.find(ctx, words[0])
		if err != nil {
			yield(backends.Image{}, err)
			return
		}
		seen := map[string]bool{}
		for _, n := range found {
			ref := n.ref()
			text := strings.ToLower(n.String())
			if seen[text] || c.CheckName(ref) != nil || !containsAll(text, words[1:]) {
				continue
			}
			seen[text] = true
			if len(seen) > maxFound || !yield(backends.Image{Ref: ref, Size: -1}, nil) {
				return
			}
		}
	}
}

func containsAll(text string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(text, strings.ToLower(word)) {
			return false
		}
	}
	return true
}

// find returns what the server has for one word.
func (c *client) find(ctx context.Context, word string) ([]name, error) {
	top, rest, slashed := strings.Cut(word, "/")
	container, tag, tagged := strings.Cut(rest, ":")
	path := "/api/container/search/name/" + escape(word)
	switch {
	case slashed && rest == "":
		return c.ofCollection(ctx, top)
	case slashed && tagged && tag != "":
		path = "/api/container/search/collection/" + escape(top) + "/name/" + escape(container) + "/tag/" + escape(tag)
	case slashed:
		path = "/api/container/search/collection/" + escape(top) + "/name/" + escape(container)
	}
	found, err := c.containers(ctx, path)
	if err != nil {
		return nil, err
	}
	names := make([]name, 0, len(found))
	for _, f := range found {
		names = append(names, f.name())
	}
	if slashed || !plainPart.MatchString(word) {
		return names, nil
	}
	inside, err := c.ofCollection(ctx, word)
	return append(names, inside...), err
}

// ofCollection returns the names in a collection, none if there is no such one.
func (c *client) ofCollection(ctx context.Context, top string) ([]name, error) {
	names, err := c.names(ctx, top)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		return nil, nil
	}
	return names, err
}

// containers asks for an array of them. That there is none is no error.
func (c *client) containers(ctx context.Context, path string) ([]container, error) {
	all, err := c.search(ctx, path)
	if statusOf(err) == http.StatusNotFound {
		return nil, nil
	}
	return all, err
}

// search is containers where the server has to have the view.
func (c *client) search(ctx context.Context, path string) ([]container, error) {
	var found []container
	err := c.page(ctx, path, &found)
	return found, err
}

// name says which container f is. Servers differ in where they say it.
func (f container) name() name {
	if in := collectionIn(f.Collection); in != "" {
		return nameOf(in, f.Name, f.Tag)
	}
	return parseURI(f.URI)
}

// collectionIn returns the name in what the server tells of a container's collection; ""
// if it has none.
func collectionIn(told json.RawMessage) string {
	var text string
	var object struct {
		Name string `json:"name"`
	}
	if json.Unmarshal(told, &text) != nil && json.Unmarshal(told, &object) == nil {
		return object.Name
	}
	return text
}

// parseURI reads "collection/container:tag[@version]"; the zero name, which can
// be no image, for what is none.
func parseURI(uri string) name {
	uri, _, _ = strings.Cut(uri, "@")
	top, rest, ok := strings.Cut(uri, "/")
	at := strings.LastIndexByte(rest, ':')
	if !ok || at < 0 {
		return name{}
	}
	return name{top, rest[:at], rest[at+1:]}
}

// searchLabels yields the images that have the label key with that value, which the server
// reads from them. An empty key or value stands for any. Only the names of the images are
// told.
func (c *client) searchLabels(ctx context.Context, key, value string) iter.Seq2[backends.Image, error] {
	path := "/api/labels/search"
	switch {
	case key != "" && value != "":
		path += "/" + escape(key) + "/key/" + escape(value) + "/value"
	case key != "":
		path += "/" + escape(key) + "/key"
	case value != "":
		path += "/" + escape(value) + "/value"
	}
	return func(yield func(backends.Image, error) bool) {
		var found []struct {
			Key        string   `json:"key"`
			Value      string   `json:"value"`
			Containers []string `json:"containers"`
		}
		err := c.page(ctx, path, &found)
		if statusOf(err) == http.StatusNotFound {
			return
		}
		if err != nil {
			yield(backends.Image{}, err)
			return
		}
		seen := map[string]bool{}
		for _, label := range found {
			for _, uri := range label.Containers {
				n := parseURI(uri)
				if seen[uri] || c.CheckName(n.ref()) != nil {
					continue
				}
				seen[uri] = true
				if len(seen) > maxFound || !yield(backends.Image{Ref: n.ref(), Size: -1}, nil) {
					return
				}
			}
		}
	}
}
