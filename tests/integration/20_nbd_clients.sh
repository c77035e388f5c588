#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The NBD server against foreign clients: libnbd's tools, QEMU's tools, fio.
set -euo pipefail
# shellcheck source=tests/nbdserve/serve.sh
. "$(dirname "$0")/../nbdserve/serve.sh"
need nbdinfo nbdcopy qemu-img qemu-io fio jq

sock=$dir/sock
uri() { echo "nbd+unix:///$1?socket=$sock"; }

truncate -s 64M "$dir/disk"
serve --listen "unix:$sock" ram:ram=64MiB "file:file=$dir/disk" ro:ram:frozen=1MiB ram:odd=1000001

echo "nbdinfo: what is offered"
nbdinfo --json --list "$(uri '')" >"$dir/info"
jq -e '.protocol == "newstyle-fixed" and .structured and (.exports | length) == 4' \
	"$dir/info" >/dev/null || fail "list of exports: $(cat "$dir/info")"
jq -e '.exports[] | select(.["export-name"] == "ram") | .["export-size"] == 67108864 and
	.can_flush and .can_fua and .can_trim and .can_zero and .can_fast_zero and .can_df and
	.can_cache and .can_multi_conn and (.is_read_only | not) and
	.block_size_maximum == 67108864 and .contexts == ["base:allocation"] and
	.description == "memory"' "$dir/info" >/dev/null || fail "ram: $(cat "$dir/info")"
jq -e '.exports[] | select(.["export-name"] == "frozen") | .is_read_only and (.can_trim | not)' \
	"$dir/info" >/dev/null || fail "frozen: $(cat "$dir/info")"
[[ $(nbdinfo --size "$(uri odd)") == 1000001 ]] || fail "an odd size"
nbdinfo --size "$(uri missing)" 2>"$dir/error" && fail "opened an export that is not there"
grep -q "no export named" "$dir/error" || fail "no reason given: $(cat "$dir/error")"

echo "nbdcopy: many connections, both ways"
# Half random, half holes.
dd if=/dev/urandom of="$dir/source" bs=1M count=24 status=none
truncate -s 64M "$dir/source"
dd if="$dir/source" of="$dir/source" bs=1M skip=3 seek=40 count=9 conv=notrunc status=none
for export in ram file; do
	nbdcopy --connections=8 --requests=64 --flush "$dir/source" "$(uri $export)"
	nbdcopy --connections=8 --requests=64 "$(uri $export)" "$dir/back"
	cmp "$dir/source" "$dir/back" || fail "$export differs after nbdcopy"
	rm "$dir/back"
done
cmp "$dir/source" "$dir/disk" || fail "the file itself differs"
nbdcopy --connections=4 --request-size=33554432 "$(uri ram)" "$(uri file)"
nbdcopy --synchronous "$(uri ram)" "$dir/back"
cmp "$dir/source" "$dir/back" || fail "synchronous nbdcopy differs"
for export in ram file; do
	holes=$(nbdinfo --map --json "$(uri $export)" |
		jq '[.[] | select(.type == 3) | .length] | add')
	((holes == 31 << 20)) || fail "$export has $holes bytes of holes, not 31 MiB"
done

echo "qemu-img: compare, map, convert"
qemu-img compare -f raw -F raw "$dir/source" "nbd+unix:///ram?socket=$sock" >/dev/null ||
	fail "compare"
qemu-img map --output=json -f raw "nbd+unix:///ram?socket=$sock" |
	jq -e '[.[] | select(.data) | .length] | add == 34603008' >/dev/null || fail "map"
qemu-img convert -n -f raw -O raw -m 16 -W "$dir/source" "nbd+unix:///file?socket=$sock"
qemu-img convert -f raw -O qcow2 "nbd+unix:///file?socket=$sock" "$dir/copy.qcow2"
qemu-img compare -f raw -F qcow2 "$dir/source" "$dir/copy.qcow2" >/dev/null || fail "convert"

echo "qemu-io: patterns, flags, discards"
io() { qemu-io -f raw -t writeback "$@" "nbd+unix:///ram?socket=$sock" >"$dir/io" 2>&1; }
io -c 'write -P 7 0 1M' -c 'write -P 9 -f 64k 4k' -c 'flush' -c 'write -z 128k 64k' \
	-c 'write -z -u 256k 64k' -c 'discard 512k 128k' || fail "$(cat "$dir/io")"
io -c 'read -P 7 0 64k' -c 'read -P 9 64k 4k' -c 'read -P 7 68k 60k' -c 'read -P 0 128k 64k' \
	-c 'read -P 7 192k 64k' -c 'read -P 0 256k 64k' -c 'read -P 0 512k 128k' \
	-c 'read -P 7 640k 384k' || fail "$(cat "$dir/io")"
if grep -q "Pattern verification failed" "$dir/io"; then fail "$(cat "$dir/io")"; fi
io -c 'aio_write -P 1 0 8M' -c 'aio_write -P 2 8M 8M' -c 'aio_write -P 3 16M 8M' -c 'aio_flush' \
	-c 'aio_read -P 1 0 8M' -c 'aio_read -P 2 8M 8M' -c 'aio_read -P 3 16M 8M' -c 'aio_flush' ||
	fail "$(cat "$dir/io")"
if grep -q "Pattern verification failed" "$dir/io"; then fail "$(cat "$dir/io")"; fi

echo "fio: random writes, verified"
for export in ram file; do
	fio --name=verify --ioengine=nbd --uri="nbd+unix:///$export?socket=$sock" --rw=randwrite \
		--bsrange=4k-256k --blockalign=4k --iodepth=32 --size=48M --io_size=96M \
		--verify=crc32c --verify_fatal=1 --verify_state_save=0 --fsync=64 --randseed=7 --output="$dir/fio" ||
		fail "$(cat "$dir/fio")"
done

unserve
grep -q "memory_waits" "$dir/log" || fail "no figures at the end"
if grep -E "errors [1-9]" "$dir/log"; then fail "the server counted errors"; fi
