# Two commands do all the set-up: `make run` and `make test`. `make help` lists the rest.

SHELL        := /bin/bash
.SHELLFLAGS  := -euo pipefail -c
.DEFAULT_GOAL := build

BUILD   := $(CURDIR)/.build
# The version's number is in cmd/internal/version; a commit with the tag of that number is the release.
TAG     ?= $(shell git describe --tags --exact-match 2>/dev/null)
COMMIT  ?= $(shell git describe --always --dirty=.dirty --exclude='*' --abbrev=12 2>/dev/null)
# One static binary each: no cgo, no paths of the build machine in it.
VERSION_PKG   := github.com/sregfs/sregfs/cmd/internal/version
export LDFLAGS := -s -w -X $(VERSION_PKG).tag=$(TAG) -X $(VERSION_PKG).commit=$(COMMIT)
GOFLAGS_BUILD := -trimpath -buildvcs=false -ldflags "$(LDFLAGS)"

# What is built depends on the commit alone, not on when and where.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH

PREFIX  ?= /usr/local
DESTDIR ?=

GOLANGCI_VERSION := v2.15.0
GOLANGCI := $(BUILD)/tools/golangci-lint-$(GOLANGCI_VERSION)
# An S3 server for tests, which is no Debian package.
VERSITYGW_VERSION := v1.8.0
VERSITYGW := $(BUILD)/tools/versitygw-$(VERSITYGW_VERSION)/versitygw
# The same for Google Storage.
FAKE_GCS_VERSION := v1.56.1
FAKE_GCS := $(BUILD)/tools/fake-gcs-server-$(FAKE_GCS_VERSION)/fake-gcs-server
# What makes packages, and lists of the modules in a program.
NFPM_VERSION      := v2.48.0
CYCLONEDX_VERSION := v1.10.0
export NFPM       := $(BUILD)/tools/nfpm-$(NFPM_VERSION)
export CYCLONEDX  := $(BUILD)/tools/cyclonedx-gomod-$(CYCLONEDX_VERSION)
DIST_ARCHES ?= amd64 arm64

# Debian packages by the command, or the file, that shows they are there.
RUN_DEPS  := fusermount3=fuse3
TEST_DEPS := $(RUN_DEPS) docker-registry=docker-registry squashfuse=squashfuse mksquashfs=squashfs-tools getfattr=attr rsync=rsync \
             htpasswd=apache2-utils skopeo=skopeo umoci=umoci pigz=pigz busybox=busybox-static shellcheck=shellcheck gcc=gcc /usr/include/stdlib.h=libc6-dev \
             /usr/sbin/automount=autofs /usr/sbin/nginx=nginx-light /usr/sbin/apache2=apache2-bin docker-credential-ecr-login=amazon-ecr-credential-helper \
             python3=python3 /usr/lib/python3/dist-packages/dropbox=python3-dropbox setpriv=util-linux \
             /usr/lib/python3/dist-packages/boto3=python3-boto3 rclone=rclone \
             man=man-db mandoc=mandoc zsh=zsh fish=fish /usr/share/bash-completion/bash_completion=bash-completion systemd-analyze=systemd \
             curl=curl swift-proxy-server=swift-proxy swift-account-server=swift-account swift-container-server=swift-container swift-object-server=swift-object \
             memcached=memcached /usr/bin/swift=python3-swiftclient /usr/lib/python3/dist-packages/keystoneclient=python3-keystoneclient \
             /usr/lib/python3/dist-packages/gitlab=python3-gitlab rclone=rclone vi=vim-tiny /usr/sbin/mke2fs=e2fsprogs /usr/sbin/losetup=mount
DIST_DEPS  := fusermount3=fuse3 /usr/sbin/debootstrap=debootstrap rpm=rpm unshare=util-linux zsh=zsh
BENCH_DEPS := $(TEST_DEPS) openssl=openssl

FUZZTIME ?= 10s

.PHONY: build
build: ## build .build/bin/sregfs and .build/bin/sreg, and what is installed with them
	@mkdir -p $(BUILD)/bin
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o $(BUILD)/bin/ ./cmd/sregfs ./cmd/sreg
	@rm -rf $(BUILD)/manual
	@CGO_ENABLED=0 go run $(GOFLAGS_BUILD) ./cmd/internal/manual/_main --date $(SOURCE_DATE_EPOCH) $(BUILD)/manual

# It only builds what is missing, so that "make" can be yours and "make install" root's.
.PHONY: install
install: ## install below PREFIX (/usr/local), in a package below DESTDIR
	@test -x $(BUILD)/bin/sreg -a -d $(BUILD)/manual || $(MAKE) build
	@.ci/install $(BUILD) "$(PREFIX)" "$(DESTDIR)"

.PHONY: uninstall
uninstall: ## remove what "make install" with the same PREFIX and DESTDIR installed
	@.ci/install --remove $(BUILD) "$(PREFIX)" "$(DESTDIR)"

.PHONY: dist
dist: build $(NFPM) $(CYCLONEDX) ## archives, packages, checksums and lists of modules, in .build/dist
	@.ci/dist $(BUILD) "$$($(BUILD)/bin/sreg version -o json | sed -n 's/^ *"version": "\(.*\)",*$$/\1/p')" $(DIST_ARCHES)

.PHONY: dist-check
dist-check: $(NFPM) $(CYCLONEDX) ## make dist twice, compare, and install, use and remove the package on a new Debian
	@.ci/deps $(DIST_DEPS)
	@.ci/dist-check $(BUILD) $(DIST_ARCHES)

.PHONY: docs
docs: ## write docs/commands.md
	go test -count=1 -run '^TestCommandsPage$$' ./cmd/internal/manual -update

.PHONY: run
run: build ## build, mount a demo tree at ./mnt, and say what to type
	@.ci/deps $(RUN_DEPS)
	@.ci/demo $(BUILD)

.PHONY: test
test: deps lint unit fuzz ## everything CI runs
	@echo "all checks passed"

.PHONY: unit
unit: $(VERSITYGW) $(FAKE_GCS) ## all tests, with the race detector; nothing may be skipped
	PATH=$(dir $(VERSITYGW)):$(dir $(FAKE_GCS)):$$PATH SREGFS_NOSKIP=1 go test -race -timeout 40m ./...

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (10s)
	@.ci/fuzz $(FUZZTIME)

.PHONY: kills
kills: deps ## kill the daemon 100 times while it reads cold (`make test`: 10 times)
	SREGFS_NOSKIP=1 SREGFS_KILLS=100 go test -count=1 -v -run '^TestKills$$' ./cmd/internal/e2e

.PHONY: model
model: deps ## random sequences against the reference model for an hour (`make test`: 40 s)
	SREGFS_NOSKIP=1 SREGFS_MODEL=$${SREGFS_MODEL:-1h} go test -count=1 -v -timeout 0 -run '^TestModel$$' ./cmd/internal/model

.PHONY: bench
bench: build $(VERSITYGW) ## warm, cold, directories, memory against native, rclone and curl; writes docs/benchmarks.md
	@.ci/deps $(BENCH_DEPS)
	@PATH=$(dir $(VERSITYGW)):$$PATH .ci/bench $(BUILD)

.PHONY: lint
lint: $(GOLANGCI) ## format, vet, linters, tidy, and that other systems build
	@test -z "$$(gofmt -l cmd fsys backends catalog cache)" || { gofmt -l cmd fsys backends catalog cache; echo "run: make fmt"; exit 1; }
	go vet ./...
	GOOS=darwin go vet ./...
	GOOS=windows go vet ./backends/... ./cache/... ./catalog/... ./fsys
	go mod tidy -diff
	$(GOLANGCI) run ./...
	shellcheck .ci/*

.PHONY: fmt
fmt: ## format all Go code
	gofmt -w cmd fsys backends catalog cache

.PHONY: deps
deps: ## install the Debian packages that the tests need
	@.ci/deps $(TEST_DEPS)

.PHONY: clean
clean: ## unmount ./mnt and remove everything that was built
	@if mountpoint -q mnt 2>/dev/null; then fusermount3 -u mnt; fi
	@if [ -d mnt ]; then rmdir mnt; fi
	rm -rf $(BUILD)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(GOLANGCI):
	@mkdir -p $(BUILD)/tools
	GOBIN=$(BUILD)/tools go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(BUILD)/tools/golangci-lint $@

$(NFPM):
	@mkdir -p $(@D)
	GOBIN=$(@D) go install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)
	mv $(@D)/nfpm $@

$(CYCLONEDX):
	@mkdir -p $(@D)
	@# The lists name the digest of the tool, which is the same wherever it was built.
	CGO_ENABLED=0 GOBIN=$(@D) go install -trimpath github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX_VERSION)
	mv $(@D)/cyclonedx-gomod $@

$(VERSITYGW):
	@mkdir -p $(@D)
	GOBIN=$(@D) go install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW_VERSION)

$(FAKE_GCS):
	@mkdir -p $(@D)
	CGO_ENABLED=0 GOBIN=$(@D) go install github.com/fsouza/fake-gcs-server@$(FAKE_GCS_VERSION)
