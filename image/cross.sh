#!/bin/bash
# Builds joineryd and joinery-board for the box (aarch64-unknown-linux-gnu) with Debian's Rust and its cross compiler,
# and checks what came out. `make cross` installs what this needs and runs it.
#
# The toolchain is Debian's because it has the target's standard library as a package. It is the one in /usr/bin,
# whatever else is in the PATH: another compiler needs another target directory, so this has its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "cross: $*" >&2; exit 1; }

# The oldest system that the box's programs should start on has this glibc or a newer one.
readonly NEWEST_GLIBC=2.34
readonly TRIPLE=aarch64-unknown-linux-gnu
readonly GNU=aarch64-linux-gnu

home=${CARGO_HOME:-$HOME/.cargo}
target=${CARGO_TARGET_DIR:-target}/cross
export PATH=/usr/bin:/bin
# What another toolchain may have left here.
unset RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER RUSTDOC RUSTUP_TOOLCHAIN RUSTFLAGS CARGO_BUILD_TARGET
[ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] || fail "Debian's cargo and rustc are not here: see the Makefile for the packages"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$GNU-gcc
export CC_aarch64_unknown_linux_gnu=$GNU-gcc CXX_aarch64_unknown_linux_gnu=$GNU-g++ AR_aarch64_unknown_linux_gnu=$GNU-ar
# No path of the machine that builds ends up in the programs: they say nothing about it, and are the same from everywhere.
separator=$'\x1f'
export CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$home=/cargo${separator}--remap-path-prefix=$PWD=/joinery"
export CFLAGS_aarch64_unknown_linux_gnu="-ffile-prefix-map=$home=/cargo -ffile-prefix-map=$PWD=/joinery"

cargo build --locked --release --target "$TRIPLE" --target-dir "$target" -p joineryd -p joinery-board

for program in joineryd joinery-board; do
  file=$target/$TRIPLE/release/$program
  # Not `grep -q`, which ends early, so that the pipe has the exit code of a broken one.
  $GNU-readelf --file-header "$file" | grep 'Machine: *AArch64' >/dev/null || fail "$file is not for this processor"
  if $GNU-readelf --sections --wide "$file" | grep '\.symtab' >/dev/null; then fail "$file is not stripped"; fi
  newest=$($GNU-readelf --version-info --wide "$file" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -uV | tail -n 1)
  [ -n "$newest" ] || fail "$file names no version of glibc"
  [ "$(printf '%s\n' "$newest" "$NEWEST_GLIBC" | sort -V | tail -n 1)" = "$NEWEST_GLIBC" ] \
    || fail "$file needs glibc $newest, and the box may have only $NEWEST_GLIBC"
  if grep -q -a -F -e "$home/" -e "$PWD/" "$file"; then fail "$file names directories of this machine"; fi
  echo "cross: $file, $(stat -c %s "$file") bytes, glibc $newest"
done
