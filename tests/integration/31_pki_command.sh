#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# holdfast pki from init to revocation, with the openssl command as judge.
set -euo pipefail

build=${HOLDFAST_BUILD:?set it to the directory of the programs}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
holdfast=$build/holdfast

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
verifies() { openssl verify -x509_strict -crl_check -CAfile ca/ca.pem -CRLfile ca/ca.crl "$1" >out 2>err; }

expect 9 "$holdfast" pki issue a.example --dir ca
expect 0 "$holdfast" pki init --dir ca --name "Sites of one house"
expect 7 "$holdfast" pki init --dir ca
[[ $(stat -c %a ca) == 700 ]] || die "the authority's directory is open to others"
[[ $(stat -c %a ca/ca.key) == 600 ]] || die "the authority's key is open to others"
mkdir nodes
umask 077
expect 0 "$holdfast" pki issue a.example --dir ca --out nodes --dns localhost,a --ip 127.0.0.1,::1
expect 0 "$holdfast" pki issue b.example --dir ca --out nodes --days 30
[[ $(stat -c %a nodes/a.example.key) == 600 ]] || die "mode of the key"
[[ $(stat -c %a nodes/a.example.pem) == 644 ]] || die "mode of the certificate"
verifies nodes/a.example.pem || die "a.example is not valid"
verifies nodes/b.example.pem || die "b.example is not valid"
openssl verify -CAfile ca/ca.pem -verify_ip 127.0.0.1 nodes/a.example.pem >out 2>err || die "address"
openssl verify -CAfile ca/ca.pem -verify_hostname localhost nodes/a.example.pem >out 2>err || die "host name"
openssl pkey -in nodes/a.example.key -pubout >public
openssl x509 -in nodes/a.example.pem -noout -pubkey | cmp - public || die "key and certificate differ"

expect 0 "$holdfast" pki show --dir ca -o json
[[ $(jq '.certificates | length' out) == 2 ]] || die "index"
expect 0 "$holdfast" pki show nodes/b.example.pem -o json
[[ $(jq -r .identity out) == b.example ]] || die "identity"
serial=$(jq -r .serial out)
[[ $(openssl x509 -in nodes/b.example.pem -noout -serial) == "serial=$serial" ]] || die "serial"

expect 7 "$holdfast" pki issue a.example --dir ca --out nodes
expect 2 "$holdfast" pki issue "a example" --dir ca --out nodes
expect 2 "$holdfast" pki issue c.example --dir ca --out nodes --days 9999
expect 2 "$holdfast" pki issue --dir ca
expect 2 "$holdfast" pki bake --dir ca
expect 2 "$holdfast" pki init --dir other --algorithm rot13
expect 9 "$holdfast" pki revoke nobody.example --dir ca

expect 0 "$holdfast" pki revoke "$serial" --dir ca
verifies nodes/b.example.pem && die "a revoked certificate is valid"
grep -q "certificate revoked" out err || die "not because it is revoked"
verifies nodes/a.example.pem || die "the other one fell, too"
openssl crl -in ca/ca.crl -noout -text | grep -qi "${serial#0}" || die "serial not in the list"
expect 0 "$holdfast" pki crl --dir ca
verifies nodes/b.example.pem && die "a new list forgot the revocation"

# Several at once: each certificate gets into the index.
for i in 1 2 3 4 5 6; do
	"$holdfast" pki issue "n$i.example" --dir ca --out nodes >/dev/null &
done
wait
expect 0 "$holdfast" pki show --dir ca -o json
[[ $(jq '.certificates | length' out) == 8 ]] || die "certificates got lost"
[[ $(jq -r '[.certificates[].serial] | unique | length' out) == 8 ]] || die "serials repeat"

expect 0 "$holdfast" pki init --dir ed --algorithm ed25519
expect 0 "$holdfast" pki issue spiffe://house.example/a --dir ed --out nodes
openssl x509 -in nodes/spiffe___house.example_a.pem -noout -text >out
grep -q "URI:spiffe://house.example/a" out || die "URI identity"
grep -q ED25519 out || die "algorithm"
echo "the authority is sound"
