// SPDX-License-Identifier: Apache-2.0

package swift

import (
	"context"
	"crypto/md5" //nolint:gosec // what Swift compares; the SHA-256 is checked too
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

// A large object is a manifest that names its segments (Swift's API, "Static Large Objects").
// They are in a container beside, where python-swiftclient and rclone have theirs:
//
//	<container>_segments/<object>/sregfs/<upload>/<number>
//
// Each is stored with a time at which Swift removes it by itself. That is taken back right before
// the manifest is written, so what a push leaves that is never gone on with costs nothing for
// long, even if nobody comes by any more.

const (
	partSize = 128 << 20 // bytes
	parallel = 4         // segments of one push under way

	lifetime = 6 * 24 * time.Hour // of an upload that is gone on with
	keptFor  = 8 * 24 * time.Hour // of its segments

	cleaning = time.Minute // for what is removed after a push has failed
)

// An upload is what is known of an earlier try of a push.
type upload struct {
	ID      string    `json:"id,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Part    int64     `json:"part,omitempty"` // bytes of a segment
	Sums    []string  `json:"sums,omitempty"` // the MD5 of each segment; "" if it is not stored
}

// A largePush is one call of putLarge.
type largePush struct {
	*store
	src       backends.Source
	container string  // of the segments
	prefix    string  // of their names
	sizes     []int64 // of each segment
	memo      *uploads.Memo[upload]
	meter     *meter

	mu sync.Mutex // guards memo
}

// putLarge is Put for what is stored in segments.
func (s *store) putLarge(ctx context.Context, path string, src backends.Source, old string, l *limits) (files.File, error) {
	o := s.at(path)
	p := &largePush{store: s, src: src, container: o.container + segments, memo: uploads.Recall[upload](&s.unsaved, path, src, s.log), meter: &meter{src: src}}
	if u := &p.memo.State; u.Part < 1 || time.Since(u.Started) > lifetime || int64(len(u.Sums)) != count(src.Size, u.Part) {
		part := s.part
		if most := l.SLO.MaxSegments; most > 0 {
			part = max(part, count(src.Size, most))
		}
		*u = newUpload(part, int(count(src.Size, part)))
		p.memo.Save()
	}
	for off := int64(0); off < src.Size; off += p.memo.State.Part {
		p.sizes = append(p.sizes, min(p.memo.State.Part, src.Size-off))
	}
	p.prefix = segmentPrefix(o.name, p.memo.State.ID)
	if err := s.ensureSegments(ctx, o.container, p.container); err != nil {
		return files.File{}, err
	}
	if err := p.send(ctx); err != nil {
		if errors.Is(err, backends.ErrCorrupt) {
			p.abandon(ctx)
		}
		return files.File{}, err
	}
	return p.finish(ctx, path, old)
}

func newUpload(part int64, n int) upload {
	return upload{ID: strings.ToLower(rand.Text()), Started: time.Now(), Part: part, Sums: make([]string, n)}
}

func segmentPrefix(name, id string) string { return name + "/sregfs/" + id + "/" }

// finish gives the name to the segments, which are all stored.
func (p *largePush) finish(ctx context.Context, path, old string) (files.File, error) {
	c := change{path: path, old: old, etag: p.etag(), commit: func() error {
		if err := p.keep(ctx); err != nil {
			return err
		}
		return p.src.MayCommit()
	}}
	written := false
	f, err := p.change(ctx, c, func(ctx context.Context, create bool) error {
		err := p.manifest(ctx, p.at(path), create)
		written = err == nil
		return err
	})
	switch {
	case err == nil:
		p.memo.Forget()
	case written && !errors.Is(err, backends.ErrChanged): // it is an image, of which no more is known
	case ctx.Err() == nil && !unsure(err):
		p.abandon(ctx)
	}
	return f, err
}

// count returns how many parts of that size there are in a whole.
func count(size, part int64) int64 { return (size + part - 1) / part }

// unsure reports whether a request that failed may have done what it should, or will do so if
// it is sent again.
func unsure(err error) bool {
	return errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrBadAnswer) || errors.Is(err, backends.ErrRateLimited) || errors.Is(err, backends.ErrUnauthorized) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// segment returns the object that a segment is.
func (p *largePush) segment(i int) object {
	return object{p.container, fmt.Sprintf("%s%08d", p.prefix, i)}
}

// etag is what Swift makes of the sums.
func (p *largePush) etag() string {
	return fmt.Sprintf("%x", md5.Sum([]byte(strings.Join(p.memo.State.Sums, "")))) //nolint:gosec // as above
}

// send stores all segments that are not, and meanwhile compares the digest of the whole.
func (p *largePush) send(ctx context.Context) error {
	g, reading := errgroup.WithContext(ctx)
	g.Go(func() error {
		return backends.Guard(nil, func() error {
			sum := sha256.New()
			if err := copyContent(ctx, sum, p.src, 0, p.src.Size); err != nil {
				return err
			}
			return sameDigest(p.src, sum.Sum(nil))
		})
	})
	// After an error no more are begun, but those under way go on: what is stored need not be sent again.
	senders, failed := errgroup.WithContext(reading)
	senders.SetLimit(parallel)
	off := int64(0)
	for i, sum := range p.stored() {
		at := off
		if off += p.sizes[i]; sum != "" {
			p.meter.add(int(p.sizes[i]))
			continue
		}
		if failed.Err() != nil {
			break
		}
		senders.Go(func() error { return backends.Guard(nil, func() error { return p.sendOne(ctx, i, at) }) })
	}
	g.Go(senders.Wait)
	return backends.Raise(g.Wait())
}

// stored returns the sums as they are now.
func (p *largePush) stored() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.memo.State.Sums...)
}

func (p *largePush) sendOne(ctx context.Context, i int, off int64) error {
	sum := md5.New() //nolint:gosec // as above
	resp, err := p.do(ctx, http.MethodPut, p.segment(i), nil, func(req *http.Request) error {
		sum.Reset()
		setContent(req, p.src, off, p.sizes[i], p.meter, sum)
		req.Header.Set("Content-Type", "application/octet-stream")
		req.Header.Set("X-Delete-At", expiry())
		return nil
	})
	if err != nil {
		return err
	}
	resp.Body.Close()
	want := fmt.Sprintf("%x", sum.Sum(nil))
	if got := version(resp.Header.Get("Etag")); got != want {
		return fmt.Errorf("%w: a segment is stored with the MD5 %q, and was sent with %s", backends.ErrCorrupt, got, want)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.memo.State.Sums[i] = want
	p.memo.Save()
	return nil
}

// each calls fn with all segments, several at once.
func (p *largePush) each(fn func(i int) error) error {
	var g errgroup.Group
	g.SetLimit(parallel)
	for i := range p.memo.State.Sums {
		g.Go(func() error { return backends.Guard(nil, func() error { return fn(i) }) })
	}
	return backends.Raise(g.Wait())
}

// keep takes back the time at which the segments would be removed.
func (p *largePush) keep(ctx context.Context) error {
	err := p.each(func(i int) error {
		resp, err := p.do(ctx, http.MethodPost, p.segment(i), nil, nil) // what is not set is taken away
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	if errors.Is(err, fs.ErrNotExist) {
		p.abandon(ctx)
		return fmt.Errorf("%w: a segment that was stored is gone: %v", backends.ErrUnavailable, err)
	}
	return err
}

// manifest writes the manifest, which gives the object its name. Swift looks at each segment before.
func (p *largePush) manifest(ctx context.Context, o object, create bool) error {
	type entry struct {
		Path string `json:"path"`
		ETag string `json:"etag"`
		Size int64  `json:"size_bytes"`
	}
	all := make([]entry, len(p.memo.State.Sums))
	for i, sum := range p.memo.State.Sums {
		all[i] = entry{"/" + p.container + "/" + p.segment(i).name, sum, p.sizes[i]}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	resp, err := p.do(ctx, http.MethodPut, o, url.Values{"multipart-manifest": {"put"}}, func(req *http.Request) error {
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(string(text))), int64(len(text))
		describe(req, p.src, create)
		return nil
	}, http.StatusBadRequest)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusBadRequest {
		return resp.Body.Close()
	}
	p.abandon(ctx) // a segment is not what it was
	return fmt.Errorf("%w: the segments are not taken: %v", backends.ErrUnavailable, httpx.Error(resp))
}

// abandon removes the segments of a push that is not gone on with.
func (p *largePush) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleaning)
	defer cancel()
	err := p.each(func(i int) error { return p.gone(ctx, p.segment(i)) })
	if err != nil {
		p.log.Warn("segments of a push that failed are left", "container", p.container, "prefix", p.prefix, "err", err)
	}
	p.memo.Forget()
}

// gone removes a segment, which may be gone already.
func (s *store) gone(ctx context.Context, o object) error {
	if err := s.remove(ctx, o, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ensureSegments makes the container of segments, if it is not there, for whom the other one is.
func (s *store) ensureSegments(ctx context.Context, container, beside string) error {
	if known, _ := s.known.Get(beside); known {
		return nil
	}
	resp, err := s.do(ctx, http.MethodHead, object{container: beside}, nil, nil, http.StatusForbidden, http.StatusNotFound)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		like, err := s.do(ctx, http.MethodHead, object{container: container}, nil, nil, http.StatusForbidden)
		if err != nil {
			return err
		}
		like.Body.Close()
		h := http.Header{}
		for _, name := range []string{"X-Storage-Policy", "X-Container-Read"} {
			if value := like.Header.Get(name); value != "" {
				h.Set(name, value)
			}
		}
		if err := s.create(ctx, beside, h); err != nil {
			return err
		}
	}
	s.known.Put(beside, true)
	return nil
}

// dynamicHeader is what an object of the older kind of large ones has: "container/prefix".
const dynamicHeader = "X-Object-Manifest"

// isLarge reports whether an object is made of segments that a manifest names.
func isLarge(h http.Header) bool { return strings.EqualFold(h.Get("X-Static-Large-Object"), "true") }

// A part is an entry of a manifest. There are others that we do not write: parts of objects,
// manifests again, bytes.
type part struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	Hash  string `json:"hash"`
	Range string `json:"range"`
	Sub   bool   `json:"sub_slo"`
	Data  string `json:"data"`
}

func (p part) object() object {
	container, name, _ := strings.Cut(strings.TrimPrefix(p.Name, "/"), "/")
	return object{container, name}
}

// parts reads a manifest.
func (s *store) parts(ctx context.Context, o object) (all []part, err error) {
	resp, err := s.do(ctx, http.MethodGet, o, url.Values{"multipart-manifest": {"get"}}, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := readManifest(resp.Body)
	if err != nil {
		return nil, err
	}
	return all, httpx.Decode(text, &all)
}

// segmentsOf returns what a large object is made of, as far as that is where only segments are.
func (s *store) segmentsOf(ctx context.Context, path string, h http.Header) (all []object, err error) {
	if isLarge(h) {
		parts, err := s.parts(ctx, s.at(path))
		for _, p := range parts {
			if o := p.object(); o.name != "" && hidden(o.container) {
				all = append(all, o)
			}
		}
		return all, err
	}
	// The older kind of large objects, which is all names that begin so.
	where, err := url.PathUnescape(h.Get(dynamicHeader))
	if err != nil {
		return nil, nil
	}
	container, prefix, _ := strings.Cut(where, "/")
	if prefix == "" || !hidden(container) {
		return nil, nil
	}
	for e, err := range s.pages(ctx, object{container: container}, prefix, url.Values{}) {
		if err != nil {
			return nil, err
		}
		all = append(all, object{container, e.Name})
	}
	return all, nil
}

// duplicateLarge is Duplicate for an object that is made of segments: each is copied. Two that
// are made of the same would both end with one of them.
func (s *store) duplicateLarge(ctx context.Context, f files.File, path, old string, commit func() error) (files.File, error) {
	parts, err := s.parts(ctx, s.at(f.Path))
	if err != nil {
		return files.File{}, err
	}
	to, u := s.at(path), newUpload(0, len(parts))
	src := backends.Source{Size: f.Size, Digest: f.Digest, Commit: commit}
	p := &largePush{store: s, src: src, container: to.container + segments, prefix: segmentPrefix(to.name, u.ID), meter: &meter{src: src}}
	for i, part := range parts {
		if part.Range != "" || part.Sub || part.Data != "" || part.object().name == "" {
			return files.File{}, fmt.Errorf("%w: its manifest has more than segments", errors.ErrUnsupported)
		}
		u.Sums[i], p.sizes = part.Hash, append(p.sizes, part.Bytes)
	}
	p.memo = uploads.Recall[upload](&s.unsaved, path+"\x00"+u.ID, src, s.log)
	p.memo.State = u
	if p.etag() != f.Version {
		return files.File{}, backends.ErrChanged
	}
	if err := s.ensureSegments(ctx, to.container, p.container); err != nil {
		return files.File{}, err
	}
	if err := p.each(func(i int) error { return s.copy(ctx, parts[i].object(), p.segment(i), parts[i].Hash, expiry()) }); err != nil {
		p.abandon(ctx)
		return files.File{}, err
	}
	return p.finish(ctx, path, old)
}

const maxManifest = 16 << 20 // bytes; Swift's default is 8 MiB

func readManifest(body io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(body, maxManifest+1))
	switch {
	case err != nil:
		return nil, backends.TransportError(err)
	case len(text) > maxManifest:
		return nil, fmt.Errorf("%w: a manifest of more than %d bytes", backends.ErrBadAnswer, maxManifest)
	}
	return text, nil
}

// removeSegments removes what a large object was made of that is replaced.
func (s *store) removeSegments(ctx context.Context, all []object) {
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, o := range all {
		g.Go(func() error { return backends.Guard(nil, func() error { return s.gone(ctx, o) }) })
	}
	if err := backends.Raise(g.Wait()); err != nil {
		s.log.Warn("segments of an object that was replaced are left", "container", all[0].container, "first", all[0].name, "err", err)
	}
}

// bulkResult reads the answer to the removal of a large object, whose status tells nothing.
func bulkResult(resp *http.Response) error {
	var got struct {
		Status string     `json:"Response Status"`
		Errors [][]string `json:"Errors"`
	}
	if err := httpx.JSON(resp.Body, &got); err != nil {
		return err
	}
	var status int
	if _, err := fmt.Sscan(got.Status, &status); err != nil {
		return fmt.Errorf("%w: a removal with the result %.40q", backends.ErrBadAnswer, got.Status)
	}
	if status/100 == 2 {
		return nil
	}
	detail := got.Status
	for _, e := range got.Errors {
		if len(e) == 2 && !strings.HasPrefix(e[1], "404") {
			detail = e[0] + ": " + e[1]
			_, _ = fmt.Sscan(e[1], &status) // that of one object: the whole is always "400"
		}
	}
	return fmt.Errorf("%w (%.200q)", httpx.Error(&http.Response{StatusCode: status}), detail)
}

// expiry is when segments that nobody waits for any more are to go.
func expiry() string { return strconv.FormatInt(time.Now().Add(keptFor).Unix(), 10) }

// A meter tells how much several requests at once have sent.
type meter struct {
	src backends.Source

	mu   sync.Mutex // guards the fields below, and calls of Progress
	sent int64
	told int64
}

const step = 1 << 20 // bytes between two reports

// add counts n bytes. Those of a request that failed are counted again by the next.
func (m *meter) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent = min(m.sent+int64(n), m.src.Size)
	if m.src.Progress != nil && m.sent-m.told >= step {
		m.told = m.sent
		m.src.Progress(m.sent)
	}
}
