// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// webLogin lets the user log in on a web page.
// Errors: errors.ErrUnsupported if the remote has none.
func (a *app) webLogin(ctx context.Context, c *backends.Client) (string, error) {
	page, exchange, err := c.StartLogin()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return "", err
	case err != nil:
		return "", fmt.Errorf("%w; or give a token by --token-stdin", err)
	}
	fmt.Fprintf(a.err, "Open this page, allow the access, and copy the code that it shows:\n\n  %s\n\n", page)
	code, err := a.ask(ctx, "Code: ")
	if err != nil {
		return "", err
	}
	if code == "" {
		return "", usagef("no code was given")
	}
	return exchange(ctx, code)
}

// loopbackLogin lets the user log in on a web page that sends the browser back to this
// machine. Where the browser is on another one, it ends at an address that nobody answers,
// and the user pastes that.
//
// Errors: errors.ErrUnsupported if the remote has no such page.
func (a *app) loopbackLogin(ctx context.Context, c *backends.Client) (string, error) {
	back := &browserListener{sent: make(chan string, 1)}
	page, exchange, err := c.StartLoopbackLogin(back.listen)
	defer back.close()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return "", err
	case err != nil:
		return "", fmt.Errorf("%w; or give a login by --token-stdin", err)
	}
	fmt.Fprintf(a.err, "Open this page and allow the access:\n\n  %s\n\nIf the browser is on another machine it shows an error at last: paste the address that it is at then.\n", page)
	sent, err := a.sentTo(ctx, back)
	if err != nil {
		return "", err
	}
	if sent == "" {
		return "", usagef("no address was given")
	}
	return exchange(ctx, sent)
}

// sentTo returns where the browser was sent, from the browser or from the user.
func (a *app) sentTo(ctx context.Context, back *browserListener) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		sent string
		err  error
	}
	asked := make(chan answer, 1)
	go func() {
		sent, err := a.ask(ctx, "Address: ")
		asked <- answer{sent, err}
	}()
	select {
	case sent := <-back.sent:
		fmt.Fprintln(a.err)
		cancel()
		<-asked
		return sent, nil
	case answer := <-asked:
		return answer.sent, answer.err
	}
}

// A browserListener waits for the browser on this machine.
type browserListener struct {
	address string      // "http://127.0.0.1:PORT"
	sent    chan string // where the first browser was sent
	server  *http.Server
	ended   chan struct{}
}

func (b *browserListener) listen() (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("waiting for the browser: %w", err)
	}
	b.address, b.ended = "http://"+l.Addr().String(), make(chan struct{})
	b.server = &http.Server{Handler: b, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(b.ended)
		_ = b.server.Serve(l) // it ends by close
	}()
	return b.address, nil
}

// ServeHTTP implements http.Handler. A browser asks for an icon, too: that is not it.
func (b *browserListener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if q := r.URL.Query(); r.URL.Path != "/" || !q.Has("code") && !q.Has("error") {
		http.NotFound(w, r)
		return
	}
	select {
	case b.sent <- b.address + r.URL.RequestURI():
	default:
	}
	fmt.Fprintln(w, "sreg has the answer. You can close this page.")
}

func (b *browserListener) close() {
	if b.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // for the page to get out
	defer cancel()
	if b.server.Shutdown(ctx) != nil {
		_ = b.server.Close()
	}
	<-b.ended
}
