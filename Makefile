# `make help` lists the targets.
SHELL   := /bin/bash
PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo
TARGET  := $(or $(CARGO_TARGET_DIR),target)
TOOLS   := rg-backup rg-restore rg-bucket rg-envgen rg-healthcheck
S3_SUITES := s3_kit s3_store s3_faults s3_messages s3_settings s3_tools bucket backup_bucket restore_bucket rebuild
# Rust by rustup is found also where the login shell's profile was not read.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help demo test check build bench install test-endurance test-s3 clean
help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 18
demo: ## back up, destroy, restore and prove 300 MB and 5000 files (RG_DEMO_MB, RG_DEMO_FILES, RG_DEMO_MAJOR)
	@bash tests/demo/demo.sh
test: deps check test-demo test-suite ## everything that CI runs
check: ## formatting and lints
	$(call at,formatting and lints)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
build: ## the release binaries
	$(CARGO) build --release $(addprefix --bin ,$(TOOLS))
bench: ## beside pg_dump, tar, gzip, zstd and pg_restore (RG_BENCH_MB, RG_BENCH_FILES, RG_BENCH_RUNS)
	@bash tests/bench/bench.sh
install: build ## the binaries and the systemd units into $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 755 $(addprefix $(TARGET)/release/,$(TOOLS)) $(DESTDIR)$(PREFIX)/bin
	for unit in $(notdir $(wildcard packaging/systemd/*)); do \
	  sed 's|@BINDIR@|$(PREFIX)/bin|' "packaging/systemd/$$unit" >"$(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit" || exit 1; done
test-endurance: deps ## the repeated experiments (kills, damage) eight times as often: hundreds of each
	RG_TEST_ROUNDS=8 $(CARGO) test --workspace
test-s3: ## buckets: every test on every S3 server, 5 GiB there and back in constant memory (RG_S3_MIB)
	@bash tests/install.sh s3
	RG_S3_SERVERS=all RG_S3_MIB=$${RG_S3_MIB:-5120} $(CARGO) test --package rg-tests $(addprefix --test ,$(S3_SUITES)) -- --nocapture
clean: ## what cargo built
	$(CARGO) clean

# The steps of `make test`, one after the other, each with the time at which it begins.
.NOTPARALLEL:
.PHONY: deps test-demo test-suite
at = @printf '== %s UTC: %s\n' "$$(date -u +%T)" '$(1)'
deps:
	$(call at,what is missing)
	@bash tests/install.sh
test-demo:
	$(call at,the demonstration at a small size with pgvector)
	@RG_DEMO_MB=2 RG_DEMO_FILES=200 RG_DEMO_PROFILE=dev RG_DEMO_MAJOR=18 bash tests/demo/demo.sh
test-suite:
	$(call at,cargo test)
	$(CARGO) test --workspace
