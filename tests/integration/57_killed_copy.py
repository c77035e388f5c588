#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The first copy and a resync, with both sides killed again and again while clients write: never promoted
half, in the end equal. Then the standby's disk is lost and replaced by an empty, larger one."""

import os
import random
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say, wait_for
from numbered import Plan, Writer, read_file, read_uri, verify
from sites import MIB, Pair

SIZE = 8 * MIB
BLOCKS = SIZE // 4096
BULK = 48 * MIB
SMALL = {"journal_size": "32MiB", "journal_file_size": "4MiB", "memory": "16MiB"}


class Load:
    """A writer that survives its server: it goes on where the recovered volume is."""

    def __init__(self, pair, plan):
        self.pair, self.plan = pair, plan
        self.writer = None
        self.start(1)

    def start(self, first):
        self.writer = Writer(self.plan, [self.pair.alpha.uri("db", "data")], first=first, depth=8, rate=1000)
        self.writer.start()

    def kill_agent(self):
        self.pair.alpha.kill_daemon("agent")
        acked = self.writer.died()
        self.pair.alpha.start_daemon("agent")
        self.pair.alpha.wait_serving("db")
        uri = self.pair.alpha.uri("db", "data")
        self.start(verify(self.plan, [read_uri(uri, BLOCKS)], at_least=acked) + 1)


def copying(pair):
    state = pair.beta.group("db", "engine")
    return state is not None and not state["standby"]["consistent"]


def torment(pair, load, dice, rounds, promote=True):
    """Kills one side or the other while the copy is under way."""
    kills = refused = 0
    for number in range(rounds):
        time.sleep(dice.uniform(0.1, 0.7))
        if not copying(pair):
            break
        if promote and number % 3 == 2:
            answer = pair.beta.promote("db", "--force", ok=(5, 7))
            refused += answer["error"]["exit_code"] == 5
        if number % 2:
            load.kill_agent()
        else:
            pair.beta.kill_daemon("engine")
            pair.beta.start_daemon("engine")
        kills += 1
    return kills, refused


def first_copy(lab, pair, dice):
    say("the first copy, both sides killed in turn")
    with open(pair.alpha.volume("db", "bulk"), "r+b") as file:
        file.write(random.Random(57).randbytes(BULK))
    pair.alpha.peer_options = {"sync_rate": "8MiB"}
    pair.alpha.write_conf()
    pair.init()
    pair.alpha.start()
    pair.alpha.wait_serving("db")
    load = Load(pair, Plan(1, BLOCKS, seed=57))
    pair.beta.start()
    kills, refused = torment(pair, load, dice, 8)
    pair.beta.wait_streaming("db", 60)
    say(f"  {kills} kills, {refused} promotions refused; consistent")
    check(kills >= 5 and refused >= 1, "the copy was over too soon")
    return load


def resync(pair, load, dice):
    say("a resync behind a full journal, both sides killed in turn")
    pair.beta.kill_daemon("engine")
    load.writer.rate = None
    wait_for("the journal to be released",
             lambda: pair.alpha.group("db", "agent")["peers"][0]["needs_sync"], 60)
    time.sleep(1)
    load.kill_agent()
    pair.beta.start_daemon("engine")
    # From here on there is a position to go back to: 76_kept_position.py goes there.
    kills, _ = torment(pair, load, dice, 4, promote=False)
    pair.beta.wait_streaming("db", 60)
    say(f"  {kills} kills; consistent")
    wait_for("the peer to be in the journal again",
             lambda: not pair.alpha.group("db", "agent")["peers"][0]["needs_sync"], 60)


def equal(pair, load):
    last = load.writer.stop()
    pair.caught_up("db", 60)
    pair.alpha.stop()
    pair.beta.stop()
    for volume in ("data", "bulk"):
        done = pair.lab.run("cmp", "-n", str(os.path.getsize(pair.alpha.volume("db", volume))),
                            pair.alpha.volume("db", volume), pair.beta.volume("db", volume), ok=None)
        check(done.returncode == 0, f"{volume}: {done.stdout}{done.stderr}")
    verify(load.plan, [read_file(pair.beta.volume("db", "data"), BLOCKS)], exactly=last)
    return last


def replaced(pair, last, plan):
    say("the standby's disk is replaced by an empty, larger one")
    shutil.rmtree(pair.beta.group_dir("db"))
    for volume, size in (("data", SIZE + 3 * MIB), ("bulk", BULK + 5 * MIB)):
        os.unlink(pair.beta.volume("db", volume))
        with open(pair.beta.volume("db", volume), "wb") as file:
            file.truncate(size)
    pair.alpha.peer_options = {}
    pair.alpha.write_conf()
    pair.beta.init("standby")
    pair.beta.start()
    pair.alpha.start()
    pair.alpha.wait_serving("db")
    pair.beta.wait_streaming("db", 60)
    pair.alpha.kill()
    answer = pair.beta.promote_after_loss("db")
    sizes = {entry["volume"]: entry["size_bytes"] for entry in answer["nbd"]}
    check(sizes == {"data": SIZE, "bulk": BULK}, f"the volumes' sizes are the primary's: {sizes}")
    verify(plan, [read_uri(pair.beta.uri("db", "data"), BLOCKS)], exactly=last)
    pair.beta.stop()


def test(lab):
    dice = random.Random(57)
    pair = Pair(lab, {"db": {"data": SIZE, "bulk": BULK}}, SMALL)
    load = first_copy(lab, pair, dice)
    resync(pair, load, dice)
    last = equal(pair, load)
    replaced(pair, last, load.plan)


main(test, "57")
