// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"bytes"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/rogpeppe/go-internal/testscript"
)

// startKeyServer starts a key server that has the keys in files. As keys.openpgp.org it finds
// a key by its whole fingerprint only. With "other" it answers any question with its keys, as
// a server that lies does.
func (s *script) startKeyServer(ts *testscript.TestScript, _ bool, args []string) {
	var keys openpgp.EntityList
	lies := false
	for _, file := range args {
		if file == "other" {
			lies = true
			continue
		}
		f, err := os.Open(ts.MkAbs(file))
		ts.Check(err)
		some, err := openpgp.ReadArmoredKeyRing(f)
		f.Close()
		ts.Check(err)
		keys = append(keys, some...)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		search, ok := strings.CutPrefix(strings.ToLower(r.FormValue("search")), "0x")
		switch {
		case r.URL.Path != "/pks/lookup":
			http.NotFound(w, r)
			return
		case r.FormValue("op") != "get" || !ok:
			http.Error(w, "not implemented", http.StatusNotImplemented)
			return
		}
		for _, key := range keys {
			if search == hex.EncodeToString(key.PrimaryKey.Fingerprint) || lies {
				w.Header().Set("Content-Type", "application/pgp-keys")
				_, _ = w.Write(armored(key))
				return
			}
		}
		http.Error(w, "No key found for fingerprint "+search, http.StatusNotFound)
	}))
	s.t.Cleanup(server.Close)
	ts.Setenv("KEYSERVER", server.URL)
}

func armored(key *openpgp.Entity) []byte {
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err == nil {
		err = key.Serialize(w)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

// newKey writes the public key of somebody unknown to a file.
func newKey(ts *testscript.TestScript, _ bool, args []string) {
	e, err := openpgp.NewEntity("somebody", "", "somebody@example.org", nil)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), armored(e), 0o600))
}

func signer(image string) string { return filepath.Join(filepath.Dir(image), "greet-signer.asc") }
