// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/inspect"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// ErrNobody means that nothing serves the socket.
var ErrNobody = errors.New("no mount is running")

// ErrUnheard means that the other side ended before it began to answer, which it does
// before any work: nothing was done, and another one may serve the socket soon.
var ErrUnheard = errors.New("the mount ended before it heard of this")

// A Client calls verbs, which may be in another process. Its
// methods are those of catalog.Catalog, with the same errors; file names must be
// absolute. Methods may be called from many goroutines at once. When the context
// of a call ends, so does the work on the other side.
type Client struct {
	http      *http.Client
	transport io.Closer // nil if it runs in this process
	pid       int       // of the other side; 0 if it is not known
}

// dialTimeout is generous for a machine under load; a mount that is alive
// accepts at once.
const dialTimeout = 5 * time.Second

// Dial connects to the process that serves socket.
//
// Errors:
//   - ErrNobody if nothing listens there.
//   - fs.ErrPermission if it belongs to somebody else.
func Dial(ctx context.Context, socket string) (*Client, error) {
	return dialChecked(ctx, socket, checkPeer)
}

// dialChecked is Dial with another opinion on who may serve.
func dialChecked(ctx context.Context, socket string, check func(net.Conn) error) (*Client, error) {
	first, err := dial(ctx, socket, check)
	if err != nil {
		return nil, err
	}
	t := &socketTransport{socket: socket, check: check, first: first}
	t.Transport = http.Transport{DialContext: t.dial, DisableCompression: true}
	return &Client{http: &http.Client{Transport: t}, transport: t, pid: peerPID(first)}, nil
}

func dial(ctx context.Context, socket string, check func(net.Conn) error) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "unix", socket)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nothing listens on %s", ErrNobody, socket)
	case err != nil:
		return nil, fmt.Errorf("connect to the mount: %w", err)
	}
	if err := check(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", socket, err)
	}
	return conn, nil
}

// A socketTransport uses the connection that Dial has made, then new ones.
type socketTransport struct {
	http.Transport
	socket string
	check  func(net.Conn) error
	mu     sync.Mutex // guards the field below
	first  net.Conn
}

func (t *socketTransport) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	t.mu.Lock()
	conn := t.first
	t.first = nil
	t.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	return dial(ctx, t.socket, t.check)
}

// Close implements io.Closer.
func (t *socketTransport) Close() error {
	t.CloseIdleConnections()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == nil {
		return nil
	}
	return t.first.Close()
}

// Close releases the connection. Calls under way go on.
func (c *Client) Close() error {
	if c.transport == nil {
		return nil
	}
	return c.transport.Close()
}

// call sends one request and returns the items of its answer. Breaking out ends
// the work on the other side.
func call[Item any](ctx context.Context, c *Client, verb string, req any, p catalog.Progress) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stopped := errors.New("stopped")
		err := c.post(ctx, verb, req, func(f frame) error {
			if f.Progress != nil && p != nil {
				p(f.Progress.Done, f.Progress.Total)
			}
			if f.Item == nil {
				return nil
			}
			var item Item
			if err := json.Unmarshal(f.Item, &item); err != nil {
				return fmt.Errorf("%w: %v", ErrProtocol, err)
			}
			if !yield(item, nil) {
				return stopped
			}
			return nil
		})
		if err != nil && err != stopped { //nolint:errorlint // a private marker, never wrapped
			var zero Item
			yield(zero, err)
		}
	}
}

func (c *Client) post(ctx context.Context, verb string, req any, fn func(frame) error) error {
	ctx, stop := c.watched(ctx)
	defer stop()
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode the request: %v", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sregfs/v1/"+verb, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(protocolHeader, strconv.Itoa(Protocol))
	r.Header.Set(umaskHeader, strconv.FormatUint(uint64(verbs.Umask()), 8))
	resp, err := c.http.Do(r)
	if err != nil {
		err = transportError(ctx, err)
		if c.transport != nil && ctx.Err() == nil && !dialling(err) {
			err = fmt.Errorf("%w: %w", ErrUnheard, err)
		}
		return err
	}
	defer resp.Body.Close()
	if err := checkProtocol("the mount", resp.Header); err != nil {
		return err
	}
	return transportError(ctx, readFrames(resp.Body, fn))
}

// dialling reports whether an error is one of dial.
func dialling(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return errors.Is(err, ErrNobody) || errors.Is(err, fs.ErrPermission) || ok && op.Op == "dial"
}

// transportError makes a context's end look like one, whatever the connection
// said when it was cut, and drops the made-up URL from the text.
func transportError(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("talk to the mount: %w", op)
	}
	return err
}

// one returns the single item of an answer, once that is complete: a connection
// that is read to its end can be used again.
func one[Item any](seq iter.Seq2[Item, error]) (Item, error) {
	var item, zero Item
	n := 0
	for v, err := range seq {
		if err != nil {
			return zero, err
		}
		item = v
		n++
	}
	if n != 1 {
		return zero, fmt.Errorf("%w: an answer of %d results", ErrProtocol, n)
	}
	return item, nil
}

// none waits for an answer without an item.
func none(seq iter.Seq2[struct{}, error]) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

// Images is verbs.Verbs.Images.
func (c *Client) Images(ctx context.Context, o verbs.ImagesOptions) iter.Seq2[verbs.Record, error] {
	return call[verbs.Record](ctx, c, "images", imagesRequest{ImagesOptions: o}, nil)
}

// ImagesBrief is Images with less of each record: URI, Size, Modified, State,
// Pinned and Runs.
func (c *Client) ImagesBrief(ctx context.Context, o verbs.ImagesOptions) iter.Seq2[verbs.Record, error] {
	return call[verbs.Record](ctx, c, "images", imagesRequest{ImagesOptions: o, Brief: true}, nil)
}

// Entries is verbs.Verbs.Entries.
func (c *Client) Entries(ctx context.Context, o verbs.EntriesOptions) iter.Seq2[verbs.Entry, error] {
	return call[verbs.Entry](ctx, c, "entries", o, nil)
}

// Search is verbs.Verbs.Search.
func (c *Client) Search(ctx context.Context, o verbs.SearchOptions) iter.Seq2[verbs.Hit, error] {
	return call[verbs.Hit](ctx, c, "search", o, nil)
}

// Labels is verbs.Verbs.Labels.
func (c *Client) Labels(ctx context.Context, o verbs.LabelsOptions) iter.Seq2[verbs.Label, error] {
	return call[verbs.Label](ctx, c, "labels", o, nil)
}

// Record is verbs.Verbs.Record; without a location it is verbs.Verbs.Note.
func (c *Client) Record(ctx context.Context, location, uri string, force bool) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "record", recordRequest{Location: location, URI: uri, Force: force}, nil))
}

// MoveOut is verbs.Verbs.MoveOut.
func (c *Client) MoveOut(ctx context.Context, uri, to string) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "move-out", renameRequest{URI: uri, To: to}, nil))
}

// Rename is verbs.Verbs.Rename.
func (c *Client) Rename(ctx context.Context, uri, to string, force bool) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "rename", renameRequest{URI: uri, To: to, Force: force}, nil))
}

// RemoveFile is verbs.Verbs.RemoveFile.
func (c *Client) RemoveFile(ctx context.Context, uri, means string) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "remove-file", removeRequest{URI: uri, Means: means}, nil))
}

// ImportClient is verbs.Verbs.ImportClient.
func (c *Client) ImportClient(ctx context.Context, dry bool) iter.Seq2[backends.Imported, error] {
	return call[backends.Imported](ctx, c, "import-client", importRequest{Dry: dry}, nil)
}

// Get is verbs.Verbs.Get.
func (c *Client) Get(ctx context.Context, uri string) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "get", uriRequest{URI: uri}, nil))
}

// Find is verbs.Verbs.Find.
func (c *Client) Find(ctx context.Context, uri string) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "find", uriRequest{URI: uri}, nil))
}

// An Inspection is a verbs.Inspection whose facts have their type.
type Inspection struct {
	Record verbs.Record   `json:"image"`
	Facts  *inspect.Facts `json:"facts"`
}

// Inspect is verbs.Verbs.Inspect.
func (c *Client) Inspect(ctx context.Context, uri string) (Inspection, error) {
	return one(call[Inspection](ctx, c, "inspect", uriRequest{URI: uri}, nil))
}

// Verify is verbs.Verbs.Verify.
func (c *Client) Verify(ctx context.Context, uri string, keys inspect.Keys, p catalog.Progress) (Inspection, error) {
	return one(call[Inspection](ctx, c, "verify", verifyRequest{URI: uri, Keys: keys}, p))
}

// Pull is verbs.Verbs.Pull.
func (c *Client) Pull(ctx context.Context, uri string, o verbs.PullOptions, p catalog.Progress) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "pull", pullRequest{URI: uri, PullOptions: o}, p))
}

// Choose is verbs.Verbs.Choose.
func (c *Client) Choose(ctx context.Context, pattern string) iter.Seq2[verbs.Record, error] {
	return call[verbs.Record](ctx, c, "choose", uriRequest{URI: pattern}, nil)
}

// Warm is verbs.Verbs.Warm.
func (c *Client) Warm(ctx context.Context, uri string, o verbs.WarmOptions, p catalog.Progress) (verbs.Warmed, error) {
	return one(call[verbs.Warmed](ctx, c, "warm", warmRequest{URI: uri, WarmOptions: o}, p))
}

// Cached is verbs.Verbs.Cached.
func (c *Client) Cached(ctx context.Context, patterns []string) iter.Seq2[verbs.Cached, error] {
	return call[verbs.Cached](ctx, c, "cached", patternsRequest{Patterns: patterns}, nil)
}

// CacheUse is verbs.Verbs.CacheUse.
func (c *Client) CacheUse(ctx context.Context) (verbs.CacheUse, error) {
	return one(call[verbs.CacheUse](ctx, c, "cache-use", noneRequest{}, nil))
}

// RemoveCached is verbs.Verbs.RemoveCached.
func (c *Client) RemoveCached(ctx context.Context, key cache.Key) (freed int64, err error) {
	return one(call[int64](ctx, c, "cache-remove", keyRequest{Key: key}, nil))
}

// VerifyCached is verbs.Verbs.VerifyCached.
func (c *Client) VerifyCached(ctx context.Context, key cache.Key, p catalog.Progress) error {
	return none(call[struct{}](ctx, c, "cache-verify", keyRequest{Key: key}, p))
}

// Push is verbs.Verbs.Push.
func (c *Client) Push(ctx context.Context, path, uri string, o verbs.PushOptions, p catalog.Progress) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "push", fileRequest{Path: path, URI: uri, AddOptions: verbs.AddOptions{PushOptions: o}}, p))
}

// Add is verbs.Verbs.Add.
func (c *Client) Add(ctx context.Context, path, uri string, o verbs.AddOptions, p catalog.Progress) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "add", fileRequest{Path: path, URI: uri, AddOptions: o}, p))
}

// Compare is verbs.Verbs.Compare.
func (c *Client) Compare(ctx context.Context, from, to string, o verbs.CompareOptions) iter.Seq2[verbs.Difference, error] {
	return call[verbs.Difference](ctx, c, "compare", compareRequest{From: from, To: to, CompareOptions: o}, nil)
}

// Copy is verbs.Verbs.Copy.
func (c *Client) Copy(ctx context.Context, from, to string, o verbs.CopyOptions, p catalog.Progress) (verbs.Copied, error) {
	return one(call[verbs.Copied](ctx, c, "copy", copyRequest{From: from, To: to, CopyOptions: o}, p))
}

// Removable is verbs.Verbs.Removable.
func (c *Client) Removable(ctx context.Context, uri string) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "removable", uriRequest{URI: uri}, nil))
}

// Remove is verbs.Verbs.Remove.
func (c *Client) Remove(ctx context.Context, uri, means string) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "remove", removeRequest{URI: uri, Means: means}, nil))
}

// Share is verbs.Verbs.Share.
func (c *Client) Share(ctx context.Context, uri, with string) (verbs.Shared, error) {
	return one(call[verbs.Shared](ctx, c, "share", shareRequest{URI: uri, With: with}, nil))
}

// Pin is verbs.Verbs.Pin.
func (c *Client) Pin(ctx context.Context, uri string) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "pin", uriRequest{URI: uri}, nil))
}

// Unpin is verbs.Verbs.Unpin.
func (c *Client) Unpin(ctx context.Context, uri string) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "unpin", uriRequest{URI: uri}, nil))
}

// Status is verbs.Verbs.Status, with what the mounting program adds.
func (c *Client) Status(ctx context.Context) (verbs.Status, error) {
	return one(call[verbs.Status](ctx, c, "status", noneRequest{}, nil))
}

// Reloaded is what a mount made of its configuration when it read it again.
type Reloaded struct {
	Added   []string `json:"added"`   // remotes that are new
	Changed []string `json:"changed"` // remotes and settings that are others now
	Removed []string `json:"removed"` // remotes that are gone
	Waiting []string `json:"waiting"` // settings that were changed: the next mount takes that up
}

// Reload makes a mount read its configuration again, and take up what it can. The remote
// called reopen, if any, gets the login that is stored for it now.
//
// Errors: those of the configuration; errors.ErrUnsupported without a mount.
func (c *Client) Reload(ctx context.Context, reopen string) (Reloaded, error) {
	return one(call[Reloaded](ctx, c, "reload", reloadRequest{Reopen: reopen}, nil))
}

// Retry is uploads.Uploads.Retry.
func (c *Client) Retry(ctx context.Context, id string, p catalog.Progress) error {
	return none(call[struct{}](ctx, c, "retry", idRequest{ID: id}, p))
}

// Discard is uploads.Uploads.Discard.
func (c *Client) Discard(ctx context.Context, id string) error {
	return none(call[struct{}](ctx, c, "discard", idRequest{ID: id}, nil))
}
