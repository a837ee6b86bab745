#!/bin/bash
# Checks rootfs/usr/lib/joinery/settings on a machine that is no box: what joinery.txt becomes, what is refused, and that
# the Wi-Fi password leaves the file. `make units` runs it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count=0

fail() { echo "settings: $*" >&2; exit 1; }
# Reads a joinery.txt from standard input.
run() {
  mkdir -p "$work"/{boot,data,out}
  cat >"$work/boot/joinery.txt"
  again
}
# As preinit leaves it: /data can be used.
again() {
  mkdir -p "$work/run"
  [ -e "$work/run/joinery-encrypted" ] || : >"$work/run/joinery-data"
  settings
}
settings() { dash "$here/rootfs/usr/lib/joinery/settings" "$work/boot" "$work/data" "$work/out" "$work/run" 2>"$work/log"; }
fresh() { rm -rf "${work:?}"/{boot,data,out,run}; }
has() { grep -qxF -- "$2" "$work/out/$1" || fail "$1 lacks: $2"; count=$((count + 1)); }
says() { grep -qF -- "$1" "$work/boot/joinery-problems.txt" || fail "not reported: $1"; count=$((count + 1)); }
quiet() { [ ! -e "$work/boot/joinery-problems.txt" ] || fail "complains: $(cat "$work/boot/joinery-problems.txt")"; count=$((count + 1)); }
absent() { [ ! -e "$work/out/$1" ] || fail "$1 exists"; count=$((count + 1)); }

# What ships: nothing to complain about, the careful defaults.
run <"$here/boot/joinery.txt"
quiet
has joineryd.toml 'network = "signet"'
has joineryd.toml 'proxy = "socks5://127.0.0.1:9050"'
[ -e "$work/out/tor-only" ] || fail "tor_only is not on"
absent wpa_supplicant.conf
absent ssh
# Nothing waits for a button where there is no display; an unlock does where there is one.
if grep -q approve "$work/out/joineryd.toml"; then fail "waits for a button that is not there"; fi
mkdir "$work/bin"
printf '#!/bin/sh\n[ "$*" = "--probe --display ssd1306-i2c" ]\n' >"$work/bin/joinery-board"
chmod +x "$work/bin/joinery-board"
PATH=$work/bin:$PATH again
has joineryd.toml 'approve = ["unlock", ]'
quiet

# Every setting; Windows' line ends and byte order mark; a Wi-Fi with a name and a password full of signs.
fresh
printf '\xef\xbb\xbfnetwork=mainnet\r\n  electrum_server = ssl://[fd00::1]:50002 \r\nelectrum_certificate = 00:Aa\r\ntor_only = no\r\nwifi_name = Caf\xc3\xa9 "x" }\r\nwifi_password = se\\cret"1 $(x)\r\nwifi_country = DE\r\ndisplay = ssd1306-i2c\r\napprove = unlock, send\r\nresume = yes\r\nssh_key = ssh-ed25519 AAAA me@there\r\n' | run
quiet
has joineryd.toml 'network = "mainnet"'
has joineryd.toml 'url = "ssl://[fd00::1]:50002"'
has joineryd.toml 'certificate_sha256 = "00:Aa"'
has joineryd.toml 'approve = ["unlock", "send", ]'
has joineryd.toml 'resume = true'
if grep -q proxy "$work/out/joineryd.toml"; then fail "a proxy although tor_only = no"; fi
absent tor-only
has board.env 'JOINERY_BOARD_DISPLAY=ssd1306-i2c'
has wpa_supplicant.conf '  ssid=436166c3a920227822207d'
has ssh/authorized_keys 'ssh-ed25519 AAAA me@there'
has wpa_supplicant.conf '  psk="se\cret"1 $(x)"'
has wpa_supplicant.conf 'country=DE'
[ "$(stat -c %a "$work/out/wpa_supplicant.conf" "$work/data/etc/wifi-password" "$work/data/etc/joinery.txt" | sort -u)" = 600 ] || fail "readable by others"

# The password is gone from the card, the file is as long as it was, and the next start still knows it.
if grep -rqF 'cret' "$work/boot" "$work/data/etc/joinery.txt"; then fail "the password is still there"; fi
grep -qF 'wifi_password = **************' "$work/boot/joinery.txt" || fail "no stars: $(cat "$work/boot/joinery.txt")"
again
quiet
has wpa_supplicant.conf '  psk="se\cret"1 $(x)"'

# Without the card's file, what it said last; and nothing is written then.
mv "$work/boot/joinery.txt" "$work/saved"
again
grep -q "what it said last is used" "$work/log" || fail "silent about a missing joinery.txt"
has joineryd.toml 'network = "mainnet"'
absent tor-only
[ -z "$(ls "$work/boot")" ] || fail "wrote to a boot partition that is not ours"

# What is wrong is named by its line, without the value, and everything else counts.
fresh
run <<'TXT'
network = lightning
electrum_server = ssl://a.b:50002" evil = "1
tor_only = perhaps
wifi_password = short
no setting at all
colour = blue
approve = unlock, everything
ssh_key = command="rm" ssh-rsa AAAA
display = hdmi
wifi_country = Germany
TXT
for line in 1 2 3 4 7 8 9 10; do says "line $line: this is no value for"; done
says 'line 5: not "name = value"'
says 'line 6: there is no setting "colour"'
if grep -qE 'evil|short|lightning' "$work/boot/joinery-problems.txt"; then fail "repeats what may be secret"; fi
has joineryd.toml 'network = "signet"'
[ -e "$work/out/tor-only" ] || fail "a wrong tor_only opened the firewall"
absent ssh
# Mended: the complaint goes away.
echo 'network = testnet4' | run
quiet
has joineryd.toml 'network = "testnet4"'

# 64 hexadecimal digits are a key, and a file without an end is cut.
fresh
{ printf 'wifi_name = n\nwifi_country = US\nwifi_password = %064d\n' 7; head -c 200000 /dev/zero | tr '\0' '#'; } | run
quiet
has wpa_supplicant.conf "  psk=$(printf %064d 7)"

# The encrypted volume: a new one only where it was asked for, and joineryd does not start before it is open.
ready() { [ -e "$work/run/joinery-data" ] || fail "joineryd does not start"; absent volume; }
waits() { [ ! -e "$work/run/joinery-data" ] || fail "joineryd starts without the volume"; has volume "$1"; }
fresh
run <<<'encrypt = no'
quiet
ready
run <<<'encrypt = yes'
quiet
waits new
# What an earlier daemon left without a wallet is nothing to lose.
mkdir -p "$work/data/joinery/wallets" "$work/data/joinery/ssl"
: >"$work/data/joinery/ssl/key.pem"
again
quiet
waits new
# /data could not be mounted: a volume in memory would be gone with the power.
rm -f "$work/run/joinery-data"
settings
ready_not() { [ ! -e "$work/run/joinery-data" ] || fail "joineryd starts without /data"; absent volume; }
ready_not
# Wallets that are there stay as they are, and the daemon has them.
: >"$work/data/joinery/wallets/w.jmdat"
again
ready
says 'encrypt = yes, but this box has wallets already'
[ -e "$work/data/joinery/wallets/w.jmdat" ] || fail "a wallet is gone"
echo 'encrypt = no' | run
quiet
ready
# A volume that is there is asked for, whatever the file says, and whether or not the file is there.
: >"$work/run/joinery-encrypted"
rm -f "$work/run/joinery-data"
for line in 'encrypt = yes' 'encrypt = no' '#'; do
  echo "$line" | run
  quiet
  waits locked
done
mv "$work/boot/joinery.txt" "$work/saved"
again
waits locked
mv "$work/saved" "$work/boot/joinery.txt"
# What is no value is said, and does not encrypt.
fresh
run <<<'encrypt = maybe'
says 'line 1: this is no value for encrypt'
ready

echo "settings: $count checks"
