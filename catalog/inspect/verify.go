// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	sigstore "github.com/sigstore/sigstore/pkg/signature"
	"github.com/sylabs/sif/v2/pkg/integrity"
	"github.com/sylabs/sif/v2/pkg/sif"

	"github.com/sregfs/sregfs/backends"
)

// Why an image is not verified. What does not match its signature is a backends.ErrCorrupt.
var (
	// ErrUnsigned: not all of the image is signed.
	ErrUnsigned = errors.New("not signed")
	// ErrUnknownKey: the keys at hand do not say whether it is as it was signed.
	ErrUnknownKey = errors.New("no key to verify it with")
)

// Keys are what signatures are verified with.
type Keys struct {
	PGP []byte   `json:"pgp,omitempty"` // OpenPGP keys, as Keyring.Key returns them
	PEM []string `json:"pem,omitempty"` // public keys and certificates, each of them trusted
}

// A Verification is what came of verifying an image's signatures.
type Verification struct {
	Verified bool   `json:"verified"` // each object is as somebody signed whose key was given
	Reason   string `json:"reason,omitempty"`
	Kind     string `json:"kind,omitempty"` // "corrupt", "unsigned", "unknown key"
}

// The values of Verification.Kind.
const (
	kindCorrupt  = "corrupt"
	kindUnsigned = "unsigned"
	kindUnknown  = "unknown key"
)

// Err returns why an image is not verified, nil if it is.
//
// Errors: backends.ErrCorrupt, ErrUnsigned, ErrUnknownKey.
func (v *Verification) Err() error {
	if v.Verified {
		return nil
	}
	sentinel := ErrUnsigned
	switch v.Kind {
	case kindCorrupt:
		sentinel = backends.ErrCorrupt
	case kindUnknown:
		sentinel = ErrUnknownKey
	}
	return backends.Saying(sentinel, "%s", v.Reason)
}

// maxSignatures is how many signatures are verified: each may mean that all of the image is
// read.
const maxSignatures = 32

// Verify adds to f, the facts of the image that r holds, whether its signatures are those of
// the keys, and whether every object is as it was signed: all of them are read. A signature
// by somebody else does no harm if there is one by somebody known; one that does not
// match, does.
//
// Errors: fs.ErrInvalid for keys that cannot be read; those of r; ctx's. That the image is
// not verified is no error here.
func (f *Facts) Verify(ctx context.Context, r io.ReaderAt, size int64, keys Keys) error {
	var ring Keyring
	if err := ring.Add(keys.PGP); err != nil {
		return err
	}
	verifiers, err := loadPEM(keys.PEM)
	if err != nil {
		return err
	}
	p := newPager(ctx, r, size)
	err = guard(func() error { f.verify(p, &ring, verifiers); return nil })
	if p.err != nil {
		return p.err
	}
	if err != nil {
		f.fail(kindCorrupt, "%v", err)
	}
	return nil
}

// VerifyFile reads and verifies an image that is on this machine.
//
// Errors: those of Read and Facts.Verify.
func VerifyFile(ctx context.Context, file *os.File, keys Keys) (*Facts, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, backends.DiskError("inspect", err)
	}
	f, err := Read(ctx, file, info.Size())
	if err != nil {
		return nil, err
	}
	return f, f.Verify(ctx, file, info.Size(), keys)
}

// Unsigned reports whether the image has no signature, and sets Verification if so: it need
// not be read for that.
func (f *Facts) Unsigned() bool {
	if len(f.Signatures) > 0 {
		return false
	}
	f.fail(kindUnsigned, "not signed")
	return true
}

func (f *Facts) fail(kind, format string, args ...any) {
	f.Verification = &Verification{Kind: kind, Reason: text([]byte(fmt.Sprintf(format, args...)))}
}

func (f *Facts) verify(p *pager, ring *Keyring, verifiers []sigstore.Verifier) {
	if f.Format != "sif" {
		f.fail(kindUnsigned, "not signed: only a SIF can be, and this is %s", f.Format)
		return
	}
	img, err := loadSIF(p)
	if err != nil {
		f.fail(kindCorrupt, "SIF header: %v", err)
		return
	}
	all := objects(img)
	f.Signatures = nil
	for _, d := range all {
		switch {
		case !within(d, p.size):
			f.fail(kindCorrupt, "object %d reaches beyond the end of the file", d.ID())
			return
		case d.DataType() != sif.DataSignature:
			continue
		case d.Size() > maxObject || len(f.Signatures) == maxSignatures:
			f.fail(kindCorrupt, "object %d: a signature of %d bytes, after %d others", d.ID(), d.Size(), len(f.Signatures))
			return
		}
		data, err := objectData(p, d)
		if err != nil {
			f.fail(kindCorrupt, "object %d: %v", d.ID(), err)
			return
		}
		f.Signatures = append(f.Signatures, signature(d, data, all))
	}
	f.judge(p, img, all, ring, verifiers)
}

// judge lets the library verify each signature, and says what that means for the image.
func (f *Facts) judge(p *pager, img *sif.FileImage, all []sif.Descriptor, ring *Keyring, verifiers []sigstore.Verifier) {
	covered := make(map[uint32]bool)
	seen := make(map[uint32]bool)
	var corrupt, unknown []string
	each := func(r integrity.VerifyResult) bool {
		id := r.Signature().ID()
		at := slices.IndexFunc(f.Signatures, func(s Signature) bool { return s.id == id })
		if at < 0 || seen[id] {
			return true
		}
		seen[id] = true
		s := &f.Signatures[at]
		switch known, reason := f.whyNot(s, r.Error(), ring, verifiers); {
		case r.Error() == nil:
			s.Verified, s.Signer = true, signerOf(r)
			for _, d := range r.Verified() {
				covered[d.ID()] = true
			}
		case known:
			s.Reason = reason
			corrupt = append(corrupt, reason)
		default:
			s.Reason = reason
			unknown = append(unknown, reason)
		}
		return true
	}
	v, err := newVerifier(p.ctx, img, ring, verifiers, each)
	if err == nil {
		err = v.Verify()
	}
	f.conclude(err, all, covered, corrupt, unknown)
}

// newVerifier gives the library a key of each kind: it would stop at the first signature of a
// kind that it has none of.
func newVerifier(ctx context.Context, img *sif.FileImage, ring *Keyring, verifiers []sigstore.Verifier, each integrity.VerifyCallback) (*integrity.Verifier, error) {
	if len(verifiers) == 0 {
		none, err := nobody()
		if err != nil {
			return nil, err
		}
		verifiers = append(verifiers, none)
	}
	return integrity.NewVerifier(img, integrity.OptVerifyWithContext(ctx), integrity.OptVerifyCallback(each),
		integrity.OptVerifyWithKeyRing(ring.all), integrity.OptVerifyWithVerifier(verifiers...))
}

func (f *Facts) conclude(err error, all []sif.Descriptor, covered map[uint32]bool, corrupt, unknown []string) {
	var open []uint32
	for _, d := range all {
		if d.DataType() != sif.DataSignature && !covered[d.ID()] {
			open = append(open, d.ID())
		}
	}
	switch {
	case len(corrupt) > 0:
		f.fail(kindCorrupt, "%s", strings.Join(corrupt, "; "))
	case len(unknown) > 0 && len(open) > 0:
		f.fail(kindUnknown, "%s", strings.Join(unknown, "; "))
	case f.onlyLegacy():
		f.fail(kindUnsigned, "signed in the way of before Singularity 3.6, which protects neither header nor descriptors")
	case len(f.Signatures) == 0:
		f.fail(kindUnsigned, "not signed")
	case len(open) > 0:
		f.fail(kindUnsigned, "objects %v are not signed", open)
	case err != nil && !errors.Is(err, &integrity.SignatureNotFoundError{}):
		f.fail(kindCorrupt, "%v", err)
	default:
		f.Verification = &Verification{Verified: true}
	}
}

// whyNot says why a signature is not verified; known, that its key is at hand, so that it is
// the image that is wrong.
func (f *Facts) whyNot(s *Signature, err error, ring *Keyring, verifiers []sigstore.Verifier) (known bool, reason string) {
	_, known = ring.Key(s.Fingerprint)
	object := &integrity.ObjectIntegrityError{}
	descriptor := &integrity.DescriptorIntegrityError{}
	switch {
	case err == nil:
		return true, ""
	case s.dsse && len(verifiers) == 0:
		return false, fmt.Sprintf("signature %d was made with a key that is no OpenPGP key: name it (--key FILE)", s.id)
	case !s.dsse && (!known || errors.Is(err, pgperrors.ErrUnknownIssuer)):
		return false, fmt.Sprintf("signature %d was made with the key %s, which is not at hand", s.id, s.Fingerprint)
	case errors.Is(err, pgperrors.ErrKeyExpired), errors.Is(err, pgperrors.ErrSignatureExpired), errors.Is(err, pgperrors.ErrKeyRevoked):
		return false, fmt.Sprintf("signature %d of %s: %v", s.id, s.Fingerprint, err)
	case errors.As(err, &object) && object.ID != 0:
		return true, fmt.Sprintf("object %d is not what was signed", object.ID)
	case errors.As(err, &descriptor):
		return true, fmt.Sprintf("the descriptor of object %d is not what was signed", descriptor.ID)
	case errors.Is(err, integrity.ErrHeaderIntegrity):
		return true, "the header is not what was signed"
	case s.dsse && !errors.As(err, &object):
		return false, fmt.Sprintf("signature %d was made with none of the given keys: %v", s.id, err)
	}
	return true, fmt.Sprintf("signature %d is not valid: %v", s.id, err)
}

func signerOf(r integrity.VerifyResult) string {
	if e := r.Entity(); e != nil {
		return identityOf(e)
	}
	return ""
}

// nobody is a key that has made no signature.
func nobody() (sigstore.Verifier, error) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	return sigstore.LoadVerifier(public, crypto.SHA256)
}

// loadPEM reads public keys and certificates.
func loadPEM(all []string) ([]sigstore.Verifier, error) {
	var out []sigstore.Verifier
	for _, one := range all {
		block, _ := pem.Decode([]byte(one))
		if block == nil {
			return nil, fmt.Errorf("%w: no PEM block in the key", fs.ErrInvalid)
		}
		var key crypto.PublicKey
		var err error
		if block.Type == "CERTIFICATE" {
			var cert *x509.Certificate
			if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
				key = cert.PublicKey
			}
		} else {
			key, err = x509.ParsePKIXPublicKey(block.Bytes)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: key: %v", fs.ErrInvalid, err)
		}
		v, err := sigstore.LoadVerifier(key, crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("%w: key: %v", fs.ErrInvalid, err)
		}
		out = append(out, v)
	}
	return out, nil
}
