#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A clean stop leaves the volume current, at any load, and the log says so; the daemons may be started
and stopped in any order; release hands a volume back without stopping the agent."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say
from numbered import Plan, Writer, read_file, verify
from sites import MIB, Pair

SIZE = 8 * MIB
BLOCKS = SIZE // 4096


def stop_under_load(pair, plan, first, signal_number):
    """Stops the agent while it is written to: all that was acknowledged is in the raw file."""
    writer = Writer(plan, [pair.alpha.uri("db", "data")], first=first, depth=8)
    writer.start()
    time.sleep(0.7)
    before = len(pair.alpha.log_text("agent"))
    process = pair.alpha.processes["agent"]
    process.send_signal(signal_number)
    check(process.wait(20) == 0, f"the agent ended with status {process.returncode}")
    pair.alpha.processes.pop("agent")
    acked = writer.died()
    last = verify(plan, [read_file(pair.alpha.volume("db", "data"), BLOCKS)], at_least=acked)
    text = pair.alpha.log_text("agent")[before:].lower()
    check("current" in text or "clean" in text, f"the log does not say that the volumes are current:\n{text}")
    superblock = pair.alpha.decode("db", "superblock")[0]
    check(superblock["applied_seq"] == superblock["durable_seq"] == last,
          f"write {last}, and the superblock says {superblock['applied_seq']}, {superblock['durable_seq']}")
    say(f"stopped by signal {signal_number}: acknowledged {acked}, in the file {last}")
    return last


def test(lab):
    pair = Pair(lab, {"db": {"data": SIZE}})
    pair.start()
    plan = Plan(1, BLOCKS, seed=52)
    last = stop_under_load(pair, plan, 1, signal.SIGTERM)
    pair.alpha.start_daemon("agent")
    pair.alpha.wait_serving("db")
    last = stop_under_load(pair, plan, last + 1, signal.SIGINT)

    say("the standby's engine stops cleanly, too, and both are equal")
    pair.alpha.start_daemon("agent")
    pair.alpha.wait_serving("db")
    pair.beta.wait_streaming("db")
    pair.stop_and_compare()
    verify(plan, [read_file(pair.beta.volume("db", "data"), BLOCKS)], exactly=last)

    say("the primary alone: its standby is away at start and at stop")
    pair.alpha.start()
    pair.alpha.wait_serving("db")
    last = stop_under_load(pair, plan, last + 1, signal.SIGTERM)

    say("release: the group is handed back, the agent lives on")
    pair.alpha.start_daemon("agent")
    pair.alpha.wait_serving("db")
    writer = Writer(plan, [pair.alpha.uri("db", "data")], first=last + 1, limit=last + 200)
    writer.start()
    check(writer.died() == last + 200, f"{writer.error}")
    status, answer = pair.alpha.control("agent", "POST", "/v1/groups/db/release")
    check(status == 200 and answer["state"] == "stopped", f"release: {status} {answer}")
    last = verify(plan, [read_file(pair.alpha.volume("db", "data"), BLOCKS)], exactly=last + 200)
    check(pair.alpha.control("agent", "POST", "/v1/groups/db/release")[1]["already"], "released twice")
    status, answer = pair.alpha.control("agent", "POST", "/v1/groups/db/adopt")
    check(status == 200 and answer["state"] == "serving", f"adopt: {status} {answer}")
    pair.beta.start_daemon("engine")
    pair.beta.start_daemon("agent")
    pair.beta.wait_streaming("db")
    pair.stop_and_compare()
    verify(plan, [read_file(pair.beta.volume("db", "data"), BLOCKS)], exactly=last)


main(test, "52")
