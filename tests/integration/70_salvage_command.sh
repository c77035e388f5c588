#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# holdfast salvage: a salvage is journal segments back to back, so one is made of a real journal;
# what list, show, extract and drop say of it is compared with what was written.
set -euo pipefail

build=${HOLDFAST_BUILD:?set it to the directory of the programs}
PATH=$build:/usr/bin:$PATH
work=$(mktemp -d)
agent=

cleanup() {
	[[ -z $agent ]] || kill -KILL "$agent" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
cd "$work"

say() { printf -- '--- %s\n' "$*"; }
die() {
	printf 'FAILED: %s\n' "$*" >&2
	cat out err >&2 || true
	exit 1
}
expect() {
	local want=$1 have=0
	shift
	"$@" >out 2>err || have=$?
	((have == want)) || die "exit code $have instead of $want: $*"
}
has() { grep -qF -- "$2" "$1" || die "no '$2' in $1"; }
field() {
	local have
	have=$(jq -r "$1" out)
	[[ $have == "$2" ]] || die "$1 is '$have' instead of '$2'"
}

cat >a.conf <<END
node = "alpha.example"
state_dir = "$work/state"
run_dir = "$work/run"
group "db" {
	journal_size = 16MiB
	journal_file_size = 4MiB
	memory = 16MiB
	volume "data" { path = "$work/data.img" }
	volume "wal" { path = "$work/wal.img" }
}
END
truncate -s 8M data.img
truncate -s 4M wal.img

say "a journal with overwrites, zeroes and a mark"
expect 0 holdfast init db --role primary -c a.conf
holdfast-agent -c a.conf >agent.log 2>&1 &
agent=$!
for ((i = 0; i < 100; i++)); do
	[[ -S run/nbd-db.sock ]] && break
	sleep 0.1
done
nbdsh -u "nbd+unix:///data?socket=$work/run/nbd-db.sock" -c '
h.pwrite(b"a" * 8192, 0)
h.pwrite(b"b" * 4096, 4096)
h.pwrite(b"c" * 4096, 1 << 20)
h.zero(4096, 0)
h.flush()'
nbdsh -u "nbd+unix:///wal?socket=$work/run/nbd-db.sock" -c '
h.pwrite(b"w" * 512, 1024)
h.flush()'
expect 0 holdfast mark db "the end" -c a.conf
kill -TERM "$agent"
wait "$agent" || die "the agent left with $?"
agent=

say "none yet"
expect 0 holdfast salvage list db -c a.conf
has out "group db has no salvage"
expect 0 holdfast salvage list db -c a.conf -o json
field '.salvages | length' 0
expect 9 holdfast salvage list none -c a.conf
expect 9 holdfast salvage show db 1-1-6 -c a.conf
has err "has no salvage '1-1-6'"
expect 9 holdfast salvage drop db ../superblock -c a.conf
expect 2 holdfast salvage show db -c a.conf
expect 2 holdfast salvage list db 1-1-6 -c a.conf
expect 2 holdfast salvage burn db 1-1-6 -c a.conf
expect 2 holdfast salvage drop db 1-1-6 --raw -c a.conf

expect 0 holdfast journal list db -c a.conf -o json
field .last_seq 6
mkdir state/db/salvage
while read -r file off size; do
	dd if="state/db/$file" bs=1 skip="$off" count="$size" status=none
done < <(jq -r '.segments[] | "\(.file) \(.offset) \(.stored_bytes)"' out) >state/db/salvage/1-1-6

say "list and show"
expect 0 holdfast salvage list db -c a.conf
has out "1-1-6"
has out "whole"
expect 0 holdfast salvage list db -c a.conf -o json
field '.salvages[0].id' 1-1-6
field '.salvages[0].records' 6
field '.salvages[0].bytes' $((8192 + 4096 + 4096 + 4096 + 512))
expect 0 holdfast salvage show db 1-1-6 -c a.conf
(($(wc -l <out) == 7)) || die "show does not print a line for each record"
has out "the end"
grep -Eq '^ +3 .* data +write +1048576 +4096$' out || die "record 3"
grep -Eq '^ +4 .* data +write-zeroes +0 +4096$' out || die "record 4"
grep -Eq '^ +5 .* wal +write +1024 +512$' out || die "record 5"
expect 0 holdfast salvage show db 1-1-6 -c a.conf -o json
field '.items | length' 6
field '.items[5].mark' "the end"
field '.items[4].volume' wal
field '.items[4].offset_bytes' 1024

say "extract: the newest content of each range, and nothing else"
expect 0 holdfast salvage extract db 1-1-6 -c a.conf
has out "db-1-1-6/data.img"
cmp db-1-1-6/data.img data.img || die "the image of data differs"
cmp db-1-1-6/wal.img wal.img || die "the image of wal differs"
(($(stat -c %b db-1-1-6/data.img) * 512 < 1048576)) || die "the image is not sparse"
cp db-1-1-6/map.json out
field '.volumes[0].covered_bytes' $((8192 + 4096))
field '[.volumes[0].ranges[] | [.offset_bytes, .length_bytes, .seq, .type]] | tojson' \
	'[[0,4096,4,"write-zeroes"],[4096,4096,2,"write"],[1048576,4096,3,"write"]]'
field '.volumes[1].ranges | length' 1
expect 7 holdfast salvage extract db 1-1-6 -c a.conf
has err "is there already"
expect 0 holdfast salvage extract db 1-1-6 --out raw --raw -c a.conf
cp raw/records.json out
field '.items | length' 6
field '.items[1].data_offset_bytes' 8192
field '.items[3].data_bytes' 0
[[ $(dd if=raw/records.data bs=1 skip=8192 count=4096 status=none | tr -d b | wc -c) == 0 ]] ||
	die "the data of record 2"

say "damage is told, and what is before it is shown"
cp state/db/salvage/1-1-6 state/db/salvage/1-1-7
expect 4 holdfast salvage list db -c a.conf
has out "the file ends"
expect 4 holdfast salvage show db 1-1-7 -c a.conf
has out "the end"
has err "1-1-7"
expect 4 holdfast salvage extract db 1-1-7 --out cut -c a.conf
[[ ! -e cut ]] || die "something was extracted from a damaged salvage"

say "drop"
expect 0 holdfast salvage drop db 1-1-7 -c a.conf
expect 0 holdfast salvage list db -c a.conf -o json
field '.salvages | length' 1
expect 9 holdfast salvage drop db 1-1-7 -c a.conf
echo "salvages are listed, shown, extracted and dropped"
