#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A real file system on the NBD server: nbdfuse makes the export a file, a loop device makes that a
# disk. Written to, trimmed, checked, and read back through another client.
set -euo pipefail
# shellcheck source=tests/nbdserve/serve.sh
. "$(dirname "$0")/../nbdserve/serve.sh"
need nbdfuse mkfs.ext4 e2fsck losetup nbdcopy fusermount3
[[ -w /dev/fuse ]] || {
	echo "skipped: /dev/fuse cannot be used here"
	exit 77
}

loop=
fuse_pid=
finish() {
	if mountpoint -q "$dir/fs"; then umount "$dir/fs" || umount -l "$dir/fs"; fi
	[[ -z $loop ]] || losetup -d "$loop" || true
	if mountpoint -q "$dir/mount"; then fusermount3 -u "$dir/mount" || true; fi
	[[ -z $fuse_pid ]] || wait "$fuse_pid" || true
	loop='' fuse_pid=''
}
trap 'finish; cleanup' EXIT

truncate -s 256M "$dir/disk"
serve --listen "unix:$dir/sock" "file:disk=$dir/disk"
mkdir "$dir/mount" "$dir/fs"
nbdfuse -C 4 "$dir/mount" "nbd+unix:///disk?socket=$dir/sock" &
fuse_pid=$!
for _ in $(seq 100); do
	[[ ! -e $dir/mount/nbd ]] || break
	sleep 0.05
done
[[ -e $dir/mount/nbd ]] || fail "nbdfuse did not start"
mkfs.ext4 -q -F "$dir/mount/nbd"
loop=$(losetup --find --show --direct-io=on "$dir/mount/nbd" 2>/dev/null) || {
	echo "skipped: no loop device to be had here"
	exit 77
}
mount -o discard "$loop" "$dir/fs"

echo "files, a sync, a removal, a trim"
cp -r "${HOLDFAST_SOURCE:-.}/core" "$dir/tree"
cp -r "$dir/tree" "$dir/fs/"
dd if=/dev/urandom of="$dir/fs/random" bs=1M count=48 conv=fsync status=none
sum=$(sha256sum <"$dir/fs/random")
rm -r "$dir/fs/tree/base"
fstrim "$dir/fs"
umount "$dir/fs"
mount "$loop" "$dir/fs"
[[ $(sha256sum <"$dir/fs/random") == "$sum" ]] || fail "the file changed over a mount"
diff -r "$dir/tree/io" "$dir/fs/tree/io" || fail "files differ"
finish

echo "the same bytes, seen by another client and in the file"
nbdcopy "nbd+unix:///disk?socket=$dir/sock" "$dir/copy"
cmp "$dir/copy" "$dir/disk" || fail "nbdcopy and the file differ"
e2fsck -fn "$dir/copy" >"$dir/fsck" 2>&1 || fail "$(cat "$dir/fsck")"
unserve
grep -Eq "trim ops [1-9]" "$dir/log" || fail "no trim came through"
if grep -E "errors [1-9]" "$dir/log"; then fail "the server counted errors"; fi
