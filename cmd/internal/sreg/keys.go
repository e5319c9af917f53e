// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/inspect"
)

// A keySource says where the keys are that signatures are verified with. They are looked up
// by this process, as the user: a mount may run as somebody else.
type keySource struct {
	keyrings, files []string
	server          string
}

func (k *keySource) flags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&k.keyrings, "keyring", nil, "OpenPGP keys in this `file`, instead of Apptainer's and Singularity's keyrings; more than once for several")
	fs.StringArrayVar(&k.files, "key", nil, "a public key or certificate in PEM, for signatures that are not OpenPGP's; likewise")
	fs.StringVar(&k.server, "keyserver", "", "ask this key server, such as https://keys.openpgp.org, for keys that are in no keyring")
}

const (
	maxKeyring = 64 << 20
	maxPEM     = 64 << 10
	maxKey     = 1 << 20 // one key from a key server
	keyTimeout = 30 * time.Second
)

// find returns the keys that signatures were made with, as far as there are any, and where
// each was found, by fingerprint.
func (k *keySource) find(ctx context.Context, getenv func(string) string, signatures []inspect.Signature) (keys inspect.Keys, from map[string]string, err error) {
	for _, file := range k.files {
		text, err := backends.ReadRegular(file, 0, maxPEM)
		if err != nil {
			return keys, nil, err
		}
		keys.PEM = append(keys.PEM, string(text))
	}
	files, optional := k.keyrings, false
	if len(files) == 0 {
		files, optional = userKeyrings(getenv), true
	}
	from = make(map[string]string)
	take := func(ring *inspect.Keyring, where string) {
		for _, s := range signatures {
			if key, ok := ring.Key(s.Fingerprint); ok && from[s.Fingerprint] == "" {
				keys.PGP = append(keys.PGP, key...)
				from[s.Fingerprint] = where
			}
		}
	}
	for _, file := range files {
		ring, err := readKeyring(file)
		if errors.Is(err, fs.ErrNotExist) && optional {
			continue
		}
		if err != nil {
			return keys, from, err
		}
		take(ring, file)
	}
	if k.server == "" {
		return keys, from, nil
	}
	for _, s := range signatures {
		if s.Fingerprint == "" || from[s.Fingerprint] != "" {
			continue
		}
		ring, err := askKeyServer(ctx, k.server, s.Fingerprint)
		if err != nil {
			return keys, from, err
		}
		take(ring, k.server)
	}
	return keys, from, nil
}

// userKeyrings are the files in which Apptainer and Singularity keep public keys: what
// "apptainer key import" and "key pull" write, and what an administrator has put there for all.
func userKeyrings(getenv func(string) string) []string {
	var files []string
	for _, name := range []string{"APPTAINER_KEYSPATH", "SINGULARITY_KEYSPATH", "SINGULARITY_SYPGPDIR"} {
		if dir := getenv(name); dir != "" {
			files = append(files, filepath.Join(dir, "pgp-public"))
		}
	}
	if home := getenv("HOME"); home != "" {
		for _, dir := range []string{".apptainer/keys", ".singularity/keys", ".singularity/sypgp"} {
			files = append(files, filepath.Join(home, dir, "pgp-public"))
		}
	}
	return append(files, "/etc/apptainer/global-pgp-public", "/usr/local/etc/apptainer/global-pgp-public", "/etc/singularity/global-pgp-public")
}

func readKeyring(file string) (*inspect.Keyring, error) {
	data, err := backends.ReadRegular(file, 0, maxKeyring)
	if err != nil {
		return nil, err
	}
	var ring inspect.Keyring
	if err := ring.Add(data); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &ring, nil
}

// askKeyServer gets a key by HKP (draft-gallagher-openpgp-hkp). The caller looks in the answer
// for the key that it asked for: what else a server sends counts for nothing. There may be none.
func askKeyServer(ctx context.Context, server, fingerprint string) (*inspect.Keyring, error) {
	at, err := keyServerURL(server)
	if err != nil {
		return nil, err
	}
	at.RawQuery = url.Values{"op": {"get"}, "options": {"mr"}, "search": {"0x" + fingerprint}}.Encode()
	ctx, cancel := context.WithTimeout(ctx, keyTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: key server %s: %v", backends.ErrUnavailable, server, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxKey+1))
	var ring inspect.Keyring
	switch {
	case err != nil, resp.StatusCode >= 500:
		return nil, fmt.Errorf("%w: key server %s: %s", backends.ErrUnavailable, server, resp.Status)
	case resp.StatusCode == http.StatusNotFound:
		return &ring, nil
	case resp.StatusCode != http.StatusOK, len(data) > maxKey:
		return nil, fmt.Errorf("%w: key server %s: %s, %d bytes", backends.ErrBadAnswer, server, resp.Status, len(data))
	}
	if err := ring.Add(data); err != nil {
		return nil, fmt.Errorf("%w: key server %s: %v", backends.ErrBadAnswer, server, err)
	}
	return &ring, nil
}

// keyServerURL returns where a key server answers lookups.
func keyServerURL(server string) (*url.URL, error) {
	text := server
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	at, err := url.Parse(text)
	if err != nil || at.Host == "" {
		return nil, usagef("--keyserver %q: want a URL such as https://keys.openpgp.org", server)
	}
	switch at.Scheme {
	case "hkps":
		at.Scheme = "https"
	case "hkp":
		at.Scheme = "http"
		if at.Port() == "" {
			at.Host += ":11371"
		}
	case "http", "https":
	default:
		return nil, usagef("--keyserver %q: want http, https, hkp or hkps", server)
	}
	return at.JoinPath("pks", "lookup"), nil
}

// verify verifies what was inspected. If the bytes are not here, they are fetched.
func (a *app) verify(ctx context.Context, arg string, k keySource) (in inspection, err error) {
	if in, err = a.inspect(ctx, arg); err != nil || in.Facts.Unsigned() {
		return in, err
	}
	keys, from, err := k.find(ctx, a.getenv, in.Facts.Signatures)
	if err != nil {
		return in, fmt.Errorf("verify %s: %w", arg, err)
	}
	if in.uri == "" {
		in.Facts, err = verifyFile(ctx, in.Record.Path, keys)
	} else {
		in.Inspection, err = a.verifyImage(ctx, in.uri, keys)
	}
	if err != nil {
		return in, err
	}
	for i := range in.Facts.Signatures {
		s := &in.Facts.Signatures[i]
		s.Key = from[s.Fingerprint]
	}
	return in, nil
}

func verifyFile(ctx context.Context, path string, keys inspect.Keys) (*inspect.Facts, error) {
	f, err := backends.OpenRegular(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return inspect.VerifyFile(ctx, f, keys)
}
