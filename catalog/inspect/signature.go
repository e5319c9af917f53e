// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/sylabs/sif/v2/pkg/sif"
)

// signature tells who signed what. Nothing is verified.
func signature(d sif.Descriptor, data []byte, all []sif.Descriptor) Signature {
	s := Signature{id: d.ID(), dsse: !bytes.HasPrefix(data, clearSigned)}
	if _, fingerprint, err := d.SignatureMetadata(); err == nil {
		s.Fingerprint = strings.ToUpper(hex.EncodeToString(fingerprint))
	}
	s.Legacy = bytes.HasPrefix(data, clearSigned) && bytes.Contains(data, []byte("\n\nSIFHASH:\n"))
	linked, isGroup := d.LinkedID()
	if !isGroup {
		if linked != 0 {
			s.Objects = []uint32{linked}
		}
		return s
	}
	// Objects of the group are named by their distance from its first one.
	first := uint32(0)
	inGroup := map[uint32]bool{}
	for _, o := range all {
		if o.GroupID() == linked {
			if first == 0 || o.ID() < first {
				first = o.ID()
			}
			inGroup[o.ID()] = true
		}
	}
	for _, rel := range signedObjects(data) {
		if id := first + rel; inGroup[id] {
			s.Objects = append(s.Objects, id)
			delete(inGroup, id)
		}
	}
	return s
}

var clearSigned = []byte("-----BEGIN PGP SIGNED MESSAGE-----")

// onlyLegacy reports whether all signatures are of the kind from before Singularity 3.6: a sum
// over objects, of no metadata.
func (f *Facts) onlyLegacy() bool {
	return len(f.Signatures) > 0 && !slices.ContainsFunc(f.Signatures, func(s Signature) bool { return !s.Legacy })
}

// signedObjects returns the objects in a signature's metadata, which is the text
// of a clear-signed OpenPGP message (RFC 9580, section 7) or the payload of a
// DSSE envelope.
func signedObjects(data []byte) []uint32 {
	var envelope struct{ Payload []byte }
	var metadata struct {
		Objects []struct {
			RelativeID uint32 `json:"relativeId"`
		}
	}
	body := data
	if bytes.HasPrefix(data, clearSigned) {
		_, body, _ = bytes.Cut(data, []byte("\n\n"))
		body, _, _ = bytes.Cut(body, []byte("\n-----BEGIN PGP SIGNATURE-----"))
	} else if json.Unmarshal(data, &envelope) == nil && envelope.Payload != nil {
		body = envelope.Payload
	}
	if json.Unmarshal(body, &metadata) != nil {
		return nil
	}
	var ids []uint32
	for _, o := range metadata.Objects {
		ids = append(ids, o.RelativeID)
	}
	return ids
}
