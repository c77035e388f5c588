#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A long outage of the standby: the small journal fills, the primary's I/O goes on, the standby is
resynchronised when it is back, and both are equal."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say, wait_for
from numbered import Plan, Writer, read_file, read_uri, verify
from sites import MIB, Pair

SIZE = 12 * MIB
BLOCKS = SIZE // 4096
SMALL = {"journal_size": "16MiB", "journal_file_size": "4MiB", "memory": "16MiB"}


def longest_pause(writer, until):
    """Seconds for which the writer made no progress, at most, until `until()`."""
    worst, since, last = 0.0, time.monotonic(), writer.acked
    while not until():
        time.sleep(0.01)
        now = time.monotonic()
        if writer.acked != last:
            last, since = writer.acked, now
        worst = max(worst, now - since)
        check(writer.error is None, f"the primary's client failed: {writer.error}")
        check(now - since < 10, f"no write for 10 s at write {last}")
    return worst


def outage(pair, writer):
    start = writer.acked
    began = time.monotonic()
    pair.beta.kill_daemon("engine")

    def journal_full():
        peer = pair.alpha.group("db", "agent")["peers"][0]
        return peer["needs_sync"] and writer.acked - start > 12000

    worst = longest_pause(writer, journal_full)
    state = pair.alpha.group("db", "agent")
    say(f"{writer.acked - start} writes while the standby was away; longest pause {worst:.2f} s; "
        f"journal {state['journal']['used_bytes'] >> 20} of {state['journal']['size_bytes'] >> 20} MiB")
    check(worst < 5, f"the primary stood still for {worst:.1f} s")
    lag, away = state["peers"][0]["lag"], time.monotonic() - began
    check(lag["writes"] > 10000, f"the lag is not told: {lag}")
    check(away - 0.5 < lag["seconds"] < away + 2, f"away for {away:.1f} s, and told is {lag}")


def test(lab):
    pair = Pair(lab, {"db": {"data": SIZE}}, SMALL)
    pair.start()
    plan = Plan(1, BLOCKS, seed=47)
    uri = pair.alpha.uri("db", "data")
    writer = Writer(plan, [uri], depth=16)
    writer.start()
    pair.beta.wait_group("db", "engine", "1000 writes", lambda s: s["durable_seq"] > 1000)
    for number in range(2):
        outage(pair, writer)
        if number:
            say("the agent is killed while its journal has been released into the dirty map")
            pair.alpha.kill_daemon("agent")
            acked = writer.died()
            pair.alpha.start_daemon("agent")
            pair.alpha.wait_serving("db")
            last = verify(plan, [read_uri(uri, BLOCKS)], at_least=acked)
            writer = Writer(plan, [uri], first=last + 1, depth=16)
            writer.start()
        pair.beta.start_daemon("engine")
        worst = longest_pause(writer, lambda: (pair.beta.group("db", "engine") or {"standby": {
            "connected": False, "consistent": False}})["standby"]["consistent"])
        say(f"resynchronised under load; longest pause {worst:.2f} s")
        check(worst < 5, f"the primary stood still for {worst:.1f} s")
        wait_for("the peer to be in the journal again",
                 lambda: not pair.alpha.group("db", "agent")["peers"][0]["needs_sync"])
    last = writer.stop()
    pair.stop_and_compare()
    verify(plan, [read_file(pair.beta.volume("db", "data"), BLOCKS)], exactly=last)


main(test, "47")
