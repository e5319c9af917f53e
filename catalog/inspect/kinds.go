// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sylabs/sif/v2/pkg/sif"
)

func (f *Facts) readExt3(super []byte) {
	// https://docs.kernel.org/filesystems/ext4/super.html
	id := super[0x68:0x78]
	f.ID = fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	if label := text(bytes.TrimRight(super[0x78:0x88], "\x00")); label != "" {
		f.Labels = map[string]string{"volume": label}
	}
	f.Created = stamp(time.Unix(int64(binary.LittleEndian.Uint32(super[0x108:])), 0))
}

// readGzip takes what the head of a compressed image tells. Nothing behind it can be read
// without all that is before.
func (f *Facts) readGzip(p *pager) {
	f.Format = "gzip"
	r, err := gzip.NewReader(io.NewSectionReader(p, 0, p.size))
	if err != nil {
		f.note("gzip", err)
		return
	}
	head := make([]byte, headSize+len(launchLine))
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		f.note("gzip", err)
		return
	}
	head = head[:n]
	if line, rest, ok := bytes.Cut(head, []byte("\n")); ok && bytes.HasPrefix(line, []byte("#!")) {
		f.Launch = text(line)
		head = rest
	}
	if len(head) < headSize || !isExt3(head[:headSize]) {
		return
	}
	f.Format = "img.gz"
	f.readExt3(head[1024:headSize])
	f.Notes = append(f.Notes, `an ext3 file system in gzip: what is in it cannot be read by range ("gzip -d", then "apptainer build NEW.sif OLD.img", makes a SIF of it)`)
}

// readContainer takes what is told of the container image that a SIF was laid out from
// (package vsif).
func (f *Facts) readContainer(p *pager, all []sif.Descriptor) {
	documents := map[string][]byte{"oci-manifest.json": nil, "oci-image.json": nil}
	found := 0
	for _, d := range all {
		if text, wanted := documents[d.Name()]; !wanted || text != nil || d.DataType() != sif.DataGenericJSON {
			continue
		}
		data, err := objectData(p, d)
		if err != nil {
			f.note(d.Name(), err)
			return
		}
		documents[d.Name()] = data
		found++
	}
	if found == len(documents) {
		created := f.Created
		f.readDocuments(documents["oci-manifest.json"], documents["oci-image.json"])
		f.Created = cmp.Or(f.Created, created)
	}
}

// readOCI takes what an OCI image tells that a SIF holds as its blobs.
func (f *Facts) readOCI(p *pager, all []sif.Descriptor) {
	blobs := make(map[string]sif.Descriptor)
	var root sif.Descriptor
	found := false
	for _, d := range all {
		if sum, err := d.OCIBlobDigest(); err == nil {
			blobs[sum.String()] = d
		}
		if d.DataType() == sif.DataOCIRootIndex && !found {
			root, found = d, true
		}
	}
	if !found {
		return
	}
	created := f.Created
	manifest, config, err := ociDocuments(p, root, blobs)
	if err != nil {
		f.note("OCI image", err)
		return
	}
	f.readDocuments(manifest, config)
	f.Created = cmp.Or(f.Created, created)
}

func ociDocuments(p *pager, root sif.Descriptor, blobs map[string]sif.Descriptor) (manifest, config []byte, err error) {
	data, err := objectData(p, root)
	if err != nil {
		return nil, nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, nil, err
	}
	if len(index.Manifests) == 0 {
		return nil, nil, errNoLayout
	}
	blob := func(sum string) ([]byte, error) {
		d, ok := blobs[sum]
		if !ok {
			return nil, fmt.Errorf("no blob %s", sum)
		}
		return objectData(p, d)
	}
	if manifest, err = blob(index.Manifests[0].Digest.String()); err != nil {
		return nil, nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, nil, err
	}
	config, err = blob(m.Config.Digest.String())
	return manifest, config, err
}

func describe(d sif.Descriptor) Descriptor {
	out := Descriptor{ID: d.ID(), Type: d.DataType().String(), Name: text([]byte(d.Name())),
		Offset: d.Offset(), Size: d.Size()}
	if fs, part, _, err := d.PartitionMetadata(); err == nil {
		out.FS, out.Part = fs.String(), part.String()
	}
	if format, message, err := d.CryptoMessageMetadata(); err == nil {
		out.Detail = format.String() + " " + message.String()
	}
	if format, err := d.SBOMMetadata(); err == nil {
		out.Detail = format.String()
	}
	if sum, err := d.OCIBlobDigest(); err == nil {
		out.Detail = sum.String()
	}
	return out
}

// isEncrypted reports whether the file system that a container is started from is encrypted.
func isEncrypted(all []sif.Descriptor) bool {
	for _, d := range all {
		if fs, part, _, err := d.PartitionMetadata(); err == nil && part == sif.PartPrimSys && fs == sif.FsEncryptedSquashfs {
			return true
		}
	}
	return false
}
