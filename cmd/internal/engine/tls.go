// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/version"
)

// HTTPClient returns what the requests to a remote are sent with.
//
// Errors: fs.ErrInvalid for a ca_file or client_cert that is none;
// backends.ErrUnauthorized for a client_key that others can read.
func (o Options) HTTPClient(r config.Remote) (*http.Client, error) {
	tlsConfig, err := o.tlsOf(r)
	if err != nil {
		return nil, err
	}
	opts := backends.HTTPOptions{
		UserAgent:    "sregfs/" + version.String(),
		TLS:          tlsConfig,
		AllowPrivate: r.AllowPrivate,
		PlainLogin:   r.PlainLogin,
		PublicOnly:   r.ByHost,
		MinRate:      int64(r.MinRate),
		Log:          o.Log,
	}
	if limit := time.Duration(r.Timeout); limit > 0 { // what is silent for so long has failed
		opts.HeaderTimeout, opts.IdleTimeout = min(limit, backends.DefaultHeaderTimeout), min(limit, backends.DefaultIdleTimeout)
	}
	return backends.NewHTTPClient(opts), nil
}

// maxCertificates bounds a file of certificates in bytes; that of a system has some 200 KB.
const maxCertificates = 16 << 20

// tlsOf returns nil where the system's certificates do, and no certificate of ours is
// configured. What other tools have for the host counts as far as the remote says
// nothing else.
func (o Options) tlsOf(r config.Remote) (*tls.Config, error) {
	theirs := o.certsOfTools(r)
	pair := keyPair{cert: r.ClientCert, key: r.ClientKey}
	switch {
	case pair.key != "" && pair.cert == "":
		return nil, fmt.Errorf("%w: client_key without client_cert", fs.ErrInvalid)
	case pair.cert == "":
		pair = theirs.pair
	case pair.key == "":
		pair.key = pair.cert // one file can hold both
	}
	authorities := theirs.authorities
	if r.CAFile != "" {
		authorities = []string{r.CAFile}
	}
	if len(authorities) == 0 && pair.cert == "" && !r.Insecure {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: r.Insecure} //nolint:gosec // only where insecure = true says so
	if pair.cert != "" {
		if _, err := pair.load(); err != nil && !errors.Is(err, backends.ErrNoFile) { // it may yet appear
			return nil, err
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.load() }
	}
	if len(authorities) == 0 {
		return c, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, path := range authorities {
		text, err := backends.ReadRegular(path, 0, maxCertificates)
		if err != nil {
			return nil, fmt.Errorf("%w: ca_file: %v", fs.ErrInvalid, err)
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%w: ca_file %s holds no PEM certificate", fs.ErrInvalid, path)
		}
	}
	c.RootCAs = pool
	return c, nil
}

// A keyPair names a certificate of ours and its key, in PEM. They are read for each
// connection that asks for them: a renewed one is taken up by the next connection.
type keyPair struct{ cert, key string }

// load reads both. The key is a secret, and is read as one.
//
// Errors: fs.ErrInvalid; backends.ErrNoFile; backends.ErrUnauthorized if a file cannot be
// read or can be read by others.
func (p keyPair) load() (*tls.Certificate, error) {
	key, err := readSecret("client_key", p.key)
	if err != nil {
		return nil, err
	}
	cert := []byte(key)
	if p.cert != p.key {
		if cert, err = backends.ReadRegular(p.cert, 0, maxCertificates); err != nil {
			return nil, notRead("client_cert", err)
		}
	}
	c, err := tls.X509KeyPair(cert, []byte(key))
	if err != nil {
		return nil, fmt.Errorf("%w: client_cert %s with client_key %s: %v", fs.ErrInvalid, p.cert, p.key, err)
	}
	return &c, nil
}

// certificates are what is configured for one host.
type certificates struct {
	authorities []string
	pair        keyPair
}

// certsOfTools looks where Docker, Podman and Skopeo keep what belongs to a registry's
// host: *.crt are authorities, NAME.cert and NAME.key are ours. As with them the first
// directory counts alone (containers-certs.d(5), docs.docker.com/engine/security/certificates).
// A key that we may not read is passed over: Docker's is read by its daemon alone.
func (o Options) certsOfTools(r config.Remote) (found certificates) {
	host := r.Host()
	if host == "" || !o.typeOf(r).OCI {
		return found
	}
	for _, dir := range o.certDirs() {
		entries, err := os.ReadDir(filepath.Join(dir, host))
		if err != nil {
			continue
		}
		for _, e := range entries {
			path := filepath.Join(dir, host, e.Name())
			switch filepath.Ext(e.Name()) {
			case ".crt":
				found.authorities = append(found.authorities, path)
			case ".cert":
				pair := keyPair{cert: path, key: strings.TrimSuffix(path, ".cert") + ".key"}
				if _, err := pair.load(); err != nil {
					o.Log.Warn("a client certificate is passed over", "remote", r.Name, "err", err)
				} else {
					found.pair = pair
				}
			}
		}
		return found
	}
	return found
}

// systemCertDirs are those of the whole machine.
var systemCertDirs = []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}

func (o Options) certDirs() []string {
	if o.Home == "" {
		return systemCertDirs
	}
	return append([]string{filepath.Join(o.Home, ".config", "containers", "certs.d")}, systemCertDirs...)
}
