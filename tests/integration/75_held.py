#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Primaries that are not the copies they should be: written to behind the agent's back, or put back to
an older state. They are held, touch nothing, and go on by the operator's word only."""

import os
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say
from numbered import Plan, Writer, read_uri, verify
from sites import MIB, Pair

SIZE = 4 * MIB
BLOCKS = SIZE // 4096


def write(pair, plan, first, count):
    writer = Writer(plan, [pair.alpha.uri("db", "data")], first=first, limit=first + count - 1, depth=8)
    writer.start()
    check(writer.died() == first + count - 1, f"the writer failed: {writer.error}")
    pair.caught_up("db")
    return first + count


def held(pair, words):
    state = pair.alpha.wait_group("db", "agent", "held", lambda s: s["state"] == "held")
    check(words in state["held"], f"held: {state['held']}")
    time.sleep(1)
    state = pair.alpha.group("db", "agent")
    check(state["state"] == "held", f"a held group is {state['state']}")
    check(not os.path.exists(pair.alpha.nbd_socket("db")), "a held group has a socket")
    table = pair.alpha.cli("status").stdout
    check("held" in table, f"status does not say it:\n{table}")
    status, answer = pair.alpha.control("agent", "POST", "/v1/groups/db/adopt")
    check(status != 200, f"adopt serves a held group: {answer}")
    pair.alpha.wait_group("db", "agent", "held", lambda s: s["state"] == "held")


def behind_its_back(lab):
    say("a volume is written to while the agent is stopped")
    pair = Pair(lab, {"db": {"data": SIZE}}, directory="behind")
    pair.start()
    plan = Plan(1, BLOCKS, seed=75)
    write(pair, plan, 1, 500)
    for _ in range(2):
        pair.alpha.stop_daemon("agent")
        pair.alpha.start_daemon("agent")
        pair.alpha.wait_serving("db")
    pair.alpha.stop_daemon("agent")
    with open(pair.alpha.volume("db", "data"), "r+b") as file:
        file.seek(SIZE - 3 * 4096 + 100)
        file.write(b"somebody else")
    pair.alpha.start_daemon("agent")
    held(pair, "was changed since the clean stop")
    pair.alpha.stop_daemon("agent")
    pair.alpha.start_daemon("agent")
    held(pair, "was changed since the clean stop")
    error = pair.alpha.cli_json("accept", "db", "--yes", "--expect-epoch", "9", ok=(7,))["error"]
    check(error["reason"] == "epoch", f"accept: {error}")
    pair.alpha.cli_json("accept", "db", "--yes", "--expect-epoch", "1")
    state = pair.alpha.wait_serving("db")
    check(state["epoch"] == 3 and not state["held"], f"accepted: {state}")
    pair.beta.wait_streaming("db")
    pair.stop_and_compare()  # what was written behind its back is on both
    with open(pair.beta.volume("db", "data"), "rb") as file:
        check(b"somebody else" in file.read(), "the standby does not have it")


def older(lab, accept):
    say(f"the primary goes back to an older state; {'accepted' if accept else 'the standby is promoted'}")
    pair = Pair(lab, {"db": {"data": SIZE}}, directory="accepted" if accept else "promoted")
    pair.start()
    plan = Plan(1, BLOCKS, seed=76)
    after = write(pair, plan, 1, 300)
    pair.alpha.stop()
    backup = pair.alpha.root + ".backup"
    lab.run("cp", "-a", pair.alpha.root, backup)
    pair.alpha.start()
    pair.alpha.wait_serving("db")
    pair.beta.wait_streaming("db")
    last = write(pair, plan, after, 300) - 1
    pair.alpha.stop()
    shutil.rmtree(pair.alpha.root)
    lab.run("cp", "-a", backup, pair.alpha.root)
    pair.alpha.start()
    held(pair, "older than its standby")
    if accept:
        pair.alpha.cli_json("accept", "db", "--yes", "--expect-epoch", "1")
        pair.alpha.wait_serving("db")
        verify(plan, [read_uri(pair.alpha.uri("db", "data"), BLOCKS)], exactly=after - 1)
        state = pair.beta.wait_group("db", "engine", "diverged", lambda s: s["diverged"])
        check(state["durable_seq"] >= 600, "the standby was written to")
    else:
        error = pair.beta.promote("db", ok=(5,))["error"]  # it cannot see that nobody is served there
        check("primary of epoch 1" in error["text"] and "--force" in error["remedy"], f"{error}")
        answer = pair.beta.promote("db", "--force")
        check(answer["lost"] == {"writes": None, "bytes": None, "seconds": None}, f"known: {answer}")
        check(answer["epoch"] == 2, f"promoted: {answer}")
        verify(plan, [read_uri(pair.beta.uri("db", "data"), BLOCKS)], exactly=last)
        pair.beta.wait_serving("db")
        pair.alpha.wait_streaming("db")
    pair.alpha.stop()
    pair.beta.stop()


def test(lab):
    behind_its_back(lab)
    older(lab, accept=False)
    older(lab, accept=True)


main(test, "75")
