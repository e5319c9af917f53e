// SPDX-License-Identifier: Apache-2.0

package gcs

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
)

// An object is what the API calls so, as far as it counts here.
// https://cloud.google.com/storage/docs/json_api/v1/objects#resource
type object struct {
	Kind        string            `json:"kind,omitempty"`
	Name        string            `json:"name,omitempty"`
	Generation  string            `json:"generation,omitempty"` // another number for other bytes
	Size        string            `json:"size,omitempty"`       // a number
	MD5Hash     string            `json:"md5Hash,omitempty"`    // base64; none of what was composed
	CRC32C      string            `json:"crc32c,omitempty"`     // base64 of four bytes, the highest first
	TimeCreated string            `json:"timeCreated,omitempty"`
	TimeDeleted string            `json:"timeDeleted,omitempty"` // of a version that was replaced or removed
	ContentType string            `json:"contentType,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
}

// objectFields are what requests ask for of an object: all of the above.
const objectFields = "kind,name,generation,size,md5Hash,crc32c,timeCreated,timeDeleted,contentType,metadata"

// Keys of metadata.
const (
	keyType    = "type"   // "container": the sregistry client lists nothing else
	keyClient  = "client" // "sregistry"
	keyURI     = "uri"    // COLLECTION/NAME:TAG, which it searches
	keySHA256  = "sha256"
	keyMtime   = "mtime"     // when the file was changed, RFC 3339: as rclone writes it
	keyOldSum  = "sha256sum" // of what Google Build made for sregistry
	keyVersion = "version"   // the SHA-256 since sregistry 0.2.23, before an MD5
)

const container = "container"

// isNumber reports whether s can be a generation.
func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 63)
	return err == nil
}

// file returns what an object in the bucket is below the prefix.
//
// Errors: backends.ErrBadAnswer.
func (s *store) file(o object) (files.File, error) {
	path, ok := strings.CutPrefix(o.Name, s.prefix)
	size, err := strconv.ParseUint(o.Size, 10, 63)
	if !ok || o.Kind != "storage#object" || path == "" || err != nil || !isNumber(o.Generation) {
		return files.File{}, fmt.Errorf("%w: not an object of the bucket: %.80q of %.20q bytes", backends.ErrBadAnswer, o.Name, o.Size)
	}
	f := files.File{
		Path: path, Size: int64(size), Version: o.Generation, Digest: o.digest(), Modified: o.modified(), ID: o.CRC32C, Older: o.TimeDeleted != "",
	}
	if s.base == googles {
		f.URL = "https://console.cloud.google.com/storage/browser/_details/" + s.bucket + "/" + (&url.URL{Path: o.Name}).EscapedPath()
	}
	return f, nil
}

// digest returns the SHA-256 that was told when the object was pushed, else the MD5 that
// Google computed.
func (o object) digest() string {
	sums := []string{o.Metadata[keySHA256], o.Metadata[keyOldSum]}
	if o.Metadata[keyType] == container {
		sums = append(sums, o.Metadata[keyVersion])
	}
	for _, sum := range sums {
		if digest := "sha256:" + strings.ToLower(sum); backends.CheckDigest(digest) == nil {
			return digest
		}
	}
	if md5, err := base64.StdEncoding.DecodeString(o.MD5Hash); err == nil && len(md5) == 16 {
		return "md5:" + hex.EncodeToString(md5)
	}
	return ""
}

func (o object) modified() time.Time {
	for _, text := range []string{o.Metadata[keyMtime], o.TimeCreated} {
		if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
			return at
		}
	}
	return time.Time{}
}

// metadata returns what is kept with the bytes of src at a path.
func (s *store) metadata(path string, src backends.Source) map[string]string {
	m := map[string]string{keyType: container, keyClient: "sregistry", keyURI: s.uri(path), keySHA256: strings.TrimPrefix(src.Digest, "sha256:")}
	if !src.Modified.IsZero() {
		m[keyMtime] = src.Modified.UTC().Format(time.RFC3339Nano)
	}
	return m
}

// uri is the name of an image as the sregistry client spells it. Metadata become headers: what
// none can have is escaped.
func (s *store) uri(path string) string {
	ref, ok := s.ref(path)
	if !ok {
		return path
	}
	return strings.TrimPrefix(ref.String(), "/")
}
