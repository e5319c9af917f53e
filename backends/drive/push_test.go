// SPDX-License-Identifier: Apache-2.0

package drive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/drive/drivetest"
)

func push(t *testing.T, c *client, name string, content []byte) backends.Image {
	t.Helper()
	img, err := c.Push(t.Context(), backendtest.Ref(t, name), backendtest.Source(content))
	if err != nil {
		t.Fatalf("Push(%s): %v", name, err)
	}
	return img
}

// What is pushed is where sregistry looks, and has what it looks for.
func TestPush_old(t *testing.T) {
	t.Parallel()
	srv, c, root := serve(t, drivetest.Options{})
	push(t, c, "vsoch/hello:1", text)
	properties, parent := srv.Properties("vsoch/hello:1.sif")
	for key, want := range map[string]string{"type": "container", "uri": "vsoch/hello:1", "collection": "vsoch", "image": "hello", "tag": "1", "storage": "vsoch/hello:1.sif"} {
		if properties[key] != want {
			t.Errorf("property %s is %q, want %q", key, properties[key], want)
		}
	}
	if parent != root || properties[stateKey] != "" || len(properties["version"]) != 64 {
		t.Errorf("in %s (the root is %s) with %v", parent, root, properties)
	}
	// Long names have the properties that fit.
	push(t, c, "vsoch/"+strings.Repeat("long", 40)+":1", text)
	// A folder of the collection takes its images.
	folder := srv.AddFolder(root, "tools")
	push(t, c, "tools/samtools:1", text)
	if _, parent := srv.Properties("samtools:1.sif"); parent != folder {
		t.Errorf("stored in %q, not in the folder of the collection", parent)
	}
	push(t, c, "tools/more/x:1", text)
	if got := backendtest.Names(t, c, "tools"); !slices.Equal(got, []string{"tools/more/", "tools/samtools:1"}) {
		t.Errorf("listed %q", got)
	}
}

func TestPush_makesRoot(t *testing.T) {
	t.Parallel()
	srv := drivetest.Start(t, drivetest.Options{})
	clients := []*client{another(t, srv), another(t, srv), another(t, srv)}
	g, ctx := errgroup.WithContext(t.Context())
	for i, c := range clients {
		ref := backendtest.Ref(t, fmt.Sprintf("c/i:%d", i))
		g.Go(func() error { _, err := c.Push(ctx, ref, backendtest.Source(text)); return err })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := backendtest.Names(t, another(t, srv), "c"); len(got) != 3 {
		t.Errorf("three first pushes at once left %q", got)
	}
}

func TestPush_replaces(t *testing.T) {
	t.Parallel()
	srv, c, _ := serve(t, drivetest.Options{})
	old := push(t, c, "c/i:1", text)
	src := backendtest.Source([]byte("other bytes"))
	src.Replaces = old.Version
	if _, err := c.Push(t.Context(), old.Ref, src); err != nil {
		t.Fatal(err)
	}
	backendtest.WantRead(t, c, backendtest.Stat(t, c, "c/i:1"), 0, -1, []byte("other bytes"))
	if names, trash := srv.Names(false), srv.Names(true); len(names) != 1 || len(trash) != 1 {
		t.Errorf("files %q, and in the trash %q", names, trash)
	}
	backendtest.WantErr(t, "Delete of what was replaced", c.Delete(t.Context(), old), backends.ErrChanged)
}

// big has four pieces, the last of which is short.
func big() []byte { return bytes.Repeat([]byte("0123456789abcde\n"), (3*256<<10+1000)/16) }

// An upload that breaks off goes on where it was, in this process and in the next.
func TestPush_resumes(t *testing.T) {
	t.Parallel()
	content := big()
	for _, restart := range []bool{false, true} {
		srv, c, _ := serve(t, drivetest.Options{})
		src, session := backendtest.Source(content), &backendtest.Session{}
		src.Session = session
		if !restart {
			src.Session = nil
		}
		pieces := 0
		srv.SetHook(func(method string, w http.ResponseWriter, _ *http.Request) bool {
			if method == "upload" {
				pieces++
			}
			return pieces == 3 && drivetest.Refuse(w, 503, "backendError", "Try again.")
		})
		ref := backendtest.Ref(t, "c/i:1")
		_, err := c.Push(t.Context(), ref, src)
		backendtest.WantErr(t, "a push that broke off", err, backends.ErrUnavailable)
		if names := srv.Names(false); len(names) != 0 {
			t.Errorf("half an upload is the files %q", names)
		}
		srv.SetHook(nil)
		before := srv.Count("upload")
		if restart {
			c = another(t, srv)
		}
		if _, err := c.Push(t.Context(), ref, src); err != nil {
			t.Fatal(err)
		}
		if n := srv.Count("upload") - before; n != 3 { // a question, and two pieces
			t.Errorf("restart %v: %d more requests for the rest of the upload, want 3", restart, n)
		}
		backendtest.WantRead(t, c, backendtest.Stat(t, c, "c/i:1"), 0, -1, content)
		if n, _ := srv.Sessions(); n != 1 || session.Load() != nil {
			t.Errorf("%d sessions, %q is left", n, session.Load())
		}
	}
}

// A connection that breaks in a piece has stored a part of it; the answer to the last piece
// may be all that is missing.
func TestPush_broken(t *testing.T) {
	t.Parallel()
	srv, _, _ := serve(t, drivetest.Options{})
	cut := &cutting{after: 300 << 10}
	c := through(t, srv, func(next http.RoundTripper) http.RoundTripper { cut.next = next; return cut })
	c.piece = 2 * 256 << 10
	src := backendtest.Source(big())
	ref := backendtest.Ref(t, "c/i:1")
	_, err := c.Push(t.Context(), ref, src)
	backendtest.WantErr(t, "a push whose connection broke", err, backends.ErrUnavailable)
	for stored := int64(0); stored == 0; _, stored = srv.Sessions() {
		time.Sleep(time.Millisecond) // until the server has seen the end of it, too
	}
	cut.after, cut.lose = 0, true
	_, err = c.Push(t.Context(), ref, src)
	backendtest.WantErr(t, "a push without the last answer", err, backends.ErrUnavailable)
	cut.lose = false
	if _, err = c.Push(t.Context(), ref, src); err != nil {
		t.Fatal(err)
	}
	if n, _ := srv.Sessions(); n != 1 {
		t.Errorf("%d sessions", n)
	}
	backendtest.WantRead(t, c, backendtest.Stat(t, c, "c/i:1"), 0, -1, big())
}

// A cutting transport breaks connections.
type cutting struct {
	after int // bytes of a body; 0: none
	lose  bool
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (c *cutting) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodPut && c.after > 0 && req.ContentLength > int64(c.after) {
		req = req.Clone(req.Context())
		req.Body = struct {
			*bytes.Reader
			nothing
		}{bytes.NewReader(big()[:c.after]), nothing{}}
	}
	resp, err := c.next.RoundTrip(req)
	if err == nil && c.lose && req.Method == http.MethodPut && resp.StatusCode == http.StatusOK {
		resp.Body.Close()
		return nil, errors.New("connection reset")
	}
	return resp, err
}

type nothing struct{}

func (nothing) Close() error { return nil }

func TestPush_lostSession(t *testing.T) {
	t.Parallel()
	srv, c, _ := serve(t, drivetest.Options{})
	n := 0
	srv.SetHook(func(method string, _ http.ResponseWriter, _ *http.Request) bool {
		if method == "upload" {
			if n++; n == 2 {
				srv.Forget()
			}
		}
		return false
	})
	_, err := c.Push(t.Context(), backendtest.Ref(t, "c/i:1"), backendtest.Source(big()))
	backendtest.WantErr(t, "a push whose session ended", err, backends.ErrUnavailable)
	push(t, c, "c/i:1", big())
}

// Whatever comes back as the address of a session: the login stays at the service.
func TestPush_otherHost(t *testing.T) {
	t.Parallel()
	srv, c, _ := serve(t, drivetest.Options{})
	for _, address := range []string{"http://127.0.0.1:9/upload/x", "https://example.org/upload/x", "", "/elsewhere", "http://me@" + strings.TrimPrefix(srv.URL, "http://") + "/upload/x"} {
		srv.SetHook(func(method string, w http.ResponseWriter, _ *http.Request) bool {
			if method != "drive.files.create" {
				return false
			}
			w.Header().Set("Location", address)
			return true
		})
		_, err := c.Push(t.Context(), backendtest.Ref(t, "c/i:1"), backendtest.Source(text))
		backendtest.WantErr(t, address, err, backends.ErrBadAnswer)
	}
}

// Clients that know nothing of each other push one name at the same time.
func TestPush_rivals(t *testing.T) {
	t.Parallel()
	for round := range 20 {
		srv, _, _ := serve(t, drivetest.Options{})
		var mu sync.Mutex
		var won [][]byte
		var wait sync.WaitGroup
		for i := range 4 {
			c, content := another(t, srv), fmt.Appendf(nil, "of client %d", i)
			wait.Go(func() {
				_, err := c.Push(t.Context(), backendtest.Ref(t, "c/i:1"), backendtest.Source(content))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, content)
				} else if !errors.Is(err, fs.ErrExist) {
					t.Errorf("a push that was too late: %v", err)
				}
			})
		}
		wait.Wait()
		if len(won) != 1 {
			t.Fatalf("round %d: %d have won", round, len(won))
		}
		c := another(t, srv)
		backendtest.WantRead(t, c, backendtest.Stat(t, c, "c/i:1"), 0, -1, won[0])
		if names := srv.Names(false); len(names) != 1 {
			t.Errorf("files %q are left", names)
		}
	}
}

// Both have given the name before either looks: exactly one stays.
func TestPush_tie(t *testing.T) {
	t.Parallel()
	srv, _, _ := serve(t, drivetest.Options{})
	var naming, looking sync.WaitGroup
	naming.Add(2)
	looking.Add(2)
	var mu sync.Mutex
	steps := map[string]int{} // by client
	srv.SetHook(func(method string, _ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		who := r.Header.Get("Test-Client")
		step := steps[who]
		if step == 0 && method == "drive.files.update" || step == 1 && method == "drive.files.list" {
			steps[who]++
		} else {
			step = -1
		}
		mu.Unlock()
		switch step {
		case 0:
			naming.Done()
			naming.Wait()
		case 1:
			looking.Done()
			looking.Wait()
		}
		return false
	})
	won := 0
	var wait sync.WaitGroup
	for i := range 2 {
		c := through(t, srv, func(next http.RoundTripper) http.RoundTripper { return caller{fmt.Sprint(i), next} })
		wait.Go(func() {
			_, err := c.Push(t.Context(), backendtest.Ref(t, "c/i:1"), backendtest.Source(fmt.Appendf(nil, "of client %d", i)))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if names := srv.Names(false); won != 1 || len(names) != 1 {
		t.Errorf("%d have won, and the files are %q", won, names)
	}
}

// A caller says who asks.
type caller struct {
	name string
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (n caller) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Test-Client", n.name)
	return n.next.RoundTrip(req)
}

// A client dies after each of its requests: the name means the old bytes or the new, nothing
// half, and the same push goes through afterwards.
func TestPush_dies(t *testing.T) {
	t.Parallel()
	for _, replaces := range []bool{false, true} {
		for last := 1; last < 14; last++ {
			srv, c, root := serve(t, drivetest.Options{})
			src, session := backendtest.Source([]byte("new bytes")), &backendtest.Session{}
			src.Session = session
			if replaces {
				srv.AddFile(root, "c/i:1.sif", text, day)
				src.Replaces = backendtest.Stat(t, c, "c/i:1").Version
			}
			n := 0
			srv.SetHook(func(_ string, w http.ResponseWriter, _ *http.Request) bool {
				n++
				return n > last && drivetest.Refuse(w, 503, "backendError", "Dead.")
			})
			ref := backendtest.Ref(t, "c/i:1")
			_, pushErr := c.Push(t.Context(), ref, src)
			srv.SetHook(nil)
			other := another(t, srv)
			img, err := other.Stat(t.Context(), ref)
			switch {
			case err == nil:
				got, err := backendtest.Read(t, other, img, 0, -1)
				if err != nil || string(got) != "new bytes" && (!replaces || pushErr == nil || !bytes.Equal(got, text)) {
					t.Errorf("dead after %d requests (%v): the name means %q, %v", last, pushErr, got, err)
				}
			case replaces || pushErr == nil || !errors.Is(err, fs.ErrNotExist):
				t.Errorf("dead after %d requests (%v): %v", last, pushErr, err)
			}
			if pushErr == nil {
				continue
			}
			img, err = other.Push(t.Context(), ref, src)
			if err != nil {
				t.Errorf("dead after %d requests: again: %v", last, err)
				continue
			}
			backendtest.WantRead(t, other, img, 0, -1, []byte("new bytes"))
			if names := srv.Names(false); len(names) != 1 {
				t.Errorf("dead after %d requests, and again: files %q", last, names)
			}
		}
	}
}

func TestPush_sweeps(t *testing.T) {
	t.Parallel()
	srv, c, root := serve(t, drivetest.Options{})
	old := srv.AddFile(root, ".sregfs-OLD", text, day, stateKey, stateUpload)
	srv.AddFile(root, ".sregfs-NEW", text, day, stateKey, stateUpload)
	srv.SetCreated(old, time.Now().Add(-9*24*time.Hour))
	push(t, c, "c/i:1", text)
	if names := srv.Names(false); !slices.Equal(names, []string{".sregfs-NEW", "c/i:1.sif"}) {
		t.Errorf("left are %q", names)
	}
}

func TestPush_requests(t *testing.T) {
	t.Parallel()
	srv, c, _ := serve(t, drivetest.Options{})
	backendtest.Names(t, c, "") // the root is known
	for _, step := range []struct {
		what string
		n    int
		do   func() error
	}{
		{"a push", 9, func() error {
			_, err := c.Push(t.Context(), backendtest.Ref(t, "c/i:1"), backendtest.Source(text))
			return err
		}},
		{"another, of 32 pieces", 8 + 31, func() error {
			_, err := c.Push(t.Context(), backendtest.Ref(t, "c/i:2"), backendtest.Source(make([]byte, 32*256<<10)))
			return err
		}},
		{"a tag", 8, func() error { _, err := c.Tag(t.Context(), backendtest.Stat(t, c, "c/i:1"), "3", ""); return err }},
	} {
		c.mu.Lock()
		c.since = time.Now() // however slow the machine is
		c.mu.Unlock()
		before, uploads := srv.Requests(), srv.Count("upload")
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		n := srv.Requests() - before
		if step.what == "a tag" {
			if n--; srv.Count("upload") != uploads { // the Stat is the test's
				t.Error("bytes travelled")
			}
		}
		if n != step.n {
			t.Errorf("%s: %d requests, want %d", step.what, n, step.n)
		}
	}
}

// A copy that may not be kept leaves nothing.
func TestCopy_stopped(t *testing.T) {
	t.Parallel()
	srv, c, _ := serve(t, drivetest.Options{})
	src := backends.CopySource{Backend: c, Image: push(t, c, "c/i:1", text), Commit: func() error { return fs.ErrPermission }}
	_, err := c.Copy(t.Context(), src, backendtest.Ref(t, "c/i:2"))
	backendtest.WantErr(t, "a copy that is stopped", err, fs.ErrPermission)
	if names := srv.Names(false); len(names) != 1 {
		t.Errorf("left are %q", names)
	}
}

// Who may not move to the trash what is there may not replace it.
func TestPush_denied(t *testing.T) {
	t.Parallel()
	srv, c, root := serve(t, drivetest.Options{})
	id := srv.AddFile(root, "c/i:1.sif", text, day)
	src := backendtest.Source([]byte("other bytes"))
	src.Replaces = backendtest.Stat(t, c, "c/i:1").Version
	srv.SetHook(func(method string, w http.ResponseWriter, r *http.Request) bool {
		return method == "drive.files.update" && strings.HasSuffix(r.URL.Path, id) && drivetest.Refuse(w, 403, "insufficientFilePermissions", "No.")
	})
	_, err := c.Push(t.Context(), backendtest.Ref(t, "c/i:1"), src)
	backendtest.WantErr(t, "a push over what others own", err, fs.ErrPermission)
	backendtest.WantRead(t, c, backendtest.Stat(t, c, "c/i:1"), 0, -1, text)
	if names := srv.Names(false); len(names) != 1 {
		t.Errorf("left are %q", names)
	}
}

func TestDelete_trash(t *testing.T) {
	t.Parallel()
	srv, c, _ := serve(t, drivetest.Options{})
	if err := c.Delete(t.Context(), push(t, c, "c/i:1", text)); err != nil {
		t.Fatal(err)
	}
	if trash := srv.Names(true); !slices.Equal(trash, []string{"c/i:1.sif"}) {
		t.Errorf("in the trash: %q", trash)
	}
}

// A file that is replaced while it is deleted stays.
func TestDelete_changed(t *testing.T) {
	t.Parallel()
	srv, c, root := serve(t, drivetest.Options{})
	id := srv.AddFile(root, "c/i:1.sif", text, day)
	img := backendtest.Stat(t, c, "c/i:1")
	changed := false
	srv.SetHook(func(method string, _ http.ResponseWriter, _ *http.Request) bool {
		if method == "drive.files.update" && !changed {
			changed = true
			srv.SetContent(id, []byte("other bytes"))
		}
		return false
	})
	backendtest.WantErr(t, "Delete", c.Delete(t.Context(), img), backends.ErrChanged)
	backendtest.WantRead(t, c, backendtest.Stat(t, c, "c/i:1"), 0, -1, []byte("other bytes"))
}

// Whichever request of a move or a copy breaks, both names mean what they meant, or it is done.
func TestMove_breaks(t *testing.T) {
	t.Parallel()
	other := []byte("other bytes")
	for _, copies := range []bool{false, true} {
		for broken := 1; broken < 14; broken++ {
			for _, late := range []bool{false, true} { // the request has its effect, and the answer does not come
				srv, _, root := serve(t, drivetest.Options{})
				srv.AddFile(root, "c/i:1.sif", text, day)
				srv.AddFile(root, "c/i:2.sif", other, day)
				b := &breaking{at: broken, late: late}
				c := through(t, srv, func(next http.RoundTripper) http.RoundTripper { b.next = next; return b })
				img, to := backendtest.Stat(t, c, "c/i:1"), backendtest.Stat(t, c, "c/i:2")
				b.armed = true
				var err error
				if copies {
					_, err = c.Copy(t.Context(), backends.CopySource{Backend: c, Image: img, Replaces: to.Version}, to.Ref)
				} else {
					_, err = c.Move(t.Context(), img, to.Ref, to.Version)
				}
				b.armed = false
				want := text
				if err != nil {
					want = other
				}
				what := fmt.Sprintf("copy %v, request %d (late %v): %v", copies, broken, late, err)
				if got, readErr := backendtest.Read(t, c, backendtest.Stat(t, c, "c/i:2"), 0, -1); readErr != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: the target is %q, %v", what, got, readErr)
				}
				_, err2 := c.Stat(t.Context(), img.Ref)
				if gone := errors.Is(err2, fs.ErrNotExist); gone != (err == nil && !copies) {
					t.Errorf("%s: the source: %v", what, err2)
				}
			}
		}
	}
}

// breaking answers one request with 503.
type breaking struct {
	at    int
	late  bool
	armed bool
	n     int
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b *breaking) RoundTrip(req *http.Request) (*http.Response, error) {
	if !b.armed {
		return b.next.RoundTrip(req)
	}
	if b.n++; b.n != b.at {
		return b.next.RoundTrip(req)
	}
	if b.late {
		if resp, err := b.next.RoundTrip(req); err == nil {
			resp.Body.Close()
		}
	}
	return nil, errors.New("connection reset")
}

// What fails between the name and the end of a move leaves the name or takes it back.
func TestMove_taken(t *testing.T) {
	t.Parallel()
	srv, c, root := serve(t, drivetest.Options{})
	img := push(t, c, "c/i:1", text)
	updates := 0
	srv.SetHook(func(method string, _ http.ResponseWriter, _ *http.Request) bool {
		if method == "drive.files.update" {
			if updates++; updates == 1 {
				srv.AddFile(root, "c/i:2.sif", []byte("somebody else's"), day)
			}
		}
		return false
	})
	_, err := c.Move(t.Context(), img, backendtest.Ref(t, "c/i:2"), "")
	backendtest.WantErr(t, "a move to what was taken meanwhile", err, fs.ErrExist)
	srv.SetHook(nil)
	backendtest.WantRead(t, c, backendtest.Stat(t, c, "c/i:1"), 0, -1, text)
	backendtest.WantRead(t, c, backendtest.Stat(t, c, "c/i:2"), 0, -1, []byte("somebody else's"))
	if properties, _ := srv.Properties("c/i:1.sif"); properties["tag"] != "1" || properties[stateKey] != "" {
		t.Errorf("the properties are %v", properties)
	}
}

func TestShare(t *testing.T) {
	t.Parallel()
	srv, c, _ := serve(t, drivetest.Options{})
	img := push(t, c, "c/i:1", text)
	for _, with := range []string{"", "me@example.org"} {
		link, err := c.Share(t.Context(), img, with)
		if err != nil || !strings.HasPrefix(link, srv.URL+"/file/d/") {
			t.Errorf("Share with %q: %q, %v", with, link, err)
		}
	}
	if got := srv.Shares(); !slices.Equal(got, []string{"anyone", "user me@example.org"}) {
		t.Errorf("shared with %q", got)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	srv, c, root := serve(t, drivetest.Options{PageSize: 2})
	id := srv.AddFile(root, "flat/i:1.sif", text, day)
	folder := srv.AddFolder(root, "f")
	elsewhere := srv.AddFolder(srv.Root(), "Elsewhere")
	backendtest.Names(t, c, "")
	backendtest.Names(t, c, "flat")
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan backends.Change, 1000)
	var wait sync.WaitGroup
	wait.Go(func() {
		for change, err := range c.Watch(ctx) {
			if err == nil {
				seen <- change
			} else if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
	defer wait.Wait()
	defer cancel()
	for srv.Count("drive.changes.list") == 0 {
		time.Sleep(time.Millisecond) // until the watch stands
	}
	srv.AddFile(elsewhere, "not/ours:1.sif", text, day)
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() { srv.AddFile(root, "flat/new:1.sif", text, day) }, "flat"},
		{func() { srv.AddFile(folder, "new:1.sif", text, day) }, "f"},
		{func() { srv.AddFile(srv.AddFolder(folder, "deep"), "new:1.sif", text, day) }, "f/deep"},
		{func() { srv.SetContent(id, []byte("others")) }, "flat"},
		{func() { srv.Delete(id) }, "flat"},
		{func() { srv.SetTrashed(folder) }, ""},
	} {
		for len(seen) > 0 {
			<-seen
		}
		step.do()
		for change := range seen {
			if change.Collection == "not" {
				t.Error("what is elsewhere changes a collection")
			}
			if change.Collection == step.want {
				break
			}
		}
	}
	// A token that is too old: all may have changed.
	srv.SetHook(func(method string, w http.ResponseWriter, _ *http.Request) bool {
		return method == "drive.changes.list" && drivetest.Refuse(w, 400, "invalid", "Invalid Value")
	})
	for change := range seen {
		if change == (backends.Change{Below: true}) {
			break
		}
	}
}
