// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxMembers  = 10_000  // files of an archive that are looked at
	maxDocument = 4 << 20 // bytes of an index, a manifest, a configuration
)

// Config is how a container image wants to be run, as its configuration says
// (OCI image-spec, config.md).
type Config struct {
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	Env        []string `json:"env,omitempty"`
	WorkingDir string   `json:"workingDir,omitempty"`
	User       string   `json:"user,omitempty"`
	Ports      []string `json:"ports,omitempty"`
	Volumes    []string `json:"volumes,omitempty"`
	StopSignal string   `json:"stopSignal,omitempty"`
}

// Layer is one layer of a container image.
type Layer struct {
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"` // bytes, compressed
	CreatedBy string `json:"createdBy,omitempty"`
}

// Step is one step of the build of a container image.
type Step struct {
	Created   string `json:"created,omitempty"` // RFC 3339
	CreatedBy string `json:"createdBy,omitempty"`
	Comment   string `json:"comment,omitempty"`
	Empty     bool   `json:"empty,omitempty"` // it made no layer
}

// Base is the image that a container image was built from, as its annotations say.
type Base struct {
	Name   string `json:"name,omitempty"`
	Digest string `json:"digest,omitempty"`
}

// isTar looks for the magic of POSIX.1-1988 and of GNU tar.
func isTar(head []byte) bool { return len(head) >= 512 && string(head[257:262]) == "ustar" }

// An ociTar finds the documents of an OCI image layout in a tar file. It goes no
// further than it must: in an archive as we make them that is its head.
type ociTar struct {
	p     *pager
	at    *io.SectionReader
	files *tar.Reader
	seen  int
	found map[string]Range // by name
}

var errNoLayout = errors.New("no OCI image in the archive")

// readArchive takes what the image in an OCI archive tells.
func (f *Facts) readArchive(p *pager) {
	at := io.NewSectionReader(p, 0, p.size)
	t := &ociTar{p: p, at: at, files: tar.NewReader(at), found: map[string]Range{}}
	var index ocispec.Index
	err := t.document(ocispec.ImageIndexFile, &index)
	if errors.Is(err, errNoLayout) {
		return // some other archive
	}
	f.Format = "oci.tar"
	if err == nil && len(index.Manifests) == 0 {
		err = errNoLayout
	}
	if err != nil {
		f.note(ocispec.ImageIndexFile, err)
		return
	}
	if n := len(index.Manifests); n > 1 {
		f.note("index.json", fmt.Errorf("%d images, of which the first is shown", n))
	}
	f.readManifest(t, index.Manifests[0].Digest)
}

func (f *Facts) readManifest(t *ociTar, sum digest.Digest) {
	var m ocispec.Manifest
	if err := t.document(blobName(sum), &m); err != nil {
		f.note("manifest", err)
		return
	}
	f.takeManifest(&m)
	var config ocispec.Image
	if err := t.document(blobName(m.Config.Digest), &config); err != nil {
		f.note("configuration", err)
		return
	}
	f.takeConfig(&config)
}

// Container returns the facts of a container image that is shown as a SIF, of which only
// these two documents are at hand.
func Container(manifest, config []byte) *Facts {
	f := &Facts{Format: "sif"}
	err := guard(func() error { f.readDocuments(manifest, config); return nil })
	if err != nil {
		f.note("the image", err)
	}
	return f
}

func (f *Facts) readDocuments(manifest, config []byte) {
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		f.note("manifest", err)
		return
	}
	f.takeManifest(&m)
	var c ocispec.Image
	if err := json.Unmarshal(config, &c); err != nil {
		f.note("configuration", err)
		return
	}
	f.takeConfig(&c)
}

func (f *Facts) takeManifest(m *ocispec.Manifest) {
	for _, layer := range m.Layers {
		f.Layers = append(f.Layers, Layer{Digest: text([]byte(layer.Digest)), MediaType: text([]byte(layer.MediaType)), Size: layer.Size})
	}
	f.ID = text([]byte(m.Config.Digest))
	base := Base{Name: text([]byte(m.Annotations[ocispec.AnnotationBaseImageName])), Digest: text([]byte(m.Annotations[ocispec.AnnotationBaseImageDigest]))}
	if base != (Base{}) {
		f.Base = &base
	}
}

// takeConfig takes what the configuration tells; all of it came out of one
// document of limited size.
func (f *Facts) takeConfig(c *ocispec.Image) {
	f.Arch = text([]byte(strings.TrimSuffix(c.Architecture+"/"+c.Variant, "/")))
	if c.Created != nil {
		f.Created = stamp(c.Created.Round(time.Second))
	}
	f.Labels = map[string]string{}
	for name, value := range c.Config.Labels {
		f.Labels[text([]byte(name))] = text([]byte(value))
	}
	f.Config = &Config{
		Entrypoint: texts(c.Config.Entrypoint), Cmd: texts(c.Config.Cmd), Env: texts(c.Config.Env),
		WorkingDir: text([]byte(c.Config.WorkingDir)), User: text([]byte(c.Config.User)),
		Ports:      texts(slices.Sorted(maps.Keys(c.Config.ExposedPorts))),
		Volumes:    texts(slices.Sorted(maps.Keys(c.Config.Volumes))),
		StopSignal: text([]byte(c.Config.StopSignal)),
	}
	// Not each step of a build makes a layer.
	next := 0
	for _, step := range c.History {
		s := Step{CreatedBy: text([]byte(step.CreatedBy)), Comment: text([]byte(step.Comment)), Empty: step.EmptyLayer}
		if step.Created != nil {
			s.Created = stamp(step.Created.Round(time.Second))
		}
		f.History = append(f.History, s)
		if step.EmptyLayer || next == len(f.Layers) {
			continue
		}
		f.Layers[next].CreatedBy = text([]byte(step.CreatedBy))
		next++
	}
}

func texts(all []string) []string {
	var out []string
	for _, s := range all {
		out = append(out, text([]byte(s)))
	}
	return out
}

// blobName is where a layout keeps a blob; its digest may be anything.
func blobName(sum digest.Digest) string {
	if sum.Validate() != nil {
		return ""
	}
	return ocispec.ImageBlobsDir + "/" + sum.Algorithm().String() + "/" + sum.Encoded()
}

// document reads a JSON file of the layout into v.
func (t *ociTar) document(name string, v any) error {
	at, err := t.find(name)
	if err != nil {
		return err
	}
	if at.N > maxDocument {
		return errTooMuch
	}
	data, err := t.p.bytes(at.Off, at.N)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// find returns where the content of a file is.
func (t *ociTar) find(name string) (Range, error) {
	for {
		if at, ok := t.found[name]; ok {
			return at, nil
		}
		if t.seen++; t.seen > maxMembers {
			return Range{}, errNoLayout
		}
		h, err := t.files.Next()
		if errors.Is(err, io.EOF) {
			return Range{}, errNoLayout
		}
		if err != nil {
			return Range{}, err
		}
		// The reader takes blocks, and no more of them than it needs.
		off, err := t.at.Seek(0, io.SeekCurrent)
		if err != nil {
			return Range{}, err
		}
		if h.Typeflag == tar.TypeReg {
			t.found[strings.TrimPrefix(h.Name, "./")] = Range{off, h.Size}
		}
	}
}
