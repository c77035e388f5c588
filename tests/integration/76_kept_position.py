#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The primary dies in the middle of a resync: promote goes to the position of before the resync, exactly.
Once as it is, once with the engine killed during the copy and again during the roll back, once by the
way of a log without room."""

import glob
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say, wait_for
from numbered import Plan, Writer, read_uri, verify
from sites import MIB, Pair

SIZE = 96 * MIB
BLOCKS = SIZE // 4096
SMALL = {"journal_size": "16MiB", "journal_file_size": "4MiB", "memory": "16MiB"}


def kept(pair):
    state = pair.beta.group("db", "engine")
    return state and state["standby"]["kept"]


def resync_begins(pair, writer):
    """A standby that was away for longer than the journal; it is being copied to, slowly."""
    writer.start()
    pair.beta.wait_group("db", "engine", "1000 writes", lambda s: s["durable_seq"] > 1000)
    pair.beta.kill_daemon("engine")
    wait_for("the journal to be released",
             lambda: pair.alpha.group("db", "agent")["peers"][0]["needs_sync"] and writer.acked > 12000, 60)
    writer.rate, writer.first, writer.began = 300, writer.next, time.monotonic()
    pair.beta.start_daemon("engine")
    wait_for("the position to be kept", lambda: kept(pair), 30)
    return kept(pair)["seq"]


def some_of_it(pair, saved):
    wait_for("the copy to go on", lambda: kept(pair) and kept(pair)["undo_saved_bytes"] > saved, 30)
    return kept(pair)["undo_saved_bytes"]


def promoted(pair, plan, seq, *args):
    began = time.monotonic()
    answer = pair.beta.promote("db", *args, seconds=60)
    took = time.monotonic() - began
    check(answer["seq"] == seq, f"promoted at {answer['seq']}, kept was {seq}")
    check(answer["lost"]["writes"] > 0, f"the loss is not told: {answer}")
    verify(plan, [read_uri(pair.beta.uri("db", "data"), BLOCKS)], exactly=seq)
    check(not glob.glob(os.path.join(pair.beta.group_dir("db"), "undo.*")), "the undo log is still there")
    pair.beta.stop()
    return took


def new_pair(lab, name, **more):
    pair = Pair(lab, {"db": {"data": SIZE}}, dict(SMALL, **more), directory=name)
    pair.alpha.peer_options = {"sync_rate": "2MiB"}
    pair.alpha.write_conf()
    pair.start()
    plan = Plan(1, BLOCKS, seed=76)
    return pair, plan, Writer(plan, [pair.alpha.uri("db", "data")], depth=8)


def primary_dies(lab):
    say("the primary dies in the middle of a resync")
    pair, plan, writer = new_pair(lab, "dies")
    seq = resync_begins(pair, writer)
    saved = some_of_it(pair, 4 * MIB)
    pair.alpha.kill()
    writer.died()
    pair.beta.wait_group("db", "engine", "the loss to be noticed", lambda s: not s["standby"]["connected"])
    took = promoted(pair, plan, seq)
    say(f"  back to {seq} of {writer.acked} writes: {saved >> 20} MiB, promoted in {took:.2f} s")


def engine_dies_too(lab):
    say("the engine is killed during the copy, and during the roll back")
    pair, plan, writer = new_pair(lab, "engine")
    seq = resync_begins(pair, writer)
    saved = 0
    for _ in range(3):
        saved = some_of_it(pair, saved)
        pair.beta.kill_daemon("engine")
        pair.beta.start_daemon("engine")
        wait_for("the position to be there", lambda: kept(pair), 30)
        check(kept(pair)["seq"] == seq, f"kept was {seq}, and now {kept(pair)}")
    some_of_it(pair, saved)
    pair.alpha.kill()
    writer.died()
    for delay in (0.02, 0.05):
        process = pair.lab.spawn([os.path.join(os.environ.get("HOLDFAST_BUILD", "build"), "holdfast"), "promote",
                                  "db", "-c", pair.beta.conf, "--yes", "--force"],
                                 os.path.join(pair.beta.root, "promote.log"))
        time.sleep(delay)
        pair.beta.kill_daemon("engine")
        process.wait(30)
        pair.beta.start_daemon("engine")
    state = pair.beta.group("db", "engine")
    if state["role"] == "standby":
        wait_for("the start to finish the roll back", lambda: pair.beta.group("db", "engine")["state"] == "waiting"
                 or pair.beta.group("db", "engine")["role"] != "standby", 30)
        pair.beta.promote("db", "--force", ok=(0, 7))
    pair.beta.wait_serving("db")
    verify(plan, [read_uri(pair.beta.uri("db", "data"), BLOCKS)], exactly=seq)
    pair.beta.stop()


def no_room(lab):
    say("an undo log without room: the copy waits, the stream does not; given up, it goes on")
    pair, plan, writer = new_pair(lab, "room", undo_limit="64MiB")
    pair.alpha.peer_options = {}
    pair.alpha.write_conf()
    pair.alpha.stop_daemon("agent")
    pair.alpha.start_daemon("agent")
    pair.alpha.wait_serving("db")
    pair.beta.stop_daemon("engine")
    with open(pair.beta.volume("db", "data"), "r+b") as file:
        file.write(os.urandom(SIZE))  # what was there before, in the eyes of the log: it does not pack
    pair.beta.start_daemon("engine")
    writer = Writer(plan, [pair.alpha.uri("db", "data")], depth=8)
    resync_begins(pair, writer)
    wait_for("the log to be full", lambda: kept(pair) and kept(pair)["undo_full"], 60)
    time.sleep(1.5)
    check(kept(pair)["undo_full"], "it is not full any more")
    check(kept(pair)["undo_bytes"] <= 64 * MIB, f"beyond its limit: {kept(pair)}")
    check(pair.beta.group("db", "engine")["standby"]["connected"], "the session has ended")
    pair.beta.cli("resync", "db", "--drop-kept", "--yes")
    pair.beta.wait_group("db", "engine", "the copy to be whole", lambda s: s["standby"]["consistent"], 60)
    check(not kept(pair), "there is a kept position still")
    writer.stop()
    pair.caught_up("db", 60)
    pair.alpha.stop()
    pair.beta.stop()


def test(lab):
    primary_dies(lab)
    engine_dies_too(lab)
    no_room(lab)


main(test, "76")
