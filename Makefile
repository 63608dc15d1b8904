# `make help` lists the targets. Each installs the Debian or Ubuntu packages that it needs and that are missing
# (as root, or with sudo), and says which; Rust comes from rustup.

CARGO ?= cargo
ONCE ?=
MAILGRESS ?=
MDBOOK = 0.5.4

.PHONY: help quickstart test bench scale docs lint

help: ## Say what the targets do
	@echo "make TARGET, where TARGET is:"
	@sed -n 's/^\([a-z]*\):.*## /  \1	/p' Makefile

quickstart: ## Mailgress before a real Dovecot and Postfix on loopback, until Ctrl-C (ONCE=1: end after the check); installs Dovecot, Postfix, curl, a C toolchain
	@tests/install-packages.sh build quickstart
	$(CARGO) build --bin mailgress
	@ONCE='$(ONCE)' MAILGRESS='$(MAILGRESS)' examples/quickstart/run.sh

test: ## All tests, with real servers, clients and a Kubernetes API server; installs what quickstart does, swaks, Python, nginx, and Go where apt has 1.21 or newer
	@tests/install-packages.sh build test cluster
	$(CARGO) test

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
