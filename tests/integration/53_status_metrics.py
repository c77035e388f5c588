#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What status and metrics say, held against reality: positions, counters, and an RPO that grows by the
clock while the standby is stopped; on the standby while nothing is heard."""

import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import nbd
from lab import check, free_port, main, say, wait_for
from numbered import Plan, Writer
from sites import MIB, Pair

SIZE = 8 * MIB


def metrics(site, which):
    """{(name, labels): value} of a daemon's /metrics over TCP, with its form checked."""
    port = site.top[which]["metrics_listen"].rpartition(":")[2]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        check(reply.headers["Content-Type"].startswith("text/plain; version=0.0.4"), "content type")
        text = reply.read().decode()
    found, typed = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            check(line.split()[2] not in typed, f"typed twice: {line}")
            typed.add(line.split()[2])
        elif not line.startswith("#"):
            match = re.fullmatch(r'([a-z_]+)(?:\{(.*)\})? (\S+)', line)
            check(match and match[1] in typed, f"no sample: {line}")
            check((match[1], match[2]) not in found, f"twice: {line}")
            found[match[1], match[2]] = float(match[3])
    return found


def value(found, name, **labels):
    wanted = [f'{key}="{text}"' for key, text in labels.items()]
    hits = [v for (n, l), v in found.items() if n == name and all(w in l for w in wanted)]
    check(len(hits) == 1, f"{name} {labels}: {len(hits)} samples")
    return hits[0]


def documents(pair):
    say("status as a table, as JSON, of one group, of none")
    both = pair.alpha.cli_json("status"), pair.beta.cli_json("status")
    for site, document in zip((pair.alpha, pair.beta), both):
        check(document["node"] == site.node and document["version"], f"{document}")
        groups = {group["group"]: group for group in document["groups"]}
        check(set(groups) == {"db"} and len(document["groups"]) == 1, f"one entry per group: {document}")
    check(both[0]["groups"][0]["role"] == "primary" and both[1]["groups"][0]["role"] == "standby", "roles")
    check(both[0]["groups"][0]["uuid"] == both[1]["groups"][0]["uuid"], "one group, two uuids")
    table = pair.alpha.cli("status").stdout
    for word in ("db", "primary", "serving", pair.beta.node, "streaming"):
        check(word in table, f"{word} is not in the table:\n{table}")
    table = pair.beta.cli("status", "db").stdout
    for word in ("standby", "receiving", pair.alpha.node):
        check(word in table, f"{word} is not in the table:\n{table}")
    pair.alpha.cli("status", "nix", ok=(9,))
    check(pair.alpha.cli("status", "--check").returncode == 0, "protected, and --check says no")


def counters(pair):
    say("counters count what was done")
    before = pair.alpha.group("db", "agent")
    writer = Writer(Plan(1, SIZE // 4096, seed=53), [pair.alpha.uri("db", "data")], limit=700, flush_every=70)
    writer.start()
    check(writer.died() == 700 and not writer.error, f"{writer.error}")
    handle = nbd.NBD()
    handle.connect_uri(pair.alpha.uri("db", "data"))
    for number in range(25):
        handle.pread(8192, number * 8192)
    handle.shutdown()
    theirs = pair.caught_up("db")
    ours = pair.alpha.group("db", "agent")
    grown = {key: ours["counters"][key] - before["counters"][key] for key in before["counters"]}
    for key, wanted in (("writes", 700), ("written_bytes", 700 * 4096), ("reads", 25), ("read_bytes", 25 * 8192),
                        ("flushes", 10), ("errors", 0)):
        check(grown[key] == wanted, f"{key} grew by {grown[key]}, not {wanted}")
    check(ours["head_seq"] == before["head_seq"] + 700, "head")
    peer = ours["peers"][0]
    wait_for("acknowledgements", lambda: pair.alpha.group("db", "agent")["peers"][0]["durable_seq"] == ours["head_seq"])
    check(theirs["durable_seq"] == ours["head_seq"], "the standby's durable seq is not the head")
    check(theirs["counters"]["received_segments"] == peer["sent_segments"], "segments sent and received")
    exported = metrics(pair.alpha, "agent")
    check(value(exported, "holdfast_writes_total", group="db") == ours["counters"]["writes"], "writes_total")
    check(value(exported, "holdfast_head_seq", group="db") == ours["head_seq"], "head_seq")
    check(value(exported, "holdfast_replication_connected", peer=pair.beta.node) == 1, "connected")
    check(value(exported, "holdfast_protected", group="db") == 1, "protected")
    check(value(exported, "holdfast_role", role="primary") == 1, "role")
    exported = metrics(pair.beta, "engine")
    check(value(exported, "holdfast_durable_seq", group="db") == ours["head_seq"], "the standby's durable_seq")
    check(value(exported, "holdfast_consistent", group="db") == 1, "consistent")
    for site, daemon in ((pair.alpha, "agent"), (pair.beta, "engine")):
        port = site.top[daemon]["metrics_listen"].rpartition(":")[2]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as reply:
            check(reply.status == 200, "healthz")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status", timeout=5)
            check(False, "the control API answers on TCP")
        except urllib.error.HTTPError as error:
            check(error.code in (403, 404), f"the control API on TCP: {error.code}")


def rpo(pair):
    """The engine is stopped, not killed: its sockets stay open, as with a hung host."""
    say("the standby hangs: the primary's RPO grows by the clock, the standby is called disconnected")
    writer = Writer(Plan(1, SIZE // 4096, seed=54), [pair.alpha.uri("db", "data")], rate=100)
    writer.start()
    time.sleep(0.5)
    quiet = pair.alpha.group("db", "agent")["peers"][0]["lag"]["seconds"]
    check(quiet < 0.5, f"behind by {quiet} s while all is well")
    os.kill(pair.beta.pid("engine"), signal.SIGSTOP)
    began = time.monotonic()
    samples = []
    for _ in range(8):
        time.sleep(0.4)
        lag = pair.alpha.group("db", "agent")["peers"][0]["lag"]
        samples.append((time.monotonic() - began, lag["seconds"], lag["writes"], lag["bytes"]))
    for away, seconds, writes, size in samples[1:]:
        check(abs(seconds - away) < 0.5, f"away for {away:.2f} s, and told are {seconds:.2f} s")
        check(size == writes * 4096, f"{writes} writes, {size} bytes")
    check(samples[-1][2] > samples[0][2] + 150, f"the writes that are missing do not grow: {samples}")
    state = pair.alpha.group("db", "agent")["peers"][0]
    check(not state["connected"] and state["error"], "a silent standby counts as connected after peer_timeout")
    exported = metrics(pair.alpha, "agent")
    check(value(exported, "holdfast_rpo_seconds", peer=pair.beta.node) > 2.5, "rpo_seconds")
    check(value(exported, "holdfast_protected", group="db") == 0, "protected by a standby that is away")
    check(pair.alpha.cli("status", "--check", ok=(4,)).returncode == 4, "--check")
    os.kill(pair.beta.pid("engine"), signal.SIGCONT)
    pair.beta.wait_streaming("db")
    wait_for("the lag to go", lambda: pair.alpha.group("db", "agent")["peers"][0]["lag"]["seconds"] < 0.3)

    say("the primary hangs: the standby's own RPO grows by the clock")
    os.kill(pair.alpha.pid("agent"), signal.SIGSTOP)
    began = time.monotonic()
    samples = []
    for _ in range(6):
        time.sleep(0.4)
        state = pair.beta.group("db", "engine")["standby"]
        samples.append((time.monotonic() - began, state["lag"]["seconds"], state["heard_seconds_ago"]))
    os.kill(pair.alpha.pid("agent"), signal.SIGCONT)
    for away, seconds, heard in samples[1:]:
        check(abs(seconds - away) < 0.6, f"nothing heard for {away:.2f} s, and told are {seconds} s: {samples}")
        check(abs(heard - away) < 0.4, f"nothing heard for {away:.2f} s, told is {heard}")
    writer.died() if writer.error else writer.stop()
    pair.beta.wait_streaming("db")


def test(lab):
    pair = Pair(lab, {"db": {"data": SIZE}}, {"rpo_objective": "2s"})
    for site in (pair.alpha, pair.beta):
        site.top = {daemon: {"metrics_listen": f"127.0.0.1:{free_port()}"} for daemon in ("agent", "engine")}
        site.write_conf()
    pair.start()
    documents(pair)
    counters(pair)
    rpo(pair)
    pair.stop_and_compare()


main(test, "53")
