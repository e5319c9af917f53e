// SPDX-License-Identifier: Apache-2.0

package swifttest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// A dialer speaks to memcached, which keeps the tokens.
type dialer struct{ net.Dialer }

func (d *dialer) flush(address string) error {
	conn, err := d.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "flush_all\r\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && strings.TrimSpace(line) != "OK" {
		err = fmt.Errorf("memcached: %s", line)
	}
	return err
}

// get returns the body of an answer.
func (a *Account) get(t testing.TB, path string) (string, error) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	token, err := a.server.login(ctx, a.User)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.Storage+path, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Auth-Token", token)
	resp, err := a.server.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return string(text), err
}

// Get asks for an address without a login. The caller closes the body.
func (a *Account) Get(t testing.TB, address string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	return a.server.http.Do(req)
}
