// SPDX-License-Identifier: Apache-2.0

package ocitest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// An Internet is the hosts that a program sees which has Env in its environment: it reaches
// them through a proxy, as in a company, by https. What is public on it is served by this
// machine, which the program itself would not ask under a public name.
type Internet struct {
	proxy  string
	caFile string

	mu    sync.Mutex // guards the fields below
	hosts map[string]http.Handler
	asked []string
}

// StartInternet runs one without any host until the test ends.
func StartInternet(t testing.TB) *Internet {
	t.Helper()
	n := &Internet{hosts: map[string]http.Handler{}, caFile: filepath.Join(t.TempDir(), "authorities.pem")}
	ca, caKey := n.authority(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	web := httptest.NewUnstartedServer(http.HandlerFunc(n.serve))
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		leaf := template(2)
		leaf.DNSNames = []string{hello.ServerName}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
	}}
	web.StartTLS()
	t.Cleanup(web.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.connect(w, r, web.Listener.Addr().String()) }))
	t.Cleanup(proxy.Close)
	n.proxy = proxy.URL
	return n
}

// Env is what the environment of a program needs.
func (n *Internet) Env() []string {
	return []string{"HTTPS_PROXY=" + n.proxy, "HTTP_PROXY=" + n.proxy, "NO_PROXY=127.0.0.1", "SSL_CERT_FILE=" + n.caFile}
}

// Serve lets a host, with or without a port, be there.
func (n *Internet) Serve(host string, handler http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[host] = handler
}

// ServeRegistry lets a registry be found at a host.
func (n *Internet) ServeRegistry(host string, r *Registry) {
	at, err := url.Parse(r.URL)
	if err != nil {
		panic(err) // it is an address of ours
	}
	n.Serve(host, &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(at) }, Transport: r.client.Transport})
}

// Asked returns each HOST:PORT that a connection was wanted to, also if there is none.
func (n *Internet) Asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

func (n *Internet) serve(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	handler := n.hosts[r.Host]
	n.mu.Unlock()
	if handler == nil {
		http.NotFound(w, r)
		return
	}
	handler.ServeHTTP(w, r)
}

// connect answers a CONNECT with a connection to the server of all hosts.
func (n *Internet) connect(w http.ResponseWriter, r *http.Request, to string) {
	n.mu.Lock()
	n.asked = append(n.asked, r.Host)
	host, port, _ := net.SplitHostPort(r.Host)
	there := n.hosts[r.Host] != nil || port == "443" && n.hosts[host] != nil
	n.mu.Unlock()
	if r.Method != http.MethodConnect || !there {
		http.Error(w, "no such host", http.StatusBadGateway)
		return
	}
	server, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer server.Close()
	client, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	if _, err := io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	join(client, buffered.Reader, server)
}

// join copies both ways until one side ends.
func join(client net.Conn, from *bufio.Reader, server net.Conn) {
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(server, from)
		_ = server.Close()
	})
	both.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	both.Wait()
}

// authority makes who signs the certificates of all hosts, and writes CAFile.
func (n *Internet) authority(t testing.TB) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	ca := template(1)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	check(t, err)
	check(t, os.WriteFile(n.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	parsed, err := x509.ParseCertificate(der)
	check(t, err)
	return parsed, key
}

func template(serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "sregfs test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
