// SPDX-License-Identifier: Apache-2.0

package http

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	nethttp "net/http"
	"strings"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

const (
	// sumsLife is how long a list of digests is believed before the server is
	// asked whether it has changed.
	sumsLife    = 10 * time.Second
	maxLine     = 64 << 10
	maxSums     = 32 << 20 // bytes of a list
	maxSummed   = 250_000  // names in it
	maxListings = 250_000  // names of all lists of digests that are kept
	maxFolders  = 10_000   // lists that are kept
)

// Sums are the lists of digests of the folders. The zero value knows none.
type sums struct {
	name string // of the file in each folder; "" if none is looked for

	mu      sync.Mutex // guards the fields below
	folders map[string]*folderSums
	names   int
}

// A digest is a SHA-256.
type digest [32]byte

func (d digest) String() string { return "sha256:" + hex.EncodeToString(d[:]) }

// folderSums is the list of one folder.
type folderSums struct {
	turn chan struct{} // has room for the one who reads or asks

	digests  map[string]digest // of images, by file name; nil if there is no list
	etag     string
	modified string
	until    time.Time
}

// of returns the list for folder. The caller takes its turn before it looks.
func (s *sums) of(folder string) *folderSums {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.folders[folder]
	if f == nil {
		if s.folders == nil || len(s.folders) >= maxFolders || s.names > maxListings {
			s.folders, s.names = map[string]*folderSums{}, 0
		}
		f = &folderSums{turn: make(chan struct{}, 1)}
		s.folders[folder] = f
	}
	return f
}

// grew notes how many names are kept.
func (s *sums) grew(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names += by
}

// digests returns what the list in folder says; nil if there is none. With fresh
// the server is asked in any case. Nobody changes the map.
//
// Errors: those of httpx.Do, but for a list that is not there or not shown.
func (c *client) digests(ctx context.Context, folder string, fresh bool) (map[string]digest, error) {
	if c.sums.name == "" {
		return nil, nil
	}
	f := c.sums.of(folder)
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if !fresh && time.Now().Before(f.until) {
		return f.digests, nil
	}
	if err := c.refresh(ctx, folder, f); err != nil {
		return nil, err
	}
	f.until = time.Now().Add(sumsLife)
	return f.digests, nil
}

// refresh asks for the list unless it is the one that is known.
func (c *client) refresh(ctx context.Context, folder string, f *folderSums) error {
	resp, err := c.do(ctx, nethttp.MethodGet, folder+segment(c.sums.name), func(req *nethttp.Request) {
		if f.digests != nil && f.etag != "" {
			req.Header.Set("If-None-Match", f.etag)
		} else if f.digests != nil && f.modified != "" {
			req.Header.Set("If-Modified-Since", f.modified)
		}
	}, nethttp.StatusNotModified)
	var digests map[string]digest
	etag, modified := "", ""
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized):
		// Object stores answer 403 for what is not there.
	case err != nil:
		return err
	default:
		defer resp.Body.Close()
		if resp.StatusCode == nethttp.StatusNotModified && f.digests != nil {
			return nil
		}
		if ranged.IsPage(resp.Header) {
			break // of a server that has one for everything that it lacks
		}
		if digests, err = c.naming.parseSums(&capped{r: resp.Body, left: maxSums}, maxSummed); err != nil {
			return err
		}
		etag, modified = resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	}
	c.sums.grew(len(digests) - len(f.digests))
	f.digests, f.etag, f.modified = digests, etag, modified
	return nil
}

// parseSums reads what sha256sum writes: with and without --tag, and what the
// BSDs do. Lines that are none are passed over, as with "sha256sum -c", and so
// are files in other folders and those that are no images. A name with two
// digests has none.
//
// Errors: backends.ErrBadAnswer for more names than most, or an endless line; those of
// backends.TransportError.
func (n naming) parseSums(r io.Reader, most int) (map[string]digest, error) {
	digests := map[string]digest{}
	twice := map[string]bool{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		name, sum, ok := parseSum(lines.Text())
		if !ok {
			continue
		}
		name = strings.TrimPrefix(name, "./")
		if _, _, _, isImage := n.parse(name); !isImage {
			continue
		}
		if old, known := digests[name]; known && old != sum {
			twice[name] = true
		}
		if digests[name] = sum; len(digests) > most {
			return nil, tooMany(most)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("%w: a line of more than %d bytes in a list of digests", backends.ErrBadAnswer, maxLine)
	case err != nil:
		return nil, readError(err)
	}
	for name := range twice {
		delete(digests, name)
	}
	return digests, nil
}

// parseSum reads one line: "HEX  NAME", "HEX *NAME" or "SHA256 (NAME) = HEX". A
// backslash before it says that the name is escaped
// (https://www.gnu.org/software/coreutils/manual/html_node/cksum-output-modes.html).
func parseSum(line string) (name string, sum digest, ok bool) {
	line, escaped := strings.CutPrefix(line, `\`)
	text := ""
	if rest, tagged := strings.CutPrefix(line, "SHA256 ("); tagged {
		i := strings.LastIndex(rest, ") = ")
		if i < 0 {
			return "", sum, false
		}
		name, text = rest[:i], rest[i+len(") = "):]
	} else {
		var sep bool
		if text, name, sep = strings.Cut(line, " "); !sep || name == "" || name[0] != ' ' && name[0] != '*' {
			return "", sum, false
		}
		name = name[1:]
	}
	if len(text) != hex.EncodedLen(len(sum)) {
		return "", sum, false
	}
	if _, err := hex.Decode(sum[:], []byte(text)); err != nil {
		return "", sum, false
	}
	if escaped {
		name = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(name)
	}
	return name, sum, true
}
