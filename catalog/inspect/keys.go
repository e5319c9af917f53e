// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// A Keyring holds OpenPGP public keys. The zero value is empty. It is not safe for
// concurrent use.
type Keyring struct{ all openpgp.EntityList }

// Add adds the keys in data: those of a keyring, or any number of armored blocks.
//
// Errors: fs.ErrInvalid for what is no key.
func (k *Keyring) Add(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if !bytes.Contains(data, []byte("-----BEGIN PGP")) {
		return k.read(bytes.NewReader(data))
	}
	text := bufio.NewReader(bytes.NewReader(data))
	for found := false; ; found = true {
		block, err := armor.Decode(text)
		if errors.Is(err, io.EOF) && found {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: armored key: %v", fs.ErrInvalid, err)
		}
		if err := k.read(block.Body); err != nil {
			return err
		}
	}
}

func (k *Keyring) read(r io.Reader) error {
	some, err := openpgp.ReadKeyRing(r)
	if err != nil {
		return fmt.Errorf("%w: OpenPGP keys: %v", fs.ErrInvalid, err)
	}
	k.all = append(k.all, some...)
	return nil
}

// Key returns the public part of the key with that fingerprint, in hexadecimal digits, and
// whether there is one.
func (k *Keyring) Key(fingerprint string) ([]byte, bool) {
	want, err := hex.DecodeString(fingerprint)
	if err != nil || len(want) < 20 {
		return nil, false
	}
	for _, e := range k.all {
		if !hasFingerprint(e, want) {
			continue
		}
		var b bytes.Buffer
		if err := e.Serialize(&b); err != nil {
			return nil, false
		}
		return b.Bytes(), true
	}
	return nil, false
}

func hasFingerprint(e *openpgp.Entity, want []byte) bool {
	if bytes.Equal(e.PrimaryKey.Fingerprint, want) {
		return true
	}
	for _, sub := range e.Subkeys {
		if bytes.Equal(sub.PublicKey.Fingerprint, want) {
			return true
		}
	}
	return false
}

// identityOf returns the name and address that a key has.
func identityOf(e *openpgp.Entity) string {
	if id := e.PrimaryIdentity(); id != nil {
		return text([]byte(strings.TrimSpace(id.Name)))
	}
	return ""
}
