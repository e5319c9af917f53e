// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// urls read what is at the URLs of records. Nothing is asked before an image is looked at
// by itself; what was learnt then is kept, so that listings have it.
type urls struct {
	http *http.Client
	dir  string // of what was learnt; "" if it is only remembered

	mu     sync.Mutex // guards the field below
	learnt map[string]webFile
}

// A webFile is what a server said of a URL.
type webFile struct {
	Bytes    *int64    `json:"size,omitempty"` // nil if it is not known
	Held     string    `json:"version,omitempty"`
	Modified time.Time `json:"modified,omitzero"`
	Asked    time.Time `json:"asked,omitzero"`
}

// believed is how long a server is not asked again.
const believed = 10 * time.Minute

func (f webFile) size() int64 {
	if f.Bytes == nil {
		return -1
	}
	return *f.Bytes
}

// version is the server's, or where it has none, or was never asked, one that says no more
// than which URL it is; "" where it was never asked.
func (f webFile) version(address string) string {
	switch {
	case f.Asked.IsZero():
		return ""
	case f.Held == "":
		return "url-" + hashed(address)
	}
	return f.Held
}

func hashed(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

func (u *urls) file(address string) string { return filepath.Join(u.dir, "urls", hashed(address)) }

// known returns what was learnt of a URL.
func (u *urls) known(address string) webFile {
	u.mu.Lock()
	defer u.mu.Unlock()
	f, ok := u.learnt[address]
	if ok || u.dir == "" {
		return f
	}
	if text, err := backends.ReadRegular(u.file(address), backends.NoFollow, 1<<16); err == nil {
		_ = json.Unmarshal(text, &f) // else it is asked for again
	}
	u.keep(address, f)
	return f
}

// keep needs mu.
func (u *urls) keep(address string, f webFile) {
	if u.learnt == nil {
		u.learnt = map[string]webFile{}
	}
	u.learnt[address] = f
}

// lookTime is how long a server may take to be asked.
const lookTime = 10 * time.Second

// look asks the server about a URL, unless that was done a moment ago. One that cannot
// answer is taken at its last word: the record is there all the same, and whoever opens the
// image gets the error.
//
// Errors: ctx's.
func (u *urls) look(ctx context.Context, address string) error {
	before := u.known(address)
	if age := time.Since(before.Asked); age >= 0 && age < believed {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	f, err := u.ask(limited, address)
	if err == nil {
		u.store(address, f)
	} else {
		u.mu.Lock()
		defer u.mu.Unlock()
		before.Asked = time.Now().Add(lookTime - believed) // until then it is not asked again
		u.keep(address, before)
	}
	return ctx.Err()
}

// check asks the server about a URL that is to be recorded, and remembers what it says.
// Errors: those of backends.Backend.Stat.
func (u *urls) check(ctx context.Context, address string) error {
	f, err := u.ask(ctx, address)
	if err != nil {
		return backends.Elsewhere(err)
	}
	u.store(address, f)
	return nil
}

// store keeps what was learnt, for other processes too.
func (u *urls) store(address string, f webFile) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.keep(address, f)
	text, err := json.Marshal(f)
	if err == nil && u.dir != "" && os.MkdirAll(filepath.Dir(u.file(address)), 0o700) == nil {
		_ = disk.Replace(u.file(address), text, disk.Replacement{Perm: 0o600}) // else it is only remembered
	}
}

func (u *urls) ask(ctx context.Context, address string) (webFile, error) {
	resp, err := u.head(ctx, address)
	if err != nil {
		return webFile{}, err
	}
	resp.Body.Close()
	if err := ranged.Unfit(resp); err != nil {
		return webFile{}, err
	}
	size, err := ranged.Size(resp)
	if err != nil {
		return webFile{}, err
	}
	f := webFile{Held: ranged.VersionOf(resp.Header, size), Asked: time.Now()}
	f.Modified, _ = http.ParseTime(resp.Header.Get("Last-Modified"))
	if size >= 0 {
		f.Bytes = &size
	}
	return f, nil
}

// head asks for the header, by GET for one byte where the server refuses a HEAD, as those
// do that sign links for GET.
func (u *urls) head(ctx context.Context, address string) (*http.Response, error) {
	resp, err := u.do(ctx, http.MethodHead, address, nil)
	if err == nil || !httpx.HeadRefused(err) {
		return resp, err
	}
	return u.do(ctx, http.MethodGet, address, ranged.Span{N: 1}.Ask)
}

func (u *urls) do(ctx context.Context, method, address string, with func(*http.Request)) (*http.Response, error) {
	backends.AddHome(u.http, address) // whoever made the record chose it
	req, err := httpx.NewRequest(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	if with != nil {
		with(req)
	} else {
		req.Header.Set("Accept-Encoding", "identity")
	}
	return httpx.Do(u.http, req, http.StatusRequestedRangeNotSatisfiable, http.StatusPreconditionFailed)
}

// open reads n bytes from off of what is at img.URL, provided that it is img.Version still.
func (u *urls) open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if img.Size >= 0 && off >= img.Size {
		return http.NoBody, nil
	}
	held := img.Version
	if held == "url-"+hashed(img.URL) {
		held = ""
	}
	header, err := ranged.Conditions(held)
	if err != nil {
		return nil, err
	}
	s := ranged.Span{Off: off, N: n}
	resp, err := u.do(ctx, http.MethodGet, img.URL, func(req *http.Request) {
		maps.Copy(req.Header, header)
		s.Ask(req)
	})
	if err != nil {
		return nil, backends.Elsewhere(err)
	}
	size, err := ranged.Size(resp)
	if size < 0 || img.Size < 0 {
		size = img.Size
	}
	switch {
	case err != nil:
	case resp.StatusCode == http.StatusPreconditionFailed,
		resp.StatusCode/100 == 2 && !ranged.SameVersion(resp.Header, size, held):
		err = fmt.Errorf("%w: %s has other bytes now", backends.ErrChanged, img.URL)
		u.forget(img.URL)
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return s.Body(resp, img.Size)
}

// forget makes the next look ask the server.
func (u *urls) forget(address string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.learnt[address]
	f.Asked = f.Asked.Add(-believed)
	u.keep(address, f)
}
