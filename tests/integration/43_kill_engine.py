#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the engine under load, again and again: it resumes, no gap, no duplicate effect."""

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say
from numbered import Plan, Writer, read_file, read_uri, verify
from sites import MIB, Pair

SIZE = 8 * MIB
ROUNDS = 8


def test(lab):
    pair = Pair(lab, {"db": {"data": SIZE}}, {"journal_size": "128MiB"})
    pair.start()
    plan = Plan(1, SIZE // 4096, seed=43)
    uri = pair.alpha.uri("db", "data")
    writer = Writer(plan, [uri], depth=16, flush_every=200, rate=1500)
    writer.start()
    dice = random.Random(43)
    durable = 0
    for number in range(ROUNDS):
        time.sleep(dice.uniform(0.1, 0.8))
        before = pair.beta.group("db", "engine")
        acked = pair.alpha.group("db", "agent")["peers"][0]["durable_seq"]
        pair.beta.kill_daemon("engine")
        written = writer.acked
        if number % 2:
            time.sleep(0.3)
        pair.beta.start_daemon("engine")
        state = pair.beta.wait_streaming("db")
        check(state["durable_seq"] >= max(acked, before["durable_seq"], durable),
              f"the standby had acknowledged seq {acked} and came back with {state['durable_seq']}")
        durable = state["durable_seq"]
        check(writer.error is None, f"the primary's clients noticed: {writer.error}")
        say(f"killed at seq {before['durable_seq']}, resumed; the writer is at {written}")
    last = writer.stop()
    check(last > 500, f"only {last} writes were made")
    peer = pair.alpha.group("db", "agent")["peers"][0]
    check(not peer["needs_sync"], "the standby was copied anew instead of resumed")
    check(peer["reconnects"] >= ROUNDS, f"{peer['reconnects']} reconnects for {ROUNDS} kills")
    verify(plan, [read_uri(uri, SIZE // 4096)], exactly=last)
    pair.stop_and_compare()
    verify(plan, [read_file(pair.beta.volume("db", "data"), SIZE // 4096)], exactly=last)
    gaps = 0
    seq = None
    for document in pair.beta.decode("db", "journal", "--from", "oldest"):
        if "end" not in document:
            gaps += seq is not None and document["first_seq"] != seq + 1
            seq = document["last_seq"]
    check(gaps == 0 and seq == last, f"{gaps} gaps; the journal ends at {seq}, not at {last}")


main(test, "43")
