// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/cmd/internal/config"
)

// An authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	text []byte // its own, in PEM
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: t.Name()}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.text, _ = a.sign(a.cert)
	return a
}

// sign returns a certificate and its key in PEM.
func (a *authority) sign(template *x509.Certificate) (cert, key []byte) {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.key == nil {
		a.key = private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

func (a *authority) client() (cert, key []byte) {
	return a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// files writes texts into a new directory, with mode 0600.
func files(t *testing.T, texts map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// registry starts a docker-registry that wants a certificate of a's.
func registry(t *testing.T, a *authority) (host string) {
	t.Helper()
	ocitest.Need(t, "docker-registry")
	cert, key := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(3), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	dir := files(t, map[string][]byte{"ca.pem": a.text, "cert.pem": cert, "key.pem": key})
	text := fmt.Sprintf(`version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {inmemory: {}}
http: {addr: "127.0.0.1:0", tls: {certificate: %[1]s/cert.pem, key: %[1]s/key.pem, clientcas: [%[1]s/ca.pem]}}
`, dir)
	if err := os.WriteFile(filepath.Join(dir, "config.yml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", filepath.Join(dir, "config.yml"))
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found, drained := make(chan string, 1), make(chan struct{})
	go func() { // ends with the process
		defer close(drained)
		defer close(found)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-drained
		_ = cmd.Wait()
	})
	host, ok := <-found
	if !ok {
		t.Fatal("docker-registry does not start")
	}
	return host
}

func TestClientCert(t *testing.T) {
	t.Parallel()
	ours, foreign := newAuthority(t), newAuthority(t)
	host := registry(t, ours)
	cert, key := ours.client()
	badCert, badKey := foreign.client()
	dir := files(t, map[string][]byte{
		"ca.pem": ours.text, "cert.pem": cert, "key.pem": key, "both.pem": append(append([]byte{}, cert...), key...),
		"bad.pem": badCert, "bad.key": badKey, "open.key": key,
	})
	if err := os.Chmod(filepath.Join(dir, "open.key"), 0o640); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		cert, key string
		want      error
		text      string
	}{
		"right":          {"cert.pem", "key.pem", nil, ""},
		"one file":       {"both.pem", "", nil, ""},
		"none":           {"", "", backends.ErrUnauthorized, "client_cert"},
		"another's":      {"bad.pem", "bad.key", backends.ErrUnauthorized, "client_cert"},
		"no key":         {"cert.pem", "later.key", backends.ErrNoFile, "later.key"},
		"no cert":        {"later.pem", "key.pem", backends.ErrNoFile, "later.pem"},
		"readable key":   {"cert.pem", "open.key", backends.ErrUnauthorized, "chmod 600"},
		"no pair":        {"cert.pem", "bad.key", fs.ErrInvalid, "bad.key"},
		"key, no cert":   {"", "key.pem", fs.ErrInvalid, "client_cert"},
		"a link for key": {"cert.pem", "link.key", backends.ErrUnauthorized, "symbolic link"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.key == "link.key" {
				if err := os.Symlink("key.pem", filepath.Join(dir, "link.key")); err != nil {
					t.Fatal(err)
				}
			}
			r := remoteAt(host, dir)
			if tt.cert != "" {
				r.ClientCert = filepath.Join(dir, tt.cert)
			}
			if tt.key != "" {
				r.ClientKey = filepath.Join(dir, tt.key)
			}
			err := listAll(t, mustConfigure(t), r)
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v, want %v with %q", err, tt.want, tt.text)
			}
		})
	}
}

func remoteAt(host, dir string) config.Remote {
	return config.Remote{
		Name: "lab", URL: "https://" + host, Config: map[string]any{"url": "https://" + host},
		Common: config.Common{Type: "oci", CAFile: filepath.Join(dir, "ca.pem")},
	}
}

// listAll opens the remote and asks for its catalogue.
func listAll(t *testing.T, o Options, r config.Remote) error {
	t.Helper()
	b, err := o.OpenBackend(t.Context(), r)
	if err != nil {
		return err
	}
	c := backends.NewClient("lab", b, backends.ClientOptions{})
	defer c.Close()
	_, err = backends.Collect(c.List(t.Context(), ""))
	return err
}

// A certificate that is renewed under the same names is taken up by a running mount.
func TestClientCert_renewed(t *testing.T) {
	t.Parallel()
	ours, foreign := newAuthority(t), newAuthority(t)
	host := registry(t, ours)
	cert, key := foreign.client()
	dir := files(t, map[string][]byte{"ca.pem": ours.text, "cert.pem": cert, "key.pem": key})
	r := remoteAt(host, dir)
	r.ClientCert, r.ClientKey = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	b, err := mustConfigure(t).OpenBackend(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	c := backends.NewClient("lab", b, backends.ClientOptions{})
	defer c.Close()
	if _, err := backends.Collect(c.List(t.Context(), "")); !errors.Is(err, backends.ErrUnauthorized) {
		t.Fatalf("with the old one: %v", err)
	}
	cert, key = ours.client()
	if err := errors.Join(os.WriteFile(r.ClientCert, cert, 0o600), os.WriteFile(r.ClientKey, key, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := backends.Collect(c.List(t.Context(), "")); err != nil {
		t.Errorf("with the new one: %v", err)
	}
}

// What Docker and Podman know of a host is known here.
func TestClientCert_ofTools(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t)
	host := registry(t, ours)
	cert, key := ours.client()
	o := mustConfigure(t)
	o.Home = files(t, map[string][]byte{
		".config/containers/certs.d/" + host + "/ca.crt": ours.text, ".config/containers/certs.d/" + host + "/client.cert": cert,
		".config/containers/certs.d/" + host + "/client.key": key,
	})
	r := remoteAt(host, "")
	r.CAFile = ""
	if err := listAll(t, o, r); err != nil {
		t.Error(err)
	}
	r.Type = "sregistry" // no tool of theirs speaks to one
	if err := listAll(t, o, r); err == nil {
		t.Error("files for OCI registries count for another type")
	}
}
