#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The command against two sites on this machine: what each verb says, in words, in JSON and in its
# exit code, from init to promote and the fenced primary.
set -euo pipefail

build=${HOLDFAST_BUILD:?set it to the directory of the programs}
source=${HOLDFAST_SOURCE:?set it to the source tree}
PATH=$build:/usr/bin:$PATH
work=$(mktemp -d)
declare -A pids=()

cleanup() {
	for name in "${!pids[@]}"; do
		kill -KILL "${pids[$name]}" 2>/dev/null || true
	done
	rm -rf "$work"
}
trap cleanup EXIT
cd "$work"

say() { printf -- '--- %s\n' "$*"; }
die() {
	printf 'FAILED: %s\n' "$*" >&2
	tail -n 20 ./*.log >&2 || true
	exit 1
}

# expect CODE COMMAND...: runs it; its exit code must be CODE. Output is left in `out` and `err`.
expect() {
	local want=$1 have=0
	shift
	"$@" >out 2>err || have=$?
	((have == want)) || {
		cat out err
		die "exit code $have instead of $want: $*"
	}
}
has() { grep -qF -- "$2" "$1" || { cat "$1"; die "no '$2' in $1"; }; }
# field FILTER VALUE: what jq finds in `out`.
field() {
	local have
	have=$(jq -r "$1" out)
	[[ $have == "$2" ]] || { cat out; die "$1 is '$have' instead of '$2'"; }
}
# until_true COMMAND...: within 20 s.
until_true() {
	local i
	for ((i = 0; i < 200; i++)); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	die "never true: $*"
}
start() {
	local name=$1
	"holdfast-${name%-*}" -c "${name#*-}.conf" >>"$name.log" 2>&1 &
	pids[$name]=$!
	until_true test -S "${name#*-}/run/${name%-*}.sock"
}
stop() {
	kill -TERM "${pids[$1]}"
	wait "${pids[$1]}" || die "$1 left with $?"
	unset "pids[$1]"
}
free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
is_streaming() { [[ $(holdfast status -c a.conf -o json | jq -r '.groups[0].peers[0].state') == streaming ]]; }
caught_up() {
	local head durable
	head=$(holdfast status -c a.conf -o json | jq .groups[0].head_seq)
	durable=$(holdfast status -c b.conf -o json | jq .groups[0].durable_seq)
	((head == durable && head > 0))
}

say "identities"
expect 0 holdfast pki init --dir pki
for node in alpha.example beta.example; do
	expect 0 holdfast pki issue "$node" --dir pki
done

port_a=$(free_port) port_b=$(free_port) metrics_a=$(free_port) metrics_b=$(free_port)
configure() { # SITE NODE PEER PORT PEER_PORT METRICS
	mkdir -p "$1"
	truncate -s 16M "$1/data.img"
	cat >"$1.conf" <<-END
	node = "$2"
	state_dir = "$work/$1/state"
	run_dir = "$work/$1/run"
	tls {
		ca = "$work/pki/ca.pem"
		cert = "$work/$2.pem"
		key = "$work/$2.key"
		crl = "$work/pki/ca.crl"
	}
	agent { metrics_listen = "127.0.0.1:$6" }
	engine { listen = "127.0.0.1:$4" }
	group "db" {
		journal_size = 16MiB
		journal_file_size = 4MiB
		memory = 16MiB
		settle_timeout = 500ms
		heartbeat = 100ms
		peer_timeout = 1s
		volume "data" { path = "$work/$1/data.img" }
		peer "$3" { address = "127.0.0.1:$5" }
	}
	END
}
configure a alpha.example beta.example "$port_a" "$port_b" "$metrics_a"
configure b beta.example alpha.example "$port_b" "$port_a" "$metrics_b"

say "before anything is there"
expect 0 holdfast config check -c a.conf
has out "ok, node alpha.example, 1 group"
expect 0 holdfast config show -c a.conf
cp out shown.conf
expect 0 holdfast config show -c a.conf -o json
field '.groups[0].peer_timeout_seconds' 1
expect 0 holdfast config check -c shown.conf
expect 6 holdfast status -c a.conf
has err "is the daemon running?"
expect 6 holdfast promote db -c b.conf
expect 9 holdfast status nothing -c a.conf
expect 9 holdfast journal list db -c a.conf
expect 2 holdfast init db -c a.conf
expect 2 holdfast init db --role king -c a.conf
expect 9 holdfast init nothing --role primary -c a.conf

say "init"
expect 0 holdfast init db --role primary -c a.conf
has out "group db is made, as primary"
expect 7 holdfast init db --role primary -c a.conf
has err "has a directory"
expect 0 holdfast init db --role standby -c b.conf -o json
field .role standby
field '.volumes[0].size_bytes' 16777216
expect 0 holdfast status -c a.conf
has out "no daemon"
expect 0 holdfast journal check db -c a.conf
has out "holds no segment"

say "running"
start engine-b
start agent-b
start agent-a
start engine-a
until_true is_streaming
nbdsh -u "nbd+unix:///data?socket=$work/a/run/nbd-db.sock" -c '
import random
random.seed(3)
for i in range(300):
    h.pwrite(random.randbytes(4096), 4096 * random.randrange(4096))
h.flush()'
expect 0 holdfast mark db before-lunch -c a.conf -o json
field .mark before-lunch
field .seq 301
expect 2 holdfast mark db "" -c a.conf
expect 7 holdfast mark db there -c b.conf
until_true caught_up
expect 0 holdfast status -c a.conf
has out "primary serving"
has out "beta.example streaming"
expect 0 holdfast status -c b.conf --check
has out "standby receiving"
expect 0 holdfast status -c b.conf -o json
field '.groups[0].standby.consistent' true
field '.groups[0].protected' true
field '.daemons.agent' true
expect 124 timeout 2 holdfast status -w 1 db -c b.conf
(($(grep -c '^db ' out) >= 2)) || die "status -w drew once"
for site in a b; do
	expect 0 holdfast journal check db -c $site.conf -o json
	field .ok true
	field .last_seq 301
	field .record_count 301
	expect 0 holdfast journal list "$work/$site/state/db" -o json
	field '[.segments[].records] | add' 301
done

say "what TCP may see"
curl -sf "http://127.0.0.1:$metrics_a/metrics" >out
has out 'holdfast_role{group="db",node="alpha.example",role="primary"} 1'
has out 'holdfast_replication_connected{group="db",node="alpha.example",peer="beta.example"} 1'
curl -sf "http://127.0.0.1:$metrics_a/healthz" >out
has out ok
[[ $(curl -s -o out -w '%{http_code}' "http://127.0.0.1:$metrics_a/v1/status") == 404 ]] || die "control on TCP"
[[ $(curl -s -o out -w '%{http_code}' -X POST \
	"http://127.0.0.1:$metrics_a/v1/groups/db/release") == 404 ]] || die "control on TCP"
curl -sf --unix-socket b/run/engine.sock http://x/metrics >out
has out 'holdfast_rpo_seconds{group="db",node="beta.example",peer="alpha.example"}'
has out 'holdfast_consistent{group="db",node="beta.example"} 1'
grep -q 'role="primary"} 1' out && die "the engine claims to be primary"
curl -sf "http://127.0.0.1:$metrics_a/metrics" >>out
while read -r name; do
	has "$source/docs/reference.md" "\`$name\`"
done < <(sed -n 's/^# TYPE \([a-z_]*\) .*/\1/p' out | sort -u)

say "release and adopt"
# control SITE DAEMON CODE PATH: posts; the HTTP status must be CODE.
control() {
	local have
	have=$(curl -sS --unix-socket "$1/run/$2.sock" -X POST -o out -w '%{http_code}' \
		"http://x/v1/groups/$4" 2>err) || true
	[[ $have == "$3" ]] || { cat out err; die "status $have instead of $3: $4 on $1"; }
}
control a agent 200 db/release
field .already false
control a agent 200 db/release
field .already true
cmp a/data.img b/data.img || die "the volumes are not current after a release"
control a agent 200 db/adopt
field .state serving
control a agent 200 db/adopt
field .already true
control b agent 409 db/adopt
field .error.reason not-primary
control a agent 404 none/adopt

say "promote: refused"
until_true is_streaming
expect 5 holdfast promote db -c b.conf
has err "--force"
expect 5 holdfast promote db -c b.conf -o json
jq -e '.error.exit_code == 5 and .error.reason == "primary-alive"' err >/dev/null || die "JSON error"
expect 7 holdfast promote db --expect-epoch 9 --force -c b.conf
expect 2 holdfast promote db --expect-epoch x -c b.conf
expect 0 holdfast promote db -c a.conf
has out "already"

say "promote: the primary is gone"
kill -KILL "${pids[agent-a]}"
unset 'pids[agent-a]'
sleep 0.3
expect 0 holdfast promote db --expect-epoch 1 -c b.conf -o json
field .result promoted
field .epoch 2
field .seq 301
field .served true
field '.lost.writes' 0
uri=$(jq -r '.nbd[0].uri' out)
[[ $(nbdinfo --size "$uri") == 16777216 ]] || die "the promoted volume is not served"
expect 0 holdfast promote db --expect-epoch 1 -c b.conf -o json
field .result already
expect 0 holdfast promote db -c b.conf
has out "already"
has out "$uri"
expect 0 holdfast status -c b.conf
has out "primary serving"
cmp a/data.img b/data.img || die "the copy differs"
expect 0 holdfast journal check db -c b.conf

say "the old primary comes back"
start agent-a
fenced() { [[ $(holdfast status -c a.conf -o json | jq -r '.groups[0].role') == fenced ]]; }
until_true fenced
expect 0 holdfast status -c a.conf
has out "epoch 2 rules at beta.example"
expect 4 holdfast status --check -c a.conf
expect 5 holdfast promote db --force -c a.conf
nbdinfo "nbd+unix:///data?socket=$work/a/run/nbd-db.sock" >/dev/null 2>&1 && die "a fenced primary serves"
expect 4 holdfast doctor -c a.conf -o json
field '[.checks[] | select(.check == "group db")][0].result' warn

say "clean stop"
for name in agent-a engine-a agent-b engine-b; do
	stop "$name"
done
[[ -z $(find a/run b/run -name 'agent.sock' -o -name 'engine.sock') ]] || die "sockets are left"
expect 0 holdfast journal check db -c b.conf

say "a daemon that cannot start says why"
start agent-a
expect 1 holdfast-agent -c a.conf
has err "another daemon of this configuration runs"
stop agent-a
chmod 644 alpha.example.key
expect 1 holdfast-agent -c a.conf
has err alpha.example.key
expect 4 holdfast doctor -c a.conf
has out alpha.example.key
chmod 600 alpha.example.key
sed -i 's/^node = .*/node = "other.example"/' a.conf
expect 1 holdfast-agent -c a.conf
has err "another node's"
expect 2 holdfast-agent -c none.conf
expect 2 holdfast-agent --nonsense
echo "all verbs behave"
