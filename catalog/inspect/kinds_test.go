// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/sylabs/sif/v2/pkg/sif"
)

// newSIF returns a SIF of objects.
func newSIF(t testing.TB, objects ...sif.DescriptorInput) []byte {
	t.Helper()
	var b sif.Buffer
	img, err := sif.CreateContainer(&b, sif.OptCreateWithDescriptors(objects...), sif.OptCreateDeterministic())
	if err != nil {
		t.Fatal(err)
	}
	if err := img.UnloadContainer(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func object(t testing.TB, kind sif.DataType, content string, opts ...sif.DescriptorInputOpt) sif.DescriptorInput {
	t.Helper()
	in, err := sif.NewDescriptorInput(kind, strings.NewReader(content), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// Every kind of object is told, and what it says of itself.
func TestRead_kinds(t *testing.T) {
	t.Parallel()
	f := read(t, newSIF(t,
		object(t, sif.DataDeffile, "Bootstrap: docker\n"),
		object(t, sif.DataEnvVar, "export A=b\n"),
		object(t, sif.DataLabels, `{"a":"b"}`),
		object(t, sif.DataPartition, "no squashfs", sif.OptPartitionMetadata(sif.FsEncryptedSquashfs, sif.PartPrimSys, "arm64")),
		object(t, sif.DataCryptoMessage, "-----BEGIN MESSAGE-----", sif.OptCryptoMessageMetadata(sif.FormatPEM, sif.MessageRSAOAEP)),
		object(t, sif.DataSBOM, "{}", sif.OptSBOMMetadata(sif.SBOMFormatSPDXJSON)),
		object(t, sif.DataGenericJSON, "{}", sif.OptObjectName("some.json")),
		object(t, sif.DataGeneric, "bytes"),
	))
	var got []string
	for _, d := range f.Descriptors {
		got = append(got, strings.Join([]string{d.Type, d.FS, d.Part, d.Detail}, ","))
	}
	want := "Def.FILE,,, Env.Vars,,, JSON.Labels,,, FS,Encrypted squashfs,*System, Cryptographic Message,,,PEM RSA-OAEP SBOM,,,spdx-json JSON.Generic,,, Generic/Raw,,,"
	if strings.Join(got, " ") != want {
		t.Errorf("objects\n%s, want\n%s", strings.Join(got, " "), want)
	}
	if f.Definition == "" || f.Labels["a"] != "b" || len(f.Environment) != 1 || f.Arch != "arm64" {
		t.Errorf("facts: %+v", f)
	}
	if len(f.Notes) != 1 || !strings.Contains(f.Notes[0], "encrypted") {
		t.Errorf("notes %q, want one of an encrypted file system", f.Notes)
	}
}

// A SIF that holds an OCI image tells what that says.
func TestRead_ociSIF(t *testing.T) {
	t.Parallel()
	digest := func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }
	config := names.Replace(testConfig)
	manifest := strings.Replace(names.Replace(testManifest), strings.Repeat("c", 64), digest(config), 1)
	index := strings.Replace(names.Replace(testIndex), strings.Repeat("d", 64), digest(manifest), 1)
	f := read(t, newSIF(t,
		object(t, sif.DataOCIBlob, config), object(t, sif.DataOCIBlob, manifest), object(t, sif.DataOCIRootIndex, index)))
	if f.Format != "sif" || f.Arch != "arm64/v8" || f.Config == nil || len(f.Layers) != 2 || f.Labels["maintainer"] != "vsoch" || f.Notes != nil {
		t.Errorf("facts: %+v", f)
	}
	if d := f.Descriptors[0].Detail; d != "sha256:"+digest(config) {
		t.Errorf("detail of a blob %q", d)
	}
}

func gzipped(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// An image of Singularity 2 as its hub kept it: an ext3 in gzip, of which the head is read.
func TestRead_imgGzip(t *testing.T) {
	t.Parallel()
	ext3 := make([]byte, 1<<20)
	binary.LittleEndian.PutUint16(ext3[1024+56:], 0xEF53)
	copy(ext3[1024+0x78:], "root")
	binary.LittleEndian.PutUint32(ext3[1024+0x108:], 1_500_000_000)
	for _, lead := range []string{"", "#!/usr/bin/env run-singularity\n"} {
		f := read(t, gzipped(t, append([]byte(lead), ext3...)))
		if f.Format != "img.gz" || f.Labels["volume"] != "root" || f.Created != "2017-07-14T02:40:00Z" ||
			len(f.Notes) != 1 || !strings.Contains(f.Notes[0], "gzip -d") {
			t.Errorf("facts: %+v", f)
		}
	}
	for name, content := range map[string][]byte{"text": []byte("text"), "nothing": nil, "squashfs": load(t, "small-gzip.simg")} {
		if f := read(t, gzipped(t, content)); f.Format != "gzip" || f.Labels != nil {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if f := read(t, []byte{0x1f, 0x8b, 8, 0, 1}); f.Format != "gzip" || len(f.Notes) != 1 {
		t.Errorf("broken: %+v", f)
	}
}
