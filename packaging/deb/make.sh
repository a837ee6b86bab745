#!/bin/bash
# Makes packages, target/deb/joinery_VERSION_ARCH.deb: amd64 with the toolchain of whoever calls this, arm64 out of what
# `make cross` has built. `make deb` runs it for both, `make image` for arm64.
#
#   make.sh [ARCH...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

home=${CARGO_HOME:-$HOME/.cargo}
target=${CARGO_TARGET_DIR:-target}
version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"$/\1/p' Cargo.toml)-1

[ $# -gt 0 ] || set -- amd64 arm64

# As in image/cross.sh: no path of this machine in the programs.
build_amd64() (
  separator=$'\x1f'
  export CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$home=/cargo${separator}--remap-path-prefix=$PWD=/joinery"
  export CFLAGS="-ffile-prefix-map=$home=/cargo -ffile-prefix-map=$PWD=/joinery"
  cargo build --locked --release --target-dir "$target/deb" -p joineryd -p joinery-board
)
mkdir -p "$target/deb"
for arch; do
  case $arch in
    amd64)
      build_amd64
      triple=x86_64-unknown-linux-gnu programs=$target/deb/release ;;
    arm64) triple=aarch64-unknown-linux-gnu programs=$target/cross/$triple/release ;;
    *) echo "deb: $arch is neither amd64 nor arm64" >&2; exit 64 ;;
  esac
  licences=$target/deb/licences-$arch.txt
  cargo run --locked --quiet -p joinery-testkit --bin licences -- --target "$triple" joineryd joinery-board >"$licences"
  packaging/deb/build.sh --arch "$arch" --programs "$programs" --licences "$licences" --out "$target/deb/joinery_${version}_$arch.deb"
done
