// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	entries := func(platforms string) []ocispec.Descriptor {
		var all []ocispec.Descriptor
		for _, text := range strings.Fields(platforms) {
			d := ocispec.Descriptor{Digest: digest.Digest(text)}
			if text != "none" {
				parts := append(strings.Split(text, "/"), "", "")
				d.Platform = &ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
			}
			all = append(all, d)
		}
		return all
	}
	for _, tt := range []struct{ platforms, arch, want string }{
		{"linux/amd64/v3 linux/amd64/v2 linux/amd64", "amd64", "linux/amd64"},
		{"linux/amd64/v2 linux/amd64/v1", "amd64", "linux/amd64/v1"},
		{"linux/amd64 linux/amd64/v3", "amd64/v3", "linux/amd64/v3"},
		{"linux/amd64 linux/amd64/v9", "amd64", "linux/amd64"},
		{"linux/amd64/v9", "amd64", ""},
		{"linux/amd64/v9", "amd64/v9", "linux/amd64/v9"},
		{"linux/x86_64", "amd64", "linux/x86_64"},
		{"linux/arm/v6 linux/arm/v7 linux/arm64/v8", "arm", "linux/arm/v7"},
		{"linux/arm/v6 linux/arm/v7 linux/arm64/v8", "arm64", "linux/arm64/v8"},
		{"linux/arm/v6 linux/arm/v7", "arm/v6", "linux/arm/v6"},
		{"windows/amd64 linux/amd64", "amd64", "linux/amd64"},
		{"windows/amd64", "amd64", ""},
		{"/amd64", "amd64", "/amd64"},
		{"none", "amd64", "none"},
		{"none none", "amd64", ""},
		{"linux/ppc64le linux/s390x", "riscv64", ""},
	} {
		if strings.Contains(tt.platforms, "/v9") && runtime.GOARCH != "amd64" {
			continue // nothing is known of another machine's processor
		}
		got, err := choose(entries(tt.platforms), tt.arch)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("choose(%q, %s) = %q, %v, want %q", tt.platforms, tt.arch, got, err, tt.want)
		}
	}
	_, err := choose(entries("linux/ppc64le linux/amd64/v3"), "riscv64")
	if err == nil || !strings.Contains(err.Error(), "ppc64le") || !strings.Contains(err.Error(), "amd64/v3") {
		t.Errorf("the error does not list what there is: %v", err)
	}
}

// The kernel's words for what the levels need (proc(5), arch/x86 cpufeatures).
func TestAMD64Level(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || runtime.GOARCH != "amd64" {
		t.Skip("no /proc/cpuinfo of this kind")
	}
	_, flags, _ := strings.Cut(string(text), "flags")
	flags, _, _ = strings.Cut(flags, "\n")
	want := 1
	for _, needs := range []string{"cx16 popcnt pni sse4_1 sse4_2 ssse3", "avx avx2 bmi1 bmi2 fma", "avx512f avx512bw avx512cd avx512dq avx512vl"} {
		for flag := range strings.FieldsSeq(needs) {
			if !strings.Contains(flags+" ", " "+flag+" ") {
				needs = ""
			}
		}
		if needs == "" {
			break
		}
		want++
	}
	if got := amd64Level(); got != want {
		t.Errorf("amd64Level() = %d, the kernel's flags say %d", got, want)
	}
}
