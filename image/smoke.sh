#!/bin/bash
# Starts the programs that `make cross` built, on an emulated processor of the box: they find their loader and
# libraries, read their configuration and draw. `make smoke` runs it. That they work together is what `make boot-test`
# looks at.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TRIPLE=aarch64-unknown-linux-gnu
built=$(realpath "${CARGO_TARGET_DIR:-target}/cross/$TRIPLE/release")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
work=$(mktemp -d)
board=
finish() {
  if [ -n "$board" ]; then kill -KILL "$board" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT
fail() { echo "smoke: $*" >&2; cat "$work"/log* >&2 2>/dev/null || true; exit 1; }

# libc6:arm64 and libgcc-s1:arm64 came with the standard library of the target. Those of the cross compiler (`-L`) would
# be mixed with them, because the loader finds these first.
emulated=()
if [ "$(uname -m)" != aarch64 ]; then emulated=(qemu-aarch64); fi
on_box() { "${emulated[@]}" "$built/$1" "${@:2}"; }

# Expects an exit code and, somewhere in what is said, a text.
expect() {
  local code=$1 text=$2 found=0
  shift 2
  on_box "$@" >"$work/log" 2>&1 || found=$?
  [ "$found" -eq "$code" ] || fail "'$*' ended with $found, not $code"
  grep -q -F -e "$text" "$work/log" || fail "'$*' does not say '$text'"
}

export HOME=$work
expect 0 "$version" joineryd version
expect 0 "--electrum <URL>" joineryd --help
expect 0 ok joineryd --data-dir "$work/data" --config docs/joineryd.toml check-config
printf 'colour = "red"\n' >"$work/wrong.toml"
expect 78 colour joineryd --data-dir "$work/data" --config "$work/wrong.toml" check-config
expect 64 "--nonsense" joineryd --nonsense
expect 0 "$version" joinery-board --version
expect 0 "--backend <BACKEND>" joinery-board --help
expect 64 "--nonsense" joinery-board --nonsense
expect 69 "there is no backend oled" joinery-board --backend oled

# A board without a daemon draws its first screen, the same to the pixel as on any machine, and ends when it is told to.
for panel in ssd1306-i2c:small st7789-spi:large; do
  pictures=$work/${panel#*:}
  # Nobody presses: stdin stays open as long as the descriptor 3 here.
  mkfifo "$pictures.hand"
  exec 3<>"$pictures.hand"
  "${emulated[@]}" "$built/joinery-board" --socket "$work/none" --backend png "$pictures" --display "${panel%:*}" \
    <"$pictures.hand" 3>&- >"$pictures.told" 2>"$work/log-board" &
  board=$!
  # The line that tells of a picture is written after the picture.
  deadline=$((SECONDS + 60))
  until grep -q '"screen":"starting"' "$pictures.told"; do
    kill -0 "$board" 2>/dev/null || fail "the board has ended"
    [ "$SECONDS" -lt "$deadline" ] || fail "the board told of no starting screen: $(cat "$pictures.told")"
    sleep 0.05
  done
  kill -TERM "$board"
  wait "$board" || fail "the board ended with $?"
  board=
  exec 3>&-
  cmp "$pictures"/000001-starting.png "board/tests/golden/${panel#*:}/starting-alone.png" \
    || fail "the first screen of the ${panel#*:} display looks different"
done
echo "smoke: joineryd and joinery-board $version start, read their configuration and draw on an emulated aarch64"
