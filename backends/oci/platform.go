// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/cpu"

	"github.com/sregfs/sregfs/backends"
)

// choose returns the digest of the manifest for arch, which may have a variant
// ("arm/v7"). Without one it is the entry that the machine can run: that for no
// variant, else the highest that the machine has, so that a tag means the same image on
// all machines where it can. A manifest for no stated platform serves if it is the
// only one.
//
// Errors: backends.ErrNoVariant, with what there is.
func choose(manifests []ocispec.Descriptor, arch string) (string, error) {
	arch, variant, _ := strings.Cut(arch, "/")
	manifests = slices.DeleteFunc(slices.Clone(manifests), isAttestation)
	best, bestRank := "", 0
	var has []string
	for _, d := range manifests {
		if d.Platform == nil {
			continue
		}
		p := *d.Platform
		p.Architecture, p.Variant = normal(p.Architecture, p.Variant)
		if p.OS != "" && p.OS != "linux" {
			continue
		}
		if rank := fit(p, arch, variant); rank > bestRank {
			best, bestRank = d.Digest.String(), rank
		}
		if name := strings.TrimSuffix(p.Architecture+"/"+p.Variant, "/"); !slices.Contains(has, name) {
			has = append(has, name)
		}
	}
	switch {
	case best != "":
		return best, nil
	case len(manifests) == 1 && manifests[0].Platform == nil:
		return manifests[0].Digest.String(), nil
	}
	wanted := arch
	if level := levelOf(arch); variant != "" {
		wanted += "/" + variant
	} else if level < maxLevel {
		wanted += fmt.Sprintf("/v%d or lower", level)
	}
	return "", backends.Saying(backends.ErrNoVariant, "no image for %s (there is %q)", wanted, has)
}

// isAttestation reports whether what stands in an index is not an image but tells of
// one (docs.docker.com/build/metadata/attestations/attestation-storage).
func isAttestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] == "attestation-manifest"
}

// maxLevel is above all variants: that of machines of which nothing is known.
const maxLevel = 100

// fit says how well an entry serves: 0 not at all.
func fit(p ocispec.Platform, arch, variant string) int {
	var level int
	switch {
	case p.Architecture != arch:
		return 0
	case variant != "" && p.Variant != variant:
		return 0
	case variant != "" || p.Variant == "":
		return maxLevel + 1
	}
	if _, err := fmt.Sscanf(p.Variant, "v%d", &level); err != nil || level < 1 || level > levelOf(arch) {
		return 0
	}
	return level
}

// normal returns the names of an architecture and its variant as Go and the OCI have
// them, for other ones that are in use (as containerd's platforms.Normalize).
func normal(arch, variant string) (string, string) {
	switch arch {
	case "x86_64", "x86-64":
		arch = "amd64"
	case "aarch64":
		arch = "arm64"
	}
	if arch == "amd64" && variant == "v1" || arch == "arm64" && (variant == "v8" || variant == "8") {
		variant = "" // every machine of the kind
	}
	return arch, variant
}

// levelOf returns up to which variant this machine can run images for arch.
func levelOf(arch string) int {
	if arch == "amd64" && runtime.GOARCH == "amd64" {
		return amd64Level()
	}
	return maxLevel
}

// amd64Level returns the level of this processor by the x86-64 psABI.
func amd64Level() int {
	x := cpu.X86
	for level, has := range []bool{
		x.HasCX16 && x.HasPOPCNT && x.HasSSE3 && x.HasSSSE3 && x.HasSSE41 && x.HasSSE42,
		x.HasAVX && x.HasAVX2 && x.HasBMI1 && x.HasBMI2 && x.HasFMA && x.HasOSXSAVE,
		x.HasAVX512F && x.HasAVX512BW && x.HasAVX512CD && x.HasAVX512DQ && x.HasAVX512VL,
	} {
		if !has {
			return level + 1
		}
	}
	return 4
}
