// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

const (
	chunkSize = 64 << 20 // bytes of one PATCH
	minChunk  = 1 << 20  // not less, even if a proxy refuses more
	maxStalls = 3        // failures in a row without a byte of progress
)

// A pushState is what is known of an earlier try of a push.
type pushState struct {
	Location string `json:"location,omitempty"` // of the upload
	Manifest string `json:"manifest,omitempty"` // the digest of one that may have been stored under the tag
}

// pushLayer uploads src unless the registry has it, going on where memo says
// that an upload was broken off.
func (c *client) pushLayer(ctx context.Context, repo string, src backends.Source, memo *uploads.Memo[pushState]) error {
	// Two pushes of one file: the second finds the blob of the first.
	unlock, err := c.commits.Lock(ctx, repo+"@"+src.Digest)
	if err != nil {
		return err
	}
	defer unlock()
	meter := &progressMeter{report: src.Progress}
	size, err := c.blobSize(ctx, repo, src.Digest)
	if err == nil && size != src.Size {
		return fmt.Errorf("%w: %s has %d bytes in the registry, %d here", backends.ErrCorrupt, src.Digest, size, src.Size)
	}
	if err == nil {
		meter.at(src.Size)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	begin := func() *upload {
		return &upload{
			c: c, repo: repo, digest: src.Digest, size: src.Size, content: src.Content, chunk: c.chunk, meter: meter,
			save: func(location string) {
				memo.State = pushState{Location: location}
				memo.Save()
			},
		}
	}
	u := begin()
	if err := u.resume(ctx, memo.State.Location); err != nil {
		return err
	}
	err = u.run(ctx)
	if errors.Is(err, fs.ErrNotExist) || isOdd(err) && (u.unsure || u.refused) {
		// The registry has lost the upload, or what it kept of a broken
		// request was not what was sent: only all of it again can help.
		c.log.Info("upload begins anew", "repository", repo, "digest", src.Digest, "err", err)
		u = begin()
		err = u.run(ctx)
	}
	if u.refused && (errors.Is(err, fs.ErrNotExist) || isOdd(err)) {
		// Not every registry that takes no chunks has a word for it.
		c.log.Info("upload is sent in one piece", "repository", repo, "digest", src.Digest, "err", err)
		u = begin()
		err = u.whole(ctx)
	}
	if isOdd(err) {
		memo.Forget()
	}
	if errors.Is(err, fs.ErrNotExist) && u.location != nil {
		// Nothing that anybody has named: another server behind the same name, perhaps.
		err = fmt.Errorf("%w: the registry has lost the upload: %v", backends.ErrUnavailable, err)
	}
	return err
}

// isOdd reports whether the registry took something else than was sent, or says so:
// many answer HTTP 400 to a wrong digest.
func isOdd(err error) bool {
	return errors.Is(err, backends.ErrCorrupt) || errors.Is(err, backends.ErrBadAnswer)
}

// An upload is one blob on its way.
type upload struct {
	c       *client
	repo    string
	digest  string
	size    int64
	content io.ReaderAt
	chunk   int64
	meter   *progressMeter
	save    func(location string)

	location *url.URL // nil before the upload has begun
	offset   int64    // the registry has the bytes before it
	unsure   bool     // that these are the right ones: a request failed, or its answer was odd
	refused  bool     // a chunk was
}

var (
	errNoChunks  = errors.New("registry takes no chunks")
	errElsewhere = fmt.Errorf("%w: the registry wants another part of the upload", backends.ErrUnavailable)
)

// run uploads what is missing and closes the upload.
func (u *upload) run(ctx context.Context) error {
	if u.location == nil {
		if err := u.begin(ctx); err != nil {
			return err
		}
		u.save(u.location.String())
	}
	furthest := u.offset // it may have to begin anew, but not again and again
	for stalls := 0; u.offset < u.size; {
		before, chunk := u.offset, u.chunk
		err := u.patch(ctx)
		if broken(ctx, err) && stalls < maxStalls {
			err = u.relocate(ctx, err)
		}
		if errors.Is(err, errNoChunks) {
			return u.whole(ctx)
		}
		if err != nil {
			return err
		}
		if u.offset > before {
			u.save(u.location.String())
		}
		// A registry that takes a byte of each chunk would be at it for years.
		switch least := int64(backends.LeastProgress); {
		case u.offset >= min(furthest+least, u.size) || u.chunk < chunk:
			stalls, furthest = 0, max(furthest, u.offset)
		case u.offset >= min(before+least, u.size): // once more after it began anew
		case stalls >= maxStalls:
			return fmt.Errorf("%w: the registry takes next to nothing of each part: %d bytes of %d", backends.ErrUnavailable, u.offset, u.size)
		default:
			stalls++
		}
	}
	return u.put(ctx, 0, 0)
}

// relocate finds out where to go on after a chunk failed with err, and returns err if
// that cannot be told.
func (u *upload) relocate(ctx context.Context, err error) error {
	before := u.offset
	elsewhere := errors.Is(err, errElsewhere)
	lost := u.status(ctx)
	// A part of the chunk may have arrived. docker-registry before 3.0
	// then knows the upload no more (distribution/distribution#3755).
	if errors.Is(lost, fs.ErrNotExist) || elsewhere && lost != nil && !broken(ctx, lost) {
		lost = u.begin(ctx)
	}
	switch {
	case lost != nil:
		return err
	case elsewhere && (u.offset == before || u.offset == 0):
		// It is where the chunk began: then it is the chunk that it does not want.
		// GitHub says so of one of more than 4 MiB (github.com/ocx-sh/ocx/pull/237).
		return u.shrink(min(u.chunk, u.size-before))
	}
	return nil
}

// shrink makes the chunks smaller than one of n bytes, which was refused.
// Errors: errNoChunks if they are as small as can be.
func (u *upload) shrink(n int64) error {
	if n <= minChunk {
		return errNoChunks
	}
	u.chunk = max(n/4, minChunk)
	return nil
}

// broken reports whether err is that of a connection, not an answer.
func broken(ctx context.Context, err error) bool {
	return ctx.Err() == nil && (errors.Is(err, backends.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded))
}

// begin opens an upload.
func (u *upload) begin(ctx context.Context) error {
	req, err := u.c.request(ctx, http.MethodPost, "/v2/"+u.repo+"/blobs/uploads/", nil)
	if err != nil {
		return err
	}
	resp, err := u.c.do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if least, err := strconv.ParseInt(resp.Header.Get("OCI-Chunk-Min-Length"), 10, 64); err == nil && least > u.chunk {
		u.chunk = min(least, 1<<40)
	}
	u.offset = 0
	return u.follow(resp)
}

// follow takes the place at which the upload goes on. It must be on the
// registry: the bytes and the login go there.
func (u *upload) follow(resp *http.Response) error {
	location := resp.Header.Get("Location")
	if location == "" {
		if u.location == nil {
			return fmt.Errorf("%w: upload without a Location", backends.ErrBadAnswer)
		}
		return nil
	}
	next, err := u.c.base.Parse(location)
	if err != nil {
		return fmt.Errorf("%w: upload Location: %v", backends.ErrBadAnswer, err)
	}
	if strings.EqualFold(next.Host, u.c.base.Host) {
		// A registry behind a TLS proxy often believes that it speaks http.
		next.Scheme = u.c.base.Scheme
	}
	if !sameOrigin(next, u.c.base) {
		return fmt.Errorf("%w: %w: %s, by %s", backends.ErrBadAnswer, errForeignUpload, backends.Origin(next), u.c.base.Host)
	}
	u.location = next
	return nil
}

// resume takes up an upload that was begun before, if the registry still knows it.
func (u *upload) resume(ctx context.Context, location string) error {
	saved, err := url.Parse(location)
	if err != nil || !sameOrigin(saved, u.c.base) {
		return nil
	}
	u.location = saved
	err = u.status(ctx)
	if err == nil || ctx.Err() != nil || broken(ctx, err) || errors.Is(err, backends.ErrRateLimited) {
		return err
	}
	u.location, u.offset, u.unsure = nil, 0, false
	return nil
}

// status asks how much the registry has.
func (u *upload) status(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.location.String(), nil)
	if err != nil {
		return err
	}
	resp, err := u.c.do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	end, err := uploaded(resp.Header.Get("Range"))
	if err != nil {
		return err
	}
	if end == 1 {
		// "0-0" is what docker-registry says of one byte and of none.
		return backends.NotFound("nothing was uploaded")
	}
	if end > u.size {
		return fmt.Errorf("%w: upload of %d bytes has %d", backends.ErrBadAnswer, u.size, end)
	}
	u.offset, u.unsure = end, true
	return u.follow(resp)
}

var uploadRange = regexp.MustCompile(`^(?:bytes[= ])?0-(\d+)$`)

// uploaded returns how many bytes the Range header of an upload speaks of.
func uploaded(header string) (int64, error) {
	m := uploadRange.FindStringSubmatch(strings.TrimSpace(header))
	if m == nil {
		return 0, fmt.Errorf("%w: upload with the Range %q", backends.ErrBadAnswer, header)
	}
	last, err := strconv.ParseInt(m[1], 10, 62)
	if err != nil {
		return 0, fmt.Errorf("%w: upload with the Range %q", backends.ErrBadAnswer, header)
	}
	return last + 1, nil
}

// patch sends the next chunk.
func (u *upload) patch(ctx context.Context) error {
	n := min(u.chunk, u.size-u.offset)
	req, err := u.body(ctx, http.MethodPatch, u.location, u.offset, n)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", u.offset, u.offset+n-1))
	resp, err := u.c.do(req, http.StatusRequestEntityTooLarge, http.StatusRequestedRangeNotSatisfiable,
		http.StatusMethodNotAllowed, http.StatusNotImplemented)
	if errors.Is(err, errors.ErrUnsupported) {
		return errNoChunks // said by a code, with another status
	}
	if err != nil {
		u.refused = errors.Is(err, fs.ErrNotExist) || isOdd(err)
		return err
	}
	switch resp.StatusCode {
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		resp.Body.Close()
		return errNoChunks
	case http.StatusRequestedRangeNotSatisfiable:
		resp.Body.Close()
		return fmt.Errorf("%w than that from %d", errElsewhere, u.offset)
	case http.StatusRequestEntityTooLarge:
		resp.Body.Close()
		if u.shrink(n) != nil {
			return fmt.Errorf("%w: the registry refuses requests of %d bytes (its proxy's limit? client_max_body_size)", fs.ErrPermission, n)
		}
		return nil
	}
	resp.Body.Close()
	end := u.offset + n
	if header := resp.Header.Get("Range"); header != "" {
		if end, err = u.taken(header, n); err != nil {
			return err
		}
	}
	u.offset = end
	return u.follow(resp)
}

// taken returns where an upload is after a chunk of n bytes that the registry took,
// by the Range of its answer.
func (u *upload) taken(header string, n int64) (int64, error) {
	end, err := uploaded(header)
	switch {
	case err != nil:
		return 0, err
	case end > u.offset+n:
		return 0, fmt.Errorf("%w: %d bytes sent from %d, the registry says it has %d", backends.ErrBadAnswer, n, u.offset, end)
	case end <= u.offset:
		// ECR goes on telling where its first chunk ended, and has all of them
		// (github.com/aws/containers-roadmap/issues/2831). The digest decides.
		u.unsure = true
		return u.offset + n, nil
	}
	return end, nil
}

// whole uploads everything in one request.
func (u *upload) whole(ctx context.Context) error {
	if err := u.begin(ctx); err != nil {
		return err
	}
	return u.put(ctx, 0, u.size)
}

// put ends the upload with n more bytes from off; the registry compares the
// digest.
func (u *upload) put(ctx context.Context, off, n int64) error {
	target := *u.location
	query := target.Query()
	query.Set("digest", u.digest)
	target.RawQuery = query.Encode()
	req, err := u.body(ctx, http.MethodPut, &target, off, n)
	if err != nil {
		return err
	}
	resp, err := u.c.do(req)
	if err != nil {
		if broken(ctx, err) {
			// The answer may be what got lost.
			if size, lookErr := u.c.blobSize(ctx, u.repo, u.digest); lookErr == nil && size == u.size {
				return nil
			}
		}
		return err
	}
	resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != u.digest {
		return fmt.Errorf("%w: %s stored as %s", backends.ErrCorrupt, u.digest, got)
	}
	return nil
}

// body makes a request that carries n bytes of the content from off, and can
// carry them again after a login.
func (u *upload) body(ctx context.Context, method string, to *url.URL, off, n int64) (*http.Request, error) {
	open := func() (io.ReadCloser, error) {
		if n == 0 {
			return http.NoBody, nil
		}
		return io.NopCloser(&meteredReader{r: io.NewSectionReader(u.content, off, n), meter: u.meter, at: off}), nil
	}
	body, _ := open() // cannot fail
	req, err := http.NewRequestWithContext(ctx, method, to.String(), body)
	if err != nil {
		return nil, fmt.Errorf("%w: upload Location: %v", backends.ErrBadAnswer, err)
	}
	req.ContentLength, req.GetBody = n, open
	req.Header.Set("Content-Type", "application/octet-stream")
	return req, nil
}

// A progressMeter reports progress, one call at a time: the end of a failed request and
// the beginning of the next can overlap.
type progressMeter struct {
	mu     sync.Mutex
	report func(int64)
}

func (m *progressMeter) at(n int64) {
	if m == nil || m.report == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.report(n)
}

// A meteredReader reports its reads.
type meteredReader struct {
	r     io.Reader
	meter *progressMeter
	at    int64
}

func (m *meteredReader) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.at += int64(n)
	m.meter.at(m.at)
	return n, err
}
