// SPDX-License-Identifier: Apache-2.0

package librarytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// A scan is what a tag in the registry was found to be.
type scan struct {
	link      string // the digest that the tag leads to
	images    map[string]*image
	manifests []any // of the index, where a test has put them there
}

// addToRegistry puts an image into the registry as "singularity push" does.
func (s *Server) addToRegistry(img Image) {
	s.tb.Helper()
	reg, repo := s.opts.Registry, s.repo(img.Entity+"/"+img.Collection+"/"+img.Container)
	layer := reg.PutBlob(repo, img.Content)
	config, err := json.Marshal(dict{
		"architecture": img.Arch, "os": "linux", "rootfs": layer, "description": img.Description,
		"signed": len(img.Signers) > 0, "encrypted": img.Encrypted,
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	manifest, err := json.Marshal(dict{
		"schemaVersion": 2,
		"config":        dict{"mediaType": ocitest.SIFConfig, "digest": reg.PutBlob(repo, config), "size": len(config)},
		"layers":        []any{dict{"mediaType": ocitest.SIFLayer, "digest": layer, "size": len(img.Content)}},
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	digest := reg.PutManifest(repo, strings.Replace(layer, ":", ".", 1), ocitest.OCIManifest, manifest)
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.container(img.Entity, img.Collection, img.Container)
	m := k.under(hashOf(img.Content), "")
	if m == nil {
		m = &image{
			id: s.id(), hash: hashOf(img.Content), in: k, arch: img.Arch, description: img.Description, signers: img.Signers,
			encrypted: img.Encrypted, created: img.Created, size: int64(len(img.Content)), uploaded: true,
		}
		k.images = append(k.images, m)
	}
	key := k.in.in.name + "/" + k.in.name + "/" + k.name + ":" + img.Tag
	at := s.scans[key]
	if at == nil {
		at = &scan{images: map[string]*image{}}
		s.scans[key] = at
	}
	at.manifests = append(at.manifests, dict{
		"mediaType": ocitest.OCIManifest, "digest": digest, "size": len(manifest), "platform": dict{"architecture": img.Arch, "os": "linux"},
	})
	at.images[img.Arch] = m
	at.link = reg.PutManifest(repo, img.Tag, ocitest.OCIIndex, dict{
		"schemaVersion": 2, "mediaType": ocitest.OCIIndex, "manifests": at.manifests,
	})
	k.tag(img.Arch, img.Tag, m)
}

func (s *Server) repo(path string) string { return strings.Trim(s.opts.Prefix+"/"+path, "/") }

func (s *Server) repositories() string {
	return filepath.Join(s.opts.Registry.Storage(), "docker", "registry", "v2", "repositories", filepath.FromSlash(s.opts.Prefix))
}

// scanRegistry looks at what is in the registry now. Called with s.mu held.
func (s *Server) scanRegistry() {
	root := s.repositories()
	tags, err := filepath.Glob(filepath.Join(root, "*", "*", "*", "_manifests", "tags", "*"))
	if err != nil {
		s.tb.Error(err)
	}
	found := map[string]bool{}
	for _, dir := range tags {
		rel, _ := filepath.Rel(root, dir)
		parts := strings.Split(filepath.ToSlash(rel), "/")
		path, tag := strings.Join(parts[:3], "/"), parts[5]
		link, err := os.ReadFile(filepath.Join(dir, "current", "link"))
		if err != nil || len(link) == 0 || strings.HasPrefix(tag, "sha256.") {
			continue // just being written; or the name of a digest
		}
		key := path + ":" + tag
		found[key] = true
		if old := s.scans[key]; old != nil && old.link == string(link) {
			continue
		}
		k := s.container(parts[0], parts[1], parts[2])
		s.forgetTag(k, tag)
		images := s.lookAt(k, path, tag)
		for arch, m := range images {
			k.tag(arch, tag, m)
		}
		s.scans[key] = &scan{link: string(link), images: images}
	}
	for key := range s.scans {
		if !found[key] {
			path, tag, _ := strings.Cut(key, ":")
			s.forgetTag(s.findContainer(path), tag)
			delete(s.scans, key)
		}
	}
}

func (s *Server) forgetTag(k *container, tag string) {
	for _, byTag := range k.tags {
		delete(byTag, tag)
	}
}

// lookAt reads the images of an index, with the checks of the library's own client
// (client/oci.go: getImageDetails): a configuration with an architecture, one layer.
func (s *Server) lookAt(k *container, path, tag string) map[string]*image {
	images := map[string]*image{}
	var index struct {
		Manifests []struct {
			Digest   string
			Platform struct{ Architecture string }
		}
	}
	text, _ := s.opts.Registry.Manifest(s.repo(path), tag)
	if isContainer(text) {
		return nil
	}
	if err := json.Unmarshal(text, &index); err != nil || len(index.Manifests) == 0 {
		s.tb.Errorf("%s:%s is no index: %s", path, tag, text)
	}
	for _, d := range index.Manifests {
		m, err := s.imageOfManifest(path, d.Digest)
		if err != nil || m.arch != d.Platform.Architecture {
			s.tb.Errorf("%s:%s is no image for a library: %v, %+v", path, tag, err, m)
			continue
		}
		if known := k.under(m.hash, ""); known != nil {
			images[m.arch] = known
			continue
		}
		m.id, m.in, m.created, m.uploaded = s.id(), k, time.Time{}, true
		k.images = append(k.images, m)
		images[m.arch] = m
	}
	return images
}

// isContainer reports whether a manifest is that of a container image, of which a library
// knows nothing.
func isContainer(manifest []byte) bool {
	var m struct{ Config struct{ MediaType string } }
	err := json.Unmarshal(manifest, &m)
	return err == nil && (m.Config.MediaType == ocitest.OCIConfig || m.Config.MediaType == ocitest.DockerConfig)
}

func (s *Server) imageOfManifest(path, digest string) (*image, error) {
	var manifest struct {
		Config struct{ MediaType, Digest string }
		Layers []struct {
			MediaType, Digest string
			Size              int64
		}
	}
	text, _ := s.opts.Registry.Manifest(s.repo(path), digest)
	if err := json.Unmarshal(text, &manifest); err != nil {
		return nil, err
	}
	if manifest.Config.MediaType != ocitest.SIFConfig || len(manifest.Layers) != 1 || manifest.Layers[0].MediaType != ocitest.SIFLayer {
		return nil, fmt.Errorf("manifest %s", text)
	}
	hex := strings.TrimPrefix(manifest.Config.Digest, "sha256:")
	blob, err := os.ReadFile(filepath.Join(s.opts.Registry.Storage(), "docker", "registry", "v2", "blobs", "sha256", hex[:2], hex, "data"))
	if err != nil {
		return nil, err
	}
	var config struct {
		Architecture, OS, RootFS, Description string
		Signed, Encrypted                     bool
	}
	if err := json.Unmarshal(blob, &config); err != nil {
		return nil, err
	}
	layer := manifest.Layers[0]
	if config.Architecture == "" || config.RootFS != layer.Digest {
		return nil, fmt.Errorf("configuration %s of %s", blob, layer.Digest)
	}
	m := &image{
		hash: strings.Replace(layer.Digest, ":", ".", 1), arch: config.Architecture, size: layer.Size,
		description: config.Description, encrypted: config.Encrypted,
	}
	if config.Signed {
		m.signers = []string{"0123456789ABCDEF0123456789ABCDEF01234567"}
	}
	return m, nil
}

// untagRegistry takes a tag away in the registry.
func (s *Server) untagRegistry(m *image, tag string) {
	if s.opts.Registry == nil {
		return
	}
	path := filepath.Join(m.in.in.in.name, m.in.in.name, m.in.name)
	if err := os.RemoveAll(filepath.Join(s.repositories(), path, "_manifests", "tags", tag)); err != nil {
		s.tb.Error(err)
	}
	delete(s.scans, filepath.ToSlash(path)+":"+tag)
}

// redirect answers oci-redirect (client/oci.go: ociRegistryAuth).
func (s *Server) redirect(w http.ResponseWriter, r *http.Request, who session) {
	if s.opts.Registry == nil {
		notFound(w)
		return
	}
	access, namespace := r.FormValue("accessTypes"), r.FormValue("namespace")
	if access != "pull" && !who.known {
		fail(w, http.StatusUnauthorized, "Not authorized - please authenticate")
		return
	}
	token := ""
	if s.opts.Tokens {
		token = s.opts.Registry.Token(s.tb, s.repo(namespace), access)
		if s.spoil > 0 {
			s.spoil--
			token = "expired"
		}
	}
	reply(w, http.StatusOK, dict{"token": token, "url": s.opts.Registry.URL, "name": s.repo(namespace)})
}
