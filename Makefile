# The few commands that a person types. `make test` is what CI runs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := test
.NOTPARALLEL:
.PHONY: test check toolchain deps tools bench fuzz lint unit units try-units suite demo screens cross smoke boot-test deb deb-test image image-test image-twice bundle update-test

# What bitcoind and electrs are built with (daemon/testkit/src/tools/packages.rs names the same), tor for the tests of
# onion connections, an IRC server for those of IRC, iproute2 for the test that no name is asked of DNS, a browser for
# the test of the page that it is shown, and systemd to check its units.
PACKAGES := cmake ninja-build g++ pkg-config clang libclang-dev libboost-dev libevent-dev librocksdb-dev tor ngircd iproute2 chromium systemd

# What the programs for the box are built with (docs/cross.md), and what runs them here.
CROSS_PACKAGES := rustc-web cargo-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross
SMOKE_PACKAGES := $(CROSS_PACKAGES) qemu-user
BOOT_PACKAGES := $(CROSS_PACKAGES) qemu-system-arm kmod cpio xz-utils e2fsprogs

# What makes a clean Debian to install the package in, and what looks at the package.
DEB_PACKAGES := mmdebstrap debian-archive-keyring lintian binutils iproute2

# What makes, verifies and installs updates (docs/updates.md).
UPDATE_PACKAGES := rauc rauc-service dbus-daemon squashfs-tools e2fsprogs iproute2 curl openssl

# What the image for a card is made with (docs/image.md).
IMAGE_PACKAGES := mmdebstrap genimage debian-archive-keyring dosfstools mtools u-boot-tools cpio zstd bmap-tools kmod \
  e2fsprogs xz-utils systemd fakeroot qemu-user-static binfmt-support

# What boots it and looks at it.
IMAGE_TEST_PACKAGES := $(CROSS_PACKAGES) $(IMAGE_PACKAGES) rauc squashfs-tools qemu-system-arm openssh-client iproute2 mtools

# Fresh clone to green: everything is installed, built, checked and tested.
# The suite comes last: its last line has the sum.
test: PACKAGES := $(sort $(PACKAGES) $(SMOKE_PACKAGES) $(BOOT_PACKAGES) $(DEB_PACKAGES) $(UPDATE_PACKAGES))
test: toolchain deps tools lint units smoke boot-test deb-test update-test suite

# The fast half: format, clippy and docs with warnings as errors, unit tests. Needs no bitcoind.
check: lint unit

toolchain:
	@if ! command -v cargo >/dev/null; then \
	  echo "Joinery is built with Rust, and there is no cargo here: install the toolchain from https://rustup.rs" >&2; exit 1; fi

# Installs the Debian packages that are missing, as root or by sudo. A name may end with the architecture of the box.
deps:
	@if ! command -v dpkg-query >/dev/null; then \
	  echo "This is not a Debian system; please install what it calls these packages: $(PACKAGES)" >&2; exit 0; fi; \
	missing=(); \
	for package in $(PACKAGES); do \
	  status=$$(dpkg-query --show --showformat='$${db:Status-Status}' "$$package" 2>/dev/null || true); \
	  if [ "$$status" != installed ]; then missing+=("$$package"); fi; \
	done; \
	if [ $${#missing[@]} -eq 0 ]; then exit 0; fi; \
	as_root=(); \
	if [ "$$(id -u)" -ne 0 ]; then \
	  if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then as_root=(sudo); \
	  else echo "Please install these Debian packages as root and try again: apt-get install $${missing[*]}" >&2; exit 1; fi; \
	fi; \
	echo "installing $${missing[*]}"; \
	if [[ "$${missing[*]}" == *:arm64* ]]; then "$${as_root[@]}" dpkg --add-architecture arm64; fi; \
	"$${as_root[@]}" apt-get update -q; \
	"$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -q \
	  --no-install-recommends "$${missing[@]}"

# bitcoind and electrs for the bench, built once per user and kept in the cache directory.
tools: toolchain deps
	cargo run --locked --quiet -p joinery-testkit --bin regtest -- tools

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

unit:
	cargo test --locked --workspace --lib --bins

# The systemd units: no mistakes, and no more rights than they need.
units: deps
	systemd/check.sh
	image/test-settings.sh
	image/test-trial-failed.sh

# Daemon and board as their units say, under a systemd of their own; only root can do it. Not part of `make test`: the image
# boots with the same units.
try-units: deps
	cargo build --locked -p joineryd -p joinery-board
	built=$${CARGO_TARGET_DIR:-target}; systemd/try.sh "$$built/debug/joineryd" "$$built/debug/joinery-board"

# Every test; the last line has the sum of all runs.
suite:
	@mkdir -p target; log=target/test.log; : > $$log; failed=0; \
	if cargo nextest --version >/dev/null 2>&1; then \
	  cargo nextest run --locked --workspace --no-fail-fast 2>&1 | tee -a $$log || failed=1; \
	  cargo test --locked --workspace --doc --no-fail-fast 2>&1 | tee -a $$log || failed=1; \
	else \
	  cargo test --locked --workspace --no-fail-fast 2>&1 | tee -a $$log || failed=1; \
	fi; \
	sum=$$(sed 's/\x1b\[[0-9;]*m//g' $$log | awk ' \
	  /^test result:/ { passed += $$4; bad += $$6 } \
	  /^ *Summary \[/ { for (i = 2; i <= NF; i++) { if ($$i ~ /^passed/) passed += $$(i - 1); \
	                    if ($$i ~ /^(failed|timed|exec)/) bad += $$(i - 1) } } \
	  END { printf "%d passed, %d failed", passed, bad }'); \
	if [ $$failed -ne 0 ] && [[ "$$sum" == *" 0 failed" ]]; then sum="$$sum (and something did not build or run)"; fi; \
	echo "$$sum"; exit $$failed

# The programs for the box, with Debian's compiler: target/cross/aarch64-unknown-linux-gnu/release (docs/cross.md).
cross: PACKAGES := $(CROSS_PACKAGES)
cross: deps
	image/cross.sh

# Starts them on an emulated processor.
smoke: PACKAGES := $(SMOKE_PACKAGES)
smoke: cross
	image/smoke.sh

# Boots them in an emulated box, presses its button and cuts its power twenty times; about ten minutes.
boot-test: PACKAGES := $(filter-out tor ngircd iproute2 chromium systemd,$(PACKAGES)) $(BOOT_PACKAGES)
boot-test: tools cross
	image/boot-test.sh

# Debian packages of both, for amd64 and arm64, in target/deb.
deb: cross
	packaging/deb/make.sh

# Installs the amd64 package, with the programs of the tests, in a clean root file system and runs it there; upgrades,
# removes and purges it: Debian 12 and 13, or what SUITE names.
deb-test: PACKAGES := $(DEB_PACKAGES)
deb-test: deps
	cargo test --locked --workspace --no-run
	@built=$${CARGO_TARGET_DIR:-target}; \
	cargo run --locked --quiet -p joinery-testkit --bin licences -- --target x86_64-unknown-linux-gnu joineryd joinery-board \
	  >"$$built/licences.txt"; \
	packaging/deb/test.sh "$$built/debug" "$$built/licences.txt" $(SUITE)

# A signed update out of the root slot of the last `make image`: target/image/joinery-VERSION.raucb. KEY and CERT are the
# signer's (image/rauc/make-keys.sh).
bundle: PACKAGES := $(UPDATE_PACKAGES)
bundle: deps
	@version=$$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"$$/\1/p' Cargo.toml); \
	images=$${CARGO_TARGET_DIR:-target}/image; \
	RAUC_KEY="$(KEY)" RAUC_CERT="$(CERT)" image/rauc/bundle.sh "$$images/joinery-$$version-rootfs.ext4" "$$version" \
	  "$$images/joinery-$$version.raucb"

# The root side of updates with the real RAUC; needs root, or sudo.
update-test: PACKAGES := $(UPDATE_PACKAGES)
update-test: deps
	cargo test --locked --workspace --no-run
	image/update-test.sh "$${CARGO_TARGET_DIR:-target}/debug/joineryd"

# Measures the release daemon on a bench of its own, about a quarter of an hour, and prints a table. RECORD=1 also writes it to
# docs/benchmarks.md; ONLY=start|small|hundred|thousands|market|coinjoin|answers|book|throughput|soak|restore measures
# a part. The soak, a thousand coinjoins, runs only when it is named.
bench: tools
	$(if $(ONLY),,cargo bench --locked -p joinery-proto)
	$(if $(ONLY),,cargo bench --locked -p joinery-net --bench directory)
	$(if $(ONLY),,cargo bench --locked -p joinery-roles --bench maker)
	cargo bench --locked -p joineryd --bench daemon -- $(if $(RECORD),--record) $(if $(ONLY),--only=$(ONLY))

# Seeds from the vectors, then each target for FUZZ_SECONDS. Needs a nightly toolchain and cargo-fuzz (docs/fuzzing.md).
FUZZ_SECONDS ?= 60
fuzz:
	@cargo fuzz --version >/dev/null 2>&1 || { echo "Please install cargo-fuzz: cargo install cargo-fuzz --locked" >&2; exit 1; }
	cd daemon/fuzz && cargo run --quiet --bin seeds
	cargo +nightly fuzz build --fuzz-dir daemon/fuzz
	for target in $$(cargo +nightly fuzz list --fuzz-dir daemon/fuzz | grep -v '^seeds$$'); do \
	  echo "== $$target"; \
	  cargo +nightly fuzz run --fuzz-dir daemon/fuzz $$target -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048; done

# Draws every screen of the box: the golden images of the tests and docs/screens.png. Look at them before you commit.
screens:
	cargo run --locked --quiet -p joinery-board --example screens

# A daemon in release mode with a funded wallet on a private chain; prints how to use it and stays until Ctrl-C.
demo: PACKAGES := $(filter-out ngircd chromium systemd,$(PACKAGES)) curl
demo: deps tools
	cargo build --locked --release -p joineryd -p joinery-board
	cargo build --locked -p joinery-testkit --bin regtest
	built=$${CARGO_TARGET_DIR:-target}; daemon/joineryd/demo.sh "$$built/release/joineryd" "$$built/debug/regtest" \
	  "$$built/release/joinery-board"

# The image for a card, in target/image: about ten minutes, most of them Debian's packages on an emulated processor, which
# are kept for the next time. DEB=FILE takes an arm64 package that is there already.
image: PACKAGES := $(CROSS_PACKAGES) $(IMAGE_PACKAGES)
image: deps $(if $(DEB),,cross)
	$(if $(DEB),,packaging/deb/make.sh arm64)
	version=$$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"$$/\1/p' Cargo.toml); \
	built=$${CARGO_TARGET_DIR:-target}; package="$(DEB)"; \
	image/build.sh "$$version" "$${package:-$$built/deb/joinery_$$version-1_arm64.deb}" "$$built/image"

# Builds the image with the test keys and boots it: first start, what is open, updates, power cuts (docs/image.md); an hour
# and more on two processors, so not part of `make test`. ONLY=WORD runs the tests whose names have it.
image-test: PACKAGES := $(IMAGE_TEST_PACKAGES)
image-test: toolchain deps
	$(MAKE) image KEYRING=image/rauc/test-keys/test-ca.cert.pem
	image/test.sh "$${CARGO_TARGET_DIR:-target}/image" $(ONLY)

# Builds it twice from nothing, each time with Debian's packages fetched anew, and compares.
image-twice: PACKAGES := $(CROSS_PACKAGES) $(IMAGE_PACKAGES)
image-twice: toolchain deps
	image/twice.sh
