// SPDX-License-Identifier: Apache-2.0

package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/hub"
	"github.com/sregfs/sregfs/backends/hub/hubtest"
)

func hello(tag string) hubtest.Image {
	return hubtest.Image{Name: "org/hello", Tag: tag, Content: []byte("the bytes of " + tag)}
}

// What docs/backends/hub.md says of requests, with as many images as there are.
func TestRequests(t *testing.T) {
	t.Parallel()
	srv := hubtest.Start(t, hubtest.Options{})
	const count = 6_200
	for i := range count {
		srv.Add(hubtest.Image{Name: fmt.Sprintf("org%d/repo%d", i%300, i%3000), Tag: fmt.Sprintf("tag%d", i), Content: fmt.Appendf(nil, "image %d", i)})
	}
	dir := filepath.Join(t.TempDir(), "cache")
	wantRequests := func(what string, want int) {
		t.Helper()
		if got := srv.Requests(); len(got) != want {
			t.Errorf("%s: %d requests, want %d: %.300q", what, len(got), want, got)
		}
	}
	b := open(t, srv.Config(), dir, nil)
	wantRequests("to open the remote", 0)
	all, err := everything(t.Context(), b)
	if err != nil || len(all) != count {
		t.Fatalf("%d images, %v", len(all), err)
	}
	wantRequests("to list everything the first time", 1)
	if _, err := everything(t.Context(), b); err != nil {
		t.Error(err)
	}
	wantRequests("to list everything again", 0)

	other := open(t, srv.Config(), dir, nil) // as another process
	if all, err := everything(t.Context(), other); err != nil || len(all) != count {
		t.Errorf("%d images, %v", len(all), err)
	}
	for _, name := range all[:100] {
		statted(t, other, name)
	}
	wantRequests("to list and look in another process", 0)
	body, err := other.Open(t.Context(), statted(t, other, all[0]), 0, 5)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	wantRequests("to read", 1)
}

func TestIndex_onceForAll(t *testing.T) {
	t.Parallel()
	srv := hubtest.Start(t, hubtest.Options{}, hello("1"), hello("2"))
	b := newRemote(t, srv)
	var g errgroup.Group
	for i := range 40 {
		g.Go(func() error {
			if i%2 == 0 {
				_, err := everything(t.Context(), b)
				return err
			}
			_, err := b.Stat(t.Context(), ref(t, "org/hello:1"))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if got := srv.Requests(); len(got) != 1 {
		t.Errorf("requests: %q, want one", got)
	}
}

// Whoever has no more time leaves; the index arrives for the others all the same.
func TestIndex_slow(t *testing.T) {
	t.Parallel()
	srv := hubtest.Start(t, hubtest.Options{}, hello("1"))
	asked, release := make(chan struct{}), make(chan struct{})
	text := hubtest.Index([]hubtest.Image{hello("1")})
	srv.Break(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(asked) // panics if it is asked for twice
		<-release
		_, _ = w.Write(text)
	}))
	b := newRemote(t, srv)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := everything(ctx, b); !errors.Is(err, context.Canceled) {
		t.Errorf("List of one who left: %v", err)
	}
	close(release)
	if all, err := everything(t.Context(), b); err != nil || len(all) != 1 {
		t.Errorf("List of one who stayed: %q, %v", all, err)
	}
}

func TestIndex_keptDamaged(t *testing.T) {
	t.Parallel()
	srv := hubtest.Start(t, hubtest.Options{}, hello("1"), hello("2"))
	dir := t.TempDir()
	load := func() {
		t.Helper()
		if all, err := everything(t.Context(), open(t, srv.Config(), dir, nil)); err != nil || len(all) != 2 {
			t.Errorf("%q, %v", all, err)
		}
	}
	load()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("%v in the cache, %v", files, err)
	}
	kept := filepath.Join(dir, files[0].Name())
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the kept index: %v, %v, want mode 0600", info.Mode(), err)
	}
	good, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	srv.Requests()
	flipped := bytes.Clone(good)
	flipped[bytes.Index(flipped, []byte(`"size": `))+len(`"size": `)] ^= 1 // another number
	for name, text := range map[string][]byte{
		"flipped": flipped, "cut": good[:len(good)/2], "empty": {}, "header alone": good[:95], "other header": append([]byte("sregfs index 9"), good...),
		"longer": append(bytes.Clone(good), "{}"...), "rubbish": []byte("\x00\x01\x02"),
	} {
		if err := os.WriteFile(kept, text, 0o600); err != nil {
			t.Fatal(err)
		}
		load()
		if got := srv.Requests(); len(got) != 1 {
			t.Errorf("%s: requests %q, want the index", name, got)
		}
		load()
		if got := srv.Requests(); len(got) != 0 {
			t.Errorf("%s: requests %q after it was kept again", name, got)
		}
	}
	// What cannot be a file of ours is left alone, and does without.
	if err := errors.Join(os.Remove(kept), os.Mkdir(kept, 0o700)); err != nil {
		t.Fatal(err)
	}
	load()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v left in the cache, %v", left, err)
	}
	// Deleting it is how one asks for the newest.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	srv.Requests()
	load()
	if got := srv.Requests(); len(got) != 1 {
		t.Errorf("requests %q after the cache was deleted", got)
	}
}

// An index that was kept from another address is not this one.
func TestIndex_otherAddress(t *testing.T) {
	t.Parallel()
	one, two := hubtest.Start(t, hubtest.Options{}, hello("1")), hubtest.Start(t, hubtest.Options{}, hello("2"))
	dir := t.TempDir()
	for want, srv := range map[string]*hubtest.Server{"org/hello:1": one, "org/hello:2": two} {
		if all, err := everything(t.Context(), open(t, srv.Config(), dir, nil)); err != nil || !cmp.Equal(all, []string{want}) {
			t.Errorf("%q, %v, want %q", all, err, want)
		}
	}
}

func TestIndex_twoProcesses(t *testing.T) {
	t.Parallel()
	srv := hubtest.Start(t, hubtest.Options{}, hello("1"), hello("2"))
	dir := filepath.Join(t.TempDir(), "cache")
	var g errgroup.Group
	for range 8 {
		b := open(t, srv.Config(), dir, nil)
		g.Go(func() error {
			all, err := everything(t.Context(), b)
			if err == nil && len(all) != 2 {
				err = fmt.Errorf("listed %q", all)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v in the cache, %v", left, err)
	}
	srv.Break(hubtest.Status(http.StatusBadGateway))
	if all, err := everything(t.Context(), open(t, srv.Config(), dir, nil)); err != nil || len(all) != 2 {
		t.Errorf("with the archive down: %q, %v", all, err)
	}
}

// A cache that cannot be written costs the index's being kept, no more.
func TestIndex_noRoom(t *testing.T) {
	t.Parallel()
	srv := hubtest.Start(t, hubtest.Options{}, hello("1"))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log lines
	if all, err := everything(t.Context(), open(t, srv.Config(), filepath.Join(file, "cache"), log.logger())); err != nil || len(all) != 1 {
		t.Errorf("%q, %v", all, err)
	}
	if !strings.Contains(log.String(), "not kept") {
		t.Errorf("log: %s", &log)
	}
}

// lines is a log.
type lines struct {
	mu  sync.Mutex // guards the field below
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// Where there is no index, nothing is listed, and what is named is opened.
func TestIndex_missing(t *testing.T) {
	t.Parallel()
	srv := hubtest.Start(t, hubtest.Options{NoIndex: true}, hello("1"))
	b := newRemote(t, srv)
	for _, collection := range []string{"", "org", "none"} {
		for _, err := range b.List(t.Context(), collection) {
			if !errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("List(%q): %v, want errors.ErrUnsupported", collection, err)
			}
		}
	}
	srv.Requests()
	img := statted(t, b, "org/hello:1")
	if img.Size != int64(len(hello("1").Content)) || img.Digest != "md5:"+hello("1").Version() || img.Format != "sif" {
		t.Errorf("Stat: %+v", img)
	}
	if text, err := read(t, b, img, 4, 5); err != nil || text != "bytes" {
		t.Errorf("read %q, %v", text, err)
	}
	// One for the service, one for the size, one for the bytes; none for the index so soon.
	if got := srv.Requests(); len(got) != 3 {
		t.Errorf("requests: %q, want three", got)
	}
	// As another process, which knows the image from its catalogue.
	if text, err := read(t, newRemote(t, srv), img, 4, 5); err != nil || text != "bytes" {
		t.Errorf("read %q, %v", text, err)
	}
	if _, err := b.Stat(t.Context(), ref(t, "org/hello:none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of what is not there: %v", err)
	}
}

func read(t *testing.T, b backends.Backend, img backends.Image, off, n int64) (string, error) {
	t.Helper()
	body, err := b.Open(t.Context(), img, off, n)
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	return string(text), err
}

// An archive that is down is unavailable: no name is said to be gone.
func TestIndex_down(t *testing.T) {
	t.Parallel()
	srv := hubtest.Start(t, hubtest.Options{}, hello("1"))
	srv.Break(hubtest.Status(http.StatusServiceUnavailable))
	b := newRemote(t, srv)
	if _, err := everything(t.Context(), b); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("List: %v, want ErrUnavailable", err)
	}
	if _, err := b.Stat(t.Context(), ref(t, "org/hello:1")); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("Stat: %v, want ErrUnavailable", err)
	}
	srv.Break(nil)
	if all, err := everything(t.Context(), b); err != nil || len(all) != 1 {
		t.Errorf("List of an archive that is back: %q, %v", all, err)
	}
}

// A directory is a page of people; another owner of the address has pages, too.
func TestIndex_page(t *testing.T) {
	t.Parallel()
	srv := hubtest.Start(t, hubtest.Options{}, hello("1"))
	for _, status := range []int{http.StatusOK, http.StatusNotFound} {
		srv.Break(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(status)
			fmt.Fprint(w, "<h1>This domain is for sale</h1>")
		}))
		b := newRemote(t, srv)
		if _, err := b.Stat(t.Context(), ref(t, "org/hello:1")); !errors.Is(err, backends.ErrBadAnswer) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat from pages with status %d: %v, want ErrBadAnswer", status, err)
		}
		if all, err := everything(t.Context(), b); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("List from pages with status %d: %q, %v", status, all, err)
		}
	}
}

// endless is a body that does not end: begin, then again and again the next.
type endless struct {
	begin, next string
	rest        string
	read        int64
}

func (e *endless) Read(p []byte) (int, error) {
	if e.begin != "" {
		e.rest, e.begin = e.begin, ""
	}
	n := 0
	for n < len(p) {
		if e.rest == "" {
			e.rest = e.next
		}
		k := copy(p[n:], e.rest)
		e.rest = e.rest[k:]
		n += k
	}
	e.read += int64(n)
	return n, nil
}

// An index that has no end is refused within bounds of memory, wherever in it the
// end is missing.
func TestIndex_endless(t *testing.T) {
	record := func(file string) string {
		return `{"tag":"1","version":"` + strings.Repeat("0a", 16) + `","size":1,"file":"` + file + strings.Repeat("0a", 16) + `.sif","collection":1}`
	}
	// A sixteenth of what is allowed, for the race detector's sake.
	const allowed = hub.MaxIndex / 16
	for name, e := range map[string]*endless{
		"space":       {next: strings.Repeat(" ", 512)},
		"word":        {begin: `{"`, next: "aaaaaaaaaaaaaaaa"},
		"text":        {begin: `{"images":{"a/b":[{"tag":"`, next: "aaaaaaaaaaaaaaaa"},
		"depth":       {begin: `{"images":{"a/b":[{"tag":`, next: strings.Repeat("[", 512)},
		"top":         {begin: `{"other":`, next: strings.Repeat("[", 512)},
		"builds":      {begin: `{"images":{"a/b":[` + record("x"), next: "," + record("x")},
		"bad builds":  {begin: `{"images":{"a/b":[` + record("../"), next: "," + record("../")},
		"empties":     {begin: `{"images":{"a/b":[{}`, next: ",{}"},
		"repos":       {begin: `{"images":{"a/b":[]`, next: `,"a/b":[]`},
		"collections": {begin: `{"images":{},"collections":{"1":{}`, next: `,"1":{}`},
	} {
		hc := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			return &http.Response{
				StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
				ContentLength: 10 << 30, Body: io.NopCloser(e), Request: req,
			}, nil
		})}
		b := openVia(t, hc, nil, "", nil)
		hub.SetMaxIndex(b, allowed)
		var before runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		peak := watchHeap()
		_, err := everything(t.Context(), b)
		most := peak() - min(before.HeapAlloc, peak())
		if !errors.Is(err, backends.ErrBadAnswer) {
			t.Errorf("%s: %v, want ErrBadAnswer", name, err)
		}
		t.Logf("%-12s %5d KiB read, %5d KiB of memory at most", name, e.read>>10, most>>10)
		if e.read > allowed+2<<20 || most > 12*allowed {
			t.Errorf("%s: %d bytes read, %d of memory", name, e.read, most)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// watchHeap returns a function that ends the watch and tells the largest heap seen.
func watchHeap() (peak func() uint64) {
	end, seen := make(chan struct{}), make(chan uint64, 1)
	go func() {
		ticks := time.NewTicker(20 * time.Millisecond)
		defer ticks.Stop()
		for most := uint64(0); ; {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
			select {
			case <-ticks.C:
			case <-end:
				seen <- most
				return
			}
		}
	}()
	return sync.OnceValue(func() uint64 { close(end); return <-seen })
}

// What an index can say wrongly: everything but the record at fault stays.
func TestIndex_hostile(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("0a", 16)
	record := func(change map[string]any) map[string]any {
		r := map[string]any{"id": 1, "tag": "1", "branch": "b", "commit": "c", "version": good, "build_date": "2019-07-12T14:00:00.000Z",
			"size": 10, "size_mb": "1", "collection": 1, "md5": good, "file": "a/b/1/x/" + good + ".sif", "file_orig": "x"}
		for k, v := range change {
			r[k] = v
		}
		return r
	}
	bad := []map[string]any{
		record(map[string]any{"tag": ""}), record(map[string]any{"tag": ".."}), record(map[string]any{"tag": "x/../../y"}), record(map[string]any{"tag": "nul\x00"}),
		record(map[string]any{"tag": 7}), record(map[string]any{"tag": []int{}}), record(map[string]any{"version": "no version"}), record(map[string]any{"version": "../" + good[3:]}),
		record(map[string]any{"size": -1}), record(map[string]any{"size": 1e300}), record(map[string]any{"size": "10"}), record(map[string]any{"size": nil}),
		record(map[string]any{"file": "../../etc/passwd.sif"}), record(map[string]any{"file": "/etc/passwd.sif"}), record(map[string]any{"file": "a/b/x.txt"}),
		record(map[string]any{"file": "https://evil.example/x.sif"}), record(map[string]any{"file": nil}), record(map[string]any{"md5": strings.Repeat("1b", 16)}),
		{}, record(map[string]any{"version": nil, "file": "a/b/unversioned.sif"}),
	}
	odd := []map[string]any{
		record(map[string]any{"tag": "new\nline \x1b[31m"}), record(map[string]any{"tag": "späße/ö:1"}), record(map[string]any{"tag": "undated", "build_date": "yesterday"}),
		record(map[string]any{"tag": "no collection", "collection": map[string]int{}}), record(map[string]any{"tag": "no md5", "md5": nil}),
	}
	images := map[string]any{"a/b": append(append([]map[string]any{record(nil)}, bad...), odd...)}
	for _, name := range []string{"", "/", "a", "a/", "/b", "../b", "a/..", "a/b/c", "a/b:c", "a\x00/b"} {
		images[name] = []map[string]any{record(map[string]any{"tag": "in " + name})}
	}
	text, err := json.Marshal(map[string]any{"images": images, "collections": map[string]any{"1": 7, "2": map[string]any{"license": "MIT"}}})
	if err != nil {
		t.Fatal(err)
	}
	srv := hubtest.Start(t, hubtest.Options{})
	srv.SetIndex(text)
	var log lines
	b := open(t, srv.Config(), "", log.logger())
	all, err := everything(t.Context(), b)
	want := []string{"a/b:1", "a/b:new%0Aline %1B[31m", "a/b:no collection", "a/b:no md5", "a/b:späße%2Fö%3A1", "a/b:undated"}
	if diff := cmp.Diff(want, all); err != nil || diff != "" {
		t.Errorf("%v, listed (-want +got):\n%s", err, diff)
	}
	if want := fmt.Sprintf("count=%d of=%d", len(bad)+10, len(bad)+10+len(want)); !strings.Contains(log.String(), want) {
		t.Errorf("log %s, want %q in it", &log, want)
	}
	if strings.ContainsAny(log.String(), "\x1b\x00") {
		t.Error("the log has control bytes of the index")
	}
	c := backends.NewClient("hub", b, backends.ClientOptions{})
	if _, err := backends.Collect(c.List(t.Context(), "a")); err != nil || c.Hidden() != 0 {
		t.Errorf("a client has %d more to hide, %v", c.Hidden(), err)
	}
}

// A connection that breaks after the last byte has not told all.
func TestIndex_cutAtTheEnd(t *testing.T) {
	t.Parallel()
	hc := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		resp := w.Result()
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(hubtest.Index([]hubtest.Image{hello("1")})), iotest.ErrReader(io.ErrUnexpectedEOF)))
		return resp, nil
	})}
	dir := t.TempDir()
	if all, err := everything(t.Context(), openVia(t, hc, nil, dir, nil)); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("%q, %v, want ErrUnavailable", all, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v left in the cache, %v", left, err)
	}
}

func TestIndex_garbage(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]error{
		``: backends.ErrUnavailable, `{`: backends.ErrUnavailable, `{"images":{}`: backends.ErrUnavailable, `{"images":{"a/b":[{"tag":"x`: backends.ErrUnavailable,
		`null`: backends.ErrBadAnswer, `[]`: backends.ErrBadAnswer, `{}`: backends.ErrBadAnswer, `{"images":{}}`: backends.ErrBadAnswer, `{"images":{},"images":{}}`: backends.ErrBadAnswer,
		`{"images":[],"collections":{}}`: backends.ErrBadAnswer, `{"images":{"a/b":{}},"collections":{}}`: backends.ErrBadAnswer, `{"images":null,"collections":{}}`: backends.ErrBadAnswer,
		`{"images":{},"collections":{}} x`: backends.ErrBadAnswer, `{"images":{},"collections":{},"more":1}`: backends.ErrBadAnswer, `{"images":{},}`: backends.ErrBadAnswer,
		`<html>`: backends.ErrBadAnswer, "\x00": backends.ErrBadAnswer, `{"vsoch/hello-world":[]}`: backends.ErrBadAnswer,
	} {
		srv := hubtest.Start(t, hubtest.Options{})
		srv.SetIndex([]byte(text))
		dir := t.TempDir()
		all, err := everything(t.Context(), open(t, srv.Config(), dir, nil))
		if !errors.Is(err, want) {
			t.Errorf("%q: %q, %v, want %v", text, all, err, want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%q left %v in the cache, %v", text, left, err)
		}
	}
}
