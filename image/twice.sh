#!/bin/bash
# Builds the image twice, each time from nothing: programs in a target directory of their own, Debian's packages fetched
# anew. Ends with an error when the two differ in a byte. `make image-twice` runs it; KEYRING as for `make image`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"$/\1/p' Cargo.toml)
work=$target/twice
rm -rf "$work"
mkdir -p "$work"
for build in first second; do
  CARGO_TARGET_DIR=$work/$build image/cross.sh
  CARGO_TARGET_DIR=$work/$build packaging/deb/make.sh arm64
  JOINERY_CACHE=$work/$build/cache image/build.sh "$version" "$work/$build/deb/joinery_$version-1_arm64.deb" "$work/$build-image"
  # Space: 3 GB each time.
  rm -rf "${work:?}/$build"
done
for file in arm64.img arm64.img.zst rootfs.ext4 arm64.cdx.json; do
  sha256sum "$work"/{first,second}-image/"joinery-$version-$file"
  cmp "$work"/{first,second}-image/"joinery-$version-$file"
done
rm -rf "$work"
echo "image: two builds are the same"
