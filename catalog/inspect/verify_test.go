// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	sigstore "github.com/sigstore/sigstore/pkg/signature"
	"github.com/sylabs/sif/v2/pkg/integrity"
	"github.com/sylabs/sif/v2/pkg/sif"

	"github.com/sregfs/sregfs/backends"
)

const greetKey = "C2B63E1FB61B32F3824D92A28E579F16529A6228"

// greetKeys are those of who signed greet-signed.sif.
func greetKeys(t testing.TB) Keys {
	t.Helper()
	var ring Keyring
	if err := ring.Add(load(t, "greet-signer.asc")); err != nil {
		t.Fatal(err)
	}
	key, ok := ring.Key(greetKey)
	if !ok {
		t.Fatal("the keyring does not have its own key")
	}
	return Keys{PGP: key}
}

func verify(t testing.TB, image []byte, keys Keys) *Facts {
	t.Helper()
	r := bytes.NewReader(image)
	f, err := Read(t.Context(), r, r.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(t.Context(), r, r.Size(), keys); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestVerify(t *testing.T) {
	t.Parallel()
	image, keys := load(t, "greet-signed.sif"), greetKeys(t)
	f := verify(t, image, keys)
	if err := f.Verification.Err(); err != nil || len(f.Signatures) != 1 || !f.Signatures[0].Verified || f.Signatures[0].Signer == "" {
		t.Fatalf("as it was signed: %v, %+v", err, f.Signatures)
	}
	// Nothing can be changed in what was signed: the launch line, the version of the header,
	// the kind of a descriptor, the definition, the first and the last byte of the file
	// system, the signature.
	for _, at := range []int{3, 43, 4096, 32176, 36864, 36864 + 2048000 - 1, 2084864 + 900} {
		bad := bytes.Clone(image)
		bad[at] ^= 1
		f := verify(t, bad, keys)
		if err := f.Verification.Err(); !errors.Is(err, backends.ErrCorrupt) {
			t.Errorf("byte %d changed: %v, want ErrCorrupt", at, err)
		}
	}
	f = verify(t, image, Keys{})
	if err := f.Verification.Err(); !errors.Is(err, ErrUnknownKey) || !strings.Contains(err.Error(), greetKey) || f.Signatures[0].Verified {
		t.Errorf("without a key: %v", err)
	}
	for name, bad := range map[string][]byte{"unsigned": unsigned(t), "squashfs": load(t, "greet.simg"), "empty": nil} {
		if err := verify(t, bad, keys).Verification.Err(); !errors.Is(err, ErrUnsigned) {
			t.Errorf("%s: %v, want ErrUnsigned", name, err)
		}
	}
}

// signed returns a SIF that was signed by some, with two objects of which the last is
// added after that if late is set.
func signed(t *testing.T, late bool, opts ...[]integrity.SignerOpt) []byte {
	t.Helper()
	b := sif.NewBuffer(newSIF(t, object(t, sif.DataDeffile, "Bootstrap: docker\n")))
	img, err := sif.LoadContainer(b, sif.OptLoadWithCloseOnUnload(false))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range opts {
		s, err := integrity.NewSigner(img, o...)
		if err == nil {
			err = s.Sign()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if late {
		if err := img.AddObject(object(t, sif.DataGeneric, "late", sif.OptGroupID(2))); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func newKey(t *testing.T, name string) (*openpgp.Entity, []byte) {
	t.Helper()
	e, err := openpgp.NewEntity(name, "", name+"@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return e, b.Bytes()
}

// Who is not known does no harm beside somebody who is; what was added later is signed by
// nobody.
func TestVerify_several(t *testing.T) {
	t.Parallel()
	ann, annKey := newKey(t, "ann")
	bob, bobKey := newKey(t, "bob")
	byAnn, byBob := []integrity.SignerOpt{integrity.OptSignWithEntity(ann)}, []integrity.SignerOpt{integrity.OptSignWithEntity(bob)}
	both := signed(t, false, byAnn, byBob)
	for name, tt := range map[string]struct {
		image []byte
		keys  []byte
		want  error
	}{
		"ann by ann":   {signed(t, false, byAnn), annKey, nil},
		"ann by bob":   {signed(t, false, byAnn), bobKey, ErrUnknownKey},
		"both by both": {both, append(bytes.Clone(annKey), bobKey...), nil},
		"both by ann":  {both, annKey, nil},
		"late":         {signed(t, true, byAnn), annKey, ErrUnsigned},
	} {
		f := verify(t, tt.image, Keys{PGP: tt.keys})
		if err := f.Verification.Err(); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	f := verify(t, both, Keys{PGP: annKey})
	if len(f.Signatures) != 2 || f.Signatures[0].Signer != "ann <ann@example.org>" || f.Signatures[1].Verified || f.Signatures[1].Reason == "" {
		t.Errorf("signatures: %+v", f.Signatures)
	}
}

// A key that is no OpenPGP key is named by its file.
func TestVerify_pem(t *testing.T) {
	t.Parallel()
	newPEM := func() (sigstore.Signer, string) {
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := sigstore.LoadSigner(private, crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		return s, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	signer, mine := newPEM()
	_, other := newPEM()
	image := signed(t, false, []integrity.SignerOpt{integrity.OptSignWithSigner(signer)})
	bad := bytes.Replace(image, []byte("Bootstrap: docker"), []byte("Bootstrap: hacker"), 1)
	for name, tt := range map[string]struct {
		image []byte
		keys  []string
		want  error
	}{
		"mine": {image, []string{mine}, nil}, "two": {image, []string{other, mine}, nil}, "other": {image, []string{other}, ErrUnknownKey},
		"none": {image, nil, ErrUnknownKey}, "changed": {bad, []string{mine}, backends.ErrCorrupt},
	} {
		if err := verify(t, tt.image, Keys{PEM: tt.keys}).Verification.Err(); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func TestKeyring_bad(t *testing.T) {
	t.Parallel()
	var ring Keyring
	for _, bad := range []string{"no key", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n"} {
		if err := ring.Add([]byte(bad)); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", bad, err)
		}
	}
	f := &Facts{Format: "sif"}
	for _, keys := range []Keys{{PGP: []byte("no key")}, {PEM: []string{"no key"}}, {PEM: []string{"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}}} {
		if err := f.Verify(t.Context(), strings.NewReader(""), 0, keys); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%+v: %v, want ErrInvalid", keys, err)
		}
	}
	if _, ok := ring.Key(""); ok {
		t.Error("no fingerprint is a key")
	}
}
