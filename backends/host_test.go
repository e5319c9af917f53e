// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func TestCheckHost(t *testing.T) {
	t.Parallel()
	for _, host := range strings.Fields(`
		quay.io ghcr.io docker.io nvcr.io gcr.io us-docker.pkg.dev public.ecr.aws registry.k8s.io mcr.microsoft.com lscr.io
		123456789012.dkr.ecr.eu-central-1.amazonaws.com registry.example.com:5000 r.j3ss.co xn--80ak6aa92e.com a.xn--p1ai
		reg.company.co.uk ttl.sh 3com.com`) {
		if err := CheckHost(host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	long := strings.Repeat("a", 63)
	for _, host := range append(strings.Fields(`
		quay io localhost localhost:5000 registry:5000 registry.local registry.internal registry.lan registry.corp a.test a.example a.invalid
		a.localhost x.onion 1.0.0.10.in-addr.arpa home.arpa 127.0.0.1 10.0.0.1:5000 1.2.3 0x7f.1 127.1 2130706433 ::1 [::1] [::1]:5000 fe80::1
		quay.io. .quay.io quay..io -a.io a-.io a_b.io Quay.io QUAY.IO quay.io: quay.io:0 quay.io:05 quay.io:65536 quay.io:443 quay.io:x quay.io:-1
		quay.io:5000:1 quay.io%2f a@quay.io quay.io/x quay.io+x münchen.de a.i0`),
		"", ".", "..", "quay.io\x00", "quay.io\n", " quay.io", long+"a.io", strings.Repeat(long+".", 4)+"io", "quay.io:"+strings.Repeat("0", 100)+"1") {
		if err := CheckHost(host); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v, want that it is none", host, err)
		}
	}
}

// What shells, desktops, compilers and version control look for in every directory is no
// host, nor is any other usual name of a file.
func TestCheckHost_noise(t *testing.T) {
	t.Parallel()
	for _, name := range strings.Fields(`
		.git .hg .svn .bzr .jj .Trash .Trash-1000 .hidden .directory .DS_Store ._. .localized .fseventsd .Spotlight-V100 .xdg-volume-info
		.autorun .nomedia .metadata_never_index .ssh .env .envrc .editorconfig .gitignore .gitattributes .gitmodules .npmrc .python-version
		.venv .tool-versions .hgignore .ignore .rgignore .fdignore .ackrc .htaccess .projectile .dir-locals.el .vimrc .exrc .nexus
		.singularity.d .singularity.com .apptainer.io .wh..wh..opq .fuse_hidden0000 .nfs00000001 .~lock.x.odt# .goutputstream-AB12CD
		autorun.inf desktop.ini Desktop.ini folder.jpg Folder.jpg thumbs.db Thumbs.db ehthumbs.db System.ini AlbumArt.jpg cover.png
		BUILD.bazel WORKSPACE.bazel MODULE.bazel REPO.bazel go.mod go.work go.sum Makefile.am Makefile.in makefile.am configure.ac configure.in
		config.in package.json package-lock.json tsconfig.json deno.json Cargo.toml Cargo.lock pyproject.toml setup.py setup.cfg tox.ini
		conftest.py manage.py build.rs main.rs main.nf nextflow.config main.tf terraform.tfvars meson.build build.sh run.sh install.sh build.zig
		build.gradle gradle.properties pom.xml build.xml CMakeLists.txt Gemfile.lock mix.exs composer.json default.do all.do Snakefile.smk
		README.md readme.md README.txt LICENSE.txt index.html index.php robots.txt favicon.ico id_rsa.pub authorized.pub user.properties
		foo.sif foo.simg foo.img foo.img.gz foo.oci.tar foo.sqsh image.tar image.tar.gz a.zip a.7z libfoo.so libc.so.6 foo.la foo.pl foo.pm foo.py
		foo.c foo.h foo.o foo.cc foo.ml foo.mk a.ps a.mov a.map core.1234 nohup.out a.bak a.swp a.tmp a.part a.lock lost+found :memory: a:b
		foo~ #foo# 4913 ld.so.cache foo.d.ts foo.service default.target docker-compose.yml docker-compose.override.yml Dockerfile.dev_x
		__init__.py __pycache__ node_modules foo_bar.com samtools:1.20--h50ea8bc_1 alpine:3.20.sif`) {
		if CheckHost(name) == nil && !IsFileLike(name) {
			t.Errorf("%s is taken for a host", name)
		}
	}
	for _, host := range strings.Fields(`quay.io ghcr.io docker.io nvcr.io gcr.io lscr.io dhi.io cgr.dev registry.myco.sh docker.example.rs r.j3ss.co cr.ai`) {
		if IsFileLike(host) {
			t.Errorf("%s is taken for a file", host)
		}
	}
}
