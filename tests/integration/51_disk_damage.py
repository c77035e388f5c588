#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Damage on the disk: a flipped byte in a journal or a superblock is refused and named, never served;
and a torn end, which a crash may leave, is not taken for damage."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import nbd
from lab import check, main, say
from numbered import Plan, Writer, read_uri, verify
from sites import MIB, Pair

BLOCKS = 4 * MIB // 4096
PLAN = Plan(1, BLOCKS, seed=51)


def written(lab, name):
    """A pair with some history that was killed: its journals are still needed."""
    pair = Pair(lab, {"db": {"data": 4 * MIB}}, {"checkpoint_interval": "1h"}, directory=name)
    pair.start()
    writer = Writer(PLAN, [pair.alpha.uri("db", "data")], limit=600, flush_every=20)
    writer.start()
    check(writer.died() == 600 and not writer.error, f"{writer.error}")
    pair.caught_up("db")
    pair.alpha.kill()
    pair.beta.kill()
    return pair


def segments(site):
    return [d for d in site.decode("db", "journal") if "end" not in d]


def flip(path, offset, mask=0x10):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def journal_file(site, slot):
    return os.path.join(site.group_dir("db"), "journal", f"{slot:08d}")


def refused(site, daemon, words, what):
    """The daemon runs, but does not open the group, and names the place."""
    site.start_daemon(daemon)
    state = site.wait_group("db", daemon, f"{what}: failed", lambda s: s["state"] == "failed")
    text = state["detail"] + site.log_text(daemon)
    for word in words:
        check(word in text, f"{what}: {daemon} does not say {word}: {state['detail']}")
    say(f"  {daemon}: {state['detail']}")
    if daemon == "agent":
        try:
            nbd.NBD().connect_uri(site.uri("db", "data"))
            check(False, f"{what}: a damaged group is served")
        except nbd.Error:
            pass
    site.stop_daemon(daemon)


def named(site, words, what):
    """holdfast journal check finds it, too, and exits with 4."""
    done = site.cli("journal", "check", "db", ok=(4,))
    for word in words:
        check(word in done.stdout + done.stderr, f"{what}: journal check: {done.stdout}{done.stderr}")


def damaged(lab, role, what, place):
    say(f"{role}: {what}")
    pair = written(lab, f"{role}-{what.replace(' ', '-')}")
    site, daemon = (pair.alpha, "agent") if role == "primary" else (pair.beta, "engine")
    list_of = segments(site)
    check(len(list_of) > 20, f"only {len(list_of)} segments")
    segment = list_of[len(list_of) // 2]
    check(site.cli("journal", "check", "db").returncode == 0, "a good journal is called damaged")
    path = journal_file(site, segment["slot"])
    flip(path, segment["offset"] + place)
    words = [os.path.join("journal", os.path.basename(path)), str(segment["offset"])]
    named(site, words, what)
    refused(site, daemon, words, what)
    flip(path, segment["offset"] + place)
    if role == "primary":
        site.start_daemon("agent")
        site.wait_serving("db")
        verify(PLAN, [read_uri(site.uri("db", "data"), BLOCKS)], exactly=600)
        site.stop()


def torn(lab):
    say("the end of the journal is torn: recovered, not refused")
    pair = written(lab, "torn")
    last = segments(pair.alpha)[-1]
    path = journal_file(pair.alpha, last["slot"])
    with open(path, "r+b") as file:
        file.seek(last["offset"] + last["total"])
        file.write(os.urandom(4096 * 3))
    check(pair.alpha.cli("journal", "check", "db").returncode == 0, "a torn end is called damage")
    pair.alpha.start_daemon("agent")
    pair.alpha.wait_serving("db")
    verify(PLAN, [read_uri(pair.alpha.uri("db", "data"), BLOCKS)], exactly=600)
    pair.alpha.stop()


def superblock(lab):
    say("one copy of the superblock is damaged: the other one serves; both: refused")
    pair = written(lab, "superblock")
    path = os.path.join(pair.alpha.group_dir("db"), "superblock")
    with open(path, "rb") as file:
        good = file.read()
    flip(path, 100)
    pair.alpha.start_daemon("agent")
    state = pair.alpha.wait_group("db", "agent", "served or failed", lambda s: s["state"] in ("serving", "failed"))
    check(state["state"] == "serving", f"one of two copies: {state['detail']}")
    verify(PLAN, [read_uri(pair.alpha.uri("db", "data"), BLOCKS)], exactly=600)
    pair.alpha.stop()
    with open(path, "wb") as file:
        file.write(good)
    flip(path, 100)
    flip(path, 32768 + 100)
    pair.alpha.start_daemon("agent")
    time.sleep(0.5)
    check("superblock" in pair.alpha.log_text("agent"), "the log does not name the superblock")
    try:
        nbd.NBD().connect_uri(pair.alpha.uri("db", "data"))
        check(False, "a group without a superblock is served")
    except nbd.Error:
        pass
    pair.alpha.stop()


def test(lab):
    damaged(lab, "primary", "payload", 128 + 4)
    damaged(lab, "primary", "header", 50)
    damaged(lab, "standby", "payload", 128 + 4)
    torn(lab)
    superblock(lab)


main(test, "51")
