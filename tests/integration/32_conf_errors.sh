#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A configuration with many faults: all are told at once, each with file, line, reason and remedy, by
# the command and by both daemons.
set -euo pipefail

build=${HOLDFAST_BUILD:?set it to the directory of the programs}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

die() {
	printf 'FAILED: %s\n' "$*" >&2
	cat err >&2 || true
	exit 1
}

cat >bad.conf <<'END'
# a comment, which must not move the lines
node = "a b"
/* one more,
   over two lines */
colour = red
log_level = loud
group "db" {
	memory = 64MB
	journal_size = 100MiB
	volume "data" { path = "relative" }
	volume "data" { path = /x }
	peer "b.example" { role = boss }
	heartbeat = 500
}
engine { listen = "nowhere" }
END
wanted=(
	"bad.conf:2: *DNS name*;*" "bad.conf:5: *colour*; known here: *" "bad.conf:6: *loud*; choose one of *"
	"bad.conf:8: *64MB*; *MiB*" "bad.conf:9: *multiple*; *" "bad.conf:10: *not absolute*; *"
	"bad.conf:11: *data*; *" "bad.conf:12: *boss*; *" "bad.conf:12: *no address*; *"
	"bad.conf:13: *500*; *" "bad.conf:15: *no port*; *"
)
for program in "holdfast config check" holdfast-agent holdfast-engine; do
	code=0
	# shellcheck disable=SC2086 # verb and program are two words
	"$build"/$program -c bad.conf >out 2>err || code=$?
	((code == 2)) || die "$program left with $code"
	[[ ! -s out ]] || die "$program printed to standard output"
	for pattern in "${wanted[@]}"; do
		found=0
		while read -r line; do
			# shellcheck disable=SC2053 # a pattern on purpose
			[[ $line == $pattern ]] && found=1
		done <err
		((found)) || die "$program: nothing like '$pattern'"
	done
	grep -qv '^bad.conf:[0-9]*: .*; ' err && die "$program: a line without place or remedy"
done
code=0
"$build/holdfast" config check -c bad.conf -o json >out 2>err || code=$?
((code == 2)) || die "json: left with $code"
jq -e '.error.exit_code == 2' err >/dev/null || die "json: no error object"

# The shipped example is right.
"$build/holdfast" config check -c "${HOLDFAST_SOURCE:?}/dist/holdfast.conf.example" >out 2>err || die "the example"
echo "every fault is named"
