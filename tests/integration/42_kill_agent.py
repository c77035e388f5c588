#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the agent under load, again and again, in both cache modes.

Nothing acknowledged may be missing afterwards: a killed agent is not a lost disk. The standby goes on
where it was, and ends equal.
"""

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say
from numbered import Plan, Writer, read_uri, verify
from sites import MIB, Pair

SIZE = 8 * MIB
ROUNDS = 6


def fio_verify(lab, pair):
    """A whole fio run, a kill right behind its end, and fio's own verification of every block."""
    job = ["fio", "--name=v", "--ioengine=nbd", "--uri=" + pair.alpha.uri("db", "fio"), "--rw=randwrite",
           "--bs=4k", "--iodepth=16", f"--size={SIZE}", "--verify=crc32c", "--verify_fatal=1",
           "--randseed=42"]
    lab.run(*job, "--do_verify=0", cwd=lab.dir)
    pair.alpha.kill_daemon("agent")
    pair.alpha.start_daemon("agent")
    pair.alpha.wait_serving("db")
    lab.run(*job, "--verify_only", cwd=lab.dir)


def one_mode(lab, cache):
    pair = Pair(lab, {"db": {"data": SIZE, "fio": SIZE}}, {"cache": cache}, directory=cache)
    pair.start()
    plan = Plan(1, SIZE // 4096, seed=42)
    dice = random.Random(42)
    first = 1
    for number in range(ROUNDS):
        writer = Writer(plan, [pair.alpha.uri("db", "data")], first=first, depth=16,
                        flush_every=(0, 50)[number % 2])
        writer.start()
        time.sleep(dice.uniform(0.3, 1.2))
        pair.alpha.kill_daemon("agent")
        acked = writer.died()
        check(acked > first, "nothing was written in this round")
        pair.alpha.start_daemon("agent")
        state = pair.alpha.wait_serving("db")
        last = verify(plan, [read_uri(pair.alpha.uri("db", "data"), SIZE // 4096)], at_least=acked)
        check(last < writer.next, "a write is there that was never made")
        check(state["head_seq"] == last, f"write {last} is there, the head is {state['head_seq']}")
        say(f"cache = {cache}: killed at write {writer.next - 1}, acknowledged {acked}, found {last}")
        first = last + 1
    pair.beta.wait_streaming("db")
    pair.caught_up("db")
    verify(plan, [read_uri(pair.alpha.uri("db", "data"), SIZE // 4096)], exactly=first - 1)
    for site, daemon in ((pair.alpha, "agent"), (pair.beta, "engine")):
        state = site.group("db", daemon)
        check(state["head_bytes"] == 4096 * (first - 1), f"{site.name} counts {state['head_bytes']} bytes")
    fio_verify(lab, pair)
    pair.beta.wait_streaming("db")
    pair.stop_and_compare()


def test(lab):
    for cache in ("writeback", "writethrough"):
        one_mode(lab, cache)


main(test, "42", tools=("fio",))
