# The front door. Every target installs what it needs first, on a fresh Debian 12 or newer with Rust.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/farbus
TOOLS := $(CACHE)/tools
PATH := $(TOOLS)/bin:$(PATH)

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## Install what is missing (Debian packages; the lab's private QEMU and guest; asks for root where needed)
	@.ci/setup

.PHONY: demo
demo: setup ## Show the main job end to end: two VMs, two remotes, keys in, sound out. KEEP=1 leaves it running
	@cargo build --release -p farbus-host -p farbus-remote
	@cargo run --quiet --release --example demo -- $(if $(KEEP),--keep)

.PHONY: test
test: setup ## Run every test, VM tests included
	@cargo build --workspace
	@# Real VMs on few cores: one test at a time keeps their time-outs honest. One selection of packages: deps build once.
	@# All of them, even after one has failed.
	@cargo test --workspace --no-fail-fast -- --test-threads=1

.PHONY: check
check: setup ## What a reviewer would run: format, clippy, dependencies, docs
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@# A remote without sound cards, which needs no headers of a sound system.
	@cargo clippy -p farbus-remote --no-default-features --all-targets -- -D warnings
	@.ci/tool cargo-deny 0.20.2
	@cargo deny --log-level error check bans licenses sources
	@RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --quiet

.PHONY: bench
bench: setup ## Run the benchmarks: ratios against a named baseline, measured in one run
	@cargo build --release -p farbus-host -p farbus-remote
	@cargo bench -p farbus

.PHONY: fuzz
fuzz: setup ## Fuzz guests, remotes, devices and VMMs from the committed corpus on: TIME=60 seconds for each target
	@.ci/tool cargo-fuzz 0.13.2
	@.ci/fuzz $(or $(TIME),60)
