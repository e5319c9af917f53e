// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/engine"
)

// probeTimeout bounds one step of a probe with its retries.
const probeTimeout = 15 * time.Second

// A probe asks a remote what works, step by step. It uses a backend of its own and neither
// the catalogue nor a running mount, so that nothing cached hides a problem.
type probe struct {
	remote   config.Remote
	typ      backends.Type
	http     *http.Client
	client   *backends.Client
	readOnly bool          // by the configuration
	movedTo  string        // another scheme, host or port that the address has redirected to
	skew     time.Duration // how far our clock is before the service's, if that told its time
	cause    error         // of the last failure of reach, as the network has it
}

func newProbe(ctx context.Context, o engine.Options, r config.Remote) (*probe, error) {
	client, err := o.HTTPClient(r)
	if err != nil {
		return nil, err
	}
	backend, err := o.OpenBackend(ctx, r)
	if err != nil {
		return nil, err
	}
	readOnly := r.ReadOnly || o.Settings.ReadOnly
	return &probe{remote: r, typ: typeOf(r), http: client, readOnly: readOnly, client: backends.NewClient(r.Name, backend, backends.ClientOptions{
		ReadOnly: readOnly, MaxElapsed: probeTimeout, Log: o.Log,
	})}, nil
}

func (p *probe) close() {
	_ = p.client.Close()
	p.http.CloseIdleConnections()
}

// reach sends a request to the remote's address without a login. Any answer counts, except
// those of a proxy whose server is down. It returns the address.
func (p *probe) reach(ctx context.Context) (string, error) {
	if path, ok := p.remote.Config["path"].(string); ok && p.typ.Local {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) && p.remote.Name == config.Local {
			return path + " (made by the first image)", nil
		}
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%w: %s is not a directory", fs.ErrInvalid, path)
		}
		return path, err
	}
	method, address := p.request()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return address, fmt.Errorf("%w: url", fs.ErrInvalid)
	}
	resp, err := p.http.Do(req)
	p.cause = err
	if err != nil {
		return address, backends.TransportError(err)
	}
	defer resp.Body.Close()
	if at := backends.Origin(resp.Request.URL); at != backends.Origin(req.URL) {
		p.movedTo = at
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		p.skew = time.Since(date)
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 4096) // so that the connection can be used again
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return address, fmt.Errorf("%w: HTTP %d", backends.ErrUnavailable, resp.StatusCode)
	}
	return address, nil
}

func (p *probe) request() (method, address string) {
	if method, address, ok := p.client.Knock(); ok {
		return method, address
	}
	address = strings.TrimSuffix(p.remote.URL, "/")
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	return http.MethodGet, address + "/"
}

// login reports whether the service takes the login.
func (p *probe) login(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := p.client.CheckLogin(limited)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	_, err = p.list(ctx, "")
	switch {
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized):
		return nil // the service has accepted the login, but does not let it list
	}
	return err
}

// errLoginUnchecked means that the service accepts any login.
var errLoginUnchecked = errors.New("the service takes any login for reading; whether this one is right only a push shows")

// checkLogin is login, and then tries a wrong login, which must be refused: otherwise the
// first answer proves nothing. The wrong login is of a user who does not exist, so that no
// account is locked.
//
// Errors: those of login; errLoginUnchecked.
func (p *probe) checkLogin(ctx context.Context, o engine.Options) error {
	if err := p.login(ctx); err != nil || !hasLogin(o, p.remote) {
		return err
	}
	r := p.remote
	r.User, r.Token = "sregfs-nobody", strings.Repeat("0", 40)
	nobody, err := newProbe(ctx, o, r)
	if err != nil {
		return nil //nolint:nilerr // the backend does not accept the form of the wrong login
	}
	defer nobody.close()
	if nobody.login(ctx) == nil {
		return errLoginUnchecked
	}
	return nil
}

// hasLogin reports whether a login is configured or stored for a remote.
func hasLogin(o engine.Options, r config.Remote) bool {
	if typeOf(r).Login == backends.LoginNone {
		return false
	}
	_, err := o.ReadLogin(r)
	return tokenSource(r) != "" || err == nil
}

// maxListed is how many entries of a collection are read.
const maxListed = 100

func (p *probe) list(ctx context.Context, collection string) ([]backends.Entry, error) {
	var all []backends.Entry
	for e, err := range p.client.List(ctx, collection) {
		if err != nil {
			return all, err
		}
		if e.Untold != nil {
			continue
		}
		if all = append(all, e); len(all) == maxListed {
			break
		}
	}
	return all, nil
}

// maxWalked is how many collections are listed in search of an image.
const maxWalked = 5

// someImage returns any image, given the entries of the root. It lists collections depth
// first and ignores those that are empty or cannot be listed.
func (p *probe) someImage(ctx context.Context, entries []backends.Entry) (backends.Ref, bool) {
	var collections []string
	for walked := 0; ; walked++ {
		for i, e := range entries {
			if e.Collection == "" {
				return e.Image.Ref, true
			}
			collections = slices.Insert(collections, i, e.Collection) // deeper first
		}
		if len(collections) == 0 || walked == maxWalked {
			return backends.Ref{}, false
		}
		next := collections[0]
		collections = collections[1:]
		var err error
		if entries, err = p.list(ctx, next); err != nil {
			entries = nil
		}
	}
}

// read fetches the first bytes of an image, or of its first layer if it is made of those.
func (p *probe) read(ctx context.Context, ref backends.Ref) error {
	img, err := p.client.Stat(ctx, ref)
	if err != nil {
		return err
	}
	if catalog.HasForms(&img) {
		layers, err := p.client.Layers(ctx, img)
		if err != nil {
			return err
		}
		img = layers.Blobs[0] // it has some, else it would be no such image
	}
	body, err := p.client.Open(ctx, img, 0, 512)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.ReadFull(body, make([]byte, 512))
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // the image is smaller than 512 bytes
	}
	return err
}
