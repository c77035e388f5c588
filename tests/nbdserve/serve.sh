# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# For the integration tests of the NBD server: a temporary directory in $dir, `serve ARG...` starts
# nbdserve (its log is $dir/log), `unserve` stops it and fails when it did not end well. Everything
# is cleaned up when the test ends.

# Debian's own tools and Python come first: another Python does not find Debian's nbd module.
PATH=/usr/bin:$PATH

dir=$(mktemp -d "${TMPDIR:-/tmp}/nbdserve.XXXXXX")
server_pid=

cleanup() {
	[[ -z $server_pid ]] || kill -KILL "$server_pid" 2>/dev/null
	if [[ -d $dir/mount ]] && mountpoint -q "$dir/mount"; then
		fusermount3 -u "$dir/mount" || umount -l "$dir/mount"
	fi
	rm -rf "$dir"
}
trap cleanup EXIT

fail() {
	echo "FAILED: $*" >&2
	[[ ! -s $dir/log ]] || sed 's/^/  log: /' "$dir/log" >&2
	exit 1
}

need() {
	local tool
	for tool in "$@"; do
		command -v "$tool" >/dev/null || {
			echo "skipped: $tool is not installed"
			exit 77
		}
	done
}

serve() {
	"${HOLDFAST_BUILD:-build}/nbdserve" "$@" >"$dir/ready" 2>>"$dir/log" &
	server_pid=$!
	for _ in $(seq 100); do
		grep -q ready "$dir/ready" && return
		kill -0 "$server_pid" 2>/dev/null || break
		sleep 0.05
	done
	fail "nbdserve $* did not start"
}

unserve() {
	local pid=$server_pid status=0
	server_pid=
	kill -TERM "$pid"
	wait "$pid" || status=$?
	((status == 0)) || fail "nbdserve ended with status $status"
}
