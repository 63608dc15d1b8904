# `make help` lists the targets. Each installs the Debian or Ubuntu packages that it needs and that are missing
# (as root, or with sudo), and says which; Rust comes from rustup.

CARGO ?= cargo
ONCE ?=
MAILGRESS ?=
MDBOOK = 0.5.4

PROFILE ?= release

IMAGE ?= docker.io/mailgress/mailgress
TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
ARCH ?= $(shell uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')

.PHONY: help quickstart test e2e image bench scale docs lint

help: ## Say what the targets do
	@echo "make TARGET, where TARGET is:"
	@sed -n 's/^\([a-z0-9]*\):.*## /  \1	/p' Makefile

quickstart: ## Mailgress before a real Dovecot and Postfix on loopback, until Ctrl-C (ONCE=1: end after the check; MAILGRESS=FILE: use this binary and build none); installs Dovecot, Postfix, curl, a C toolchain
	@tests/install-packages.sh build quickstart
	$(if $(MAILGRESS),,$(CARGO) build --bin mailgress)
	@ONCE='$(ONCE)' MAILGRESS='$(MAILGRESS)' examples/quickstart/run.sh

test: ## All tests, with real servers, clients and a Kubernetes API server; installs what quickstart does, swaks, Python, nginx, Chromium, and Go where apt has 1.21 or newer
	@tests/install-packages.sh build test cluster e2e page
	$(CARGO) test

e2e: ## Mailgress in pods, before mail servers in pods: on the cluster in KUBECONFIG (kind, say), or on a node of its own; installs containerd and what a node needs, Dovecot, Postfix, curl, and Go as test does
	@tests/install-packages.sh build test cluster e2e
	MAILGRESS_E2E_KUBECONFIG='$(or $(MAILGRESS_E2E_KUBECONFIG),$(KUBECONFIG))' $(CARGO) test --test e2e -- --nocapture

image: ## target/mailgress-TAG-ARCH.tar, the image as an OCI archive, without Docker (IMAGE=, TAG=, ARCH=amd64 or arm64, PROFILE=dev: built fast); installs a C toolchain
	@tests/install-packages.sh build
	@export SOURCE_DATE_EPOCH="$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 0)}" && \
	revision=$$(git rev-parse HEAD 2>/dev/null || echo unknown) && \
	MAILGRESS_COMMIT=$$revision CARGO='$(CARGO)' PROFILE='$(PROFILE)' deploy/image/rootfs.sh target/image/rootfs-$(ARCH) $(ARCH) && \
	deploy/image/archive.sh target/image/rootfs-$(ARCH) Dockerfile $(IMAGE):$(TAG) $(ARCH) \
		target/mailgress-$(TAG)-$(ARCH).tar VERSION=$(TAG) REVISION=$$revision

bench: ## Compare CPU and memory with nginx's mail proxy, on loopback; installs nginx and its mail module
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

lint: ## Format, clippy and documentation, with warnings as errors; installs a C toolchain
	@tests/install-packages.sh build
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps
