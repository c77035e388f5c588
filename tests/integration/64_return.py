#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An old primary returns: with writes that nobody else had (refused, then kept as salvage, then fed the
difference), and without any (it follows by itself). A standby's directory put back to an old state."""

import importlib.util
import json
import os
import random
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import nbd
from lab import DECODER, check, main, say, wait_for
from proxy import Proxy
from sites import MIB, Pair

SIZE = 48 * MIB
STEP = 65536

_spec = importlib.util.spec_from_file_location("hfdecode", DECODER)
hfdecode = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hfdecode)


def write(site, first, count, seed, volume="data"):
    """`count` writes of 64 KiB one behind the other from block `first`; [(offset, content)]."""
    done, noise = [], random.Random(seed)
    handle = nbd.NBD()
    handle.connect_uri(site.uri("db", volume))
    for number in range(first, first + count):
        content = noise.randbytes(STEP)
        handle.pwrite(content, number * STEP)
        done.append((number * STEP, content))
    handle.flush()
    handle.shutdown()
    return done


def decode_salvage(site, name):
    """The records of a salvage file by the second decoder: [(seq, offset, content)]."""
    with open(os.path.join(site.group_dir("db"), "salvage", name), "rb") as file:
        data = file.read()
    at, found, chain = 0, [], None
    while at < len(data):
        segment = hfdecode.Segment(data, at)
        check(chain is None or segment.chain == chain, f"a gap in the salvage at {at}")
        chain, at = segment.chain_behind, at + segment.total
        found += [(r.seq, r.offset, r.data) for r in segment.records]
    return found


def the_peer(site):
    return site.group("db", "agent")["peers"][0]


def returned(pair, source, target, seconds=60):
    target.wait_group("db", "engine", "a standby that is whole",
                      lambda s: s["role"] == "standby" and s["standby"]["consistent"]
                      and s["standby"]["connected"], seconds)
    return pair.caught_up("db", source=source, target=target)


def with_writes(lab):
    say("the primary dies with writes that were not shipped, the standby is promoted, the old one returns")
    proxies = []

    def through(port):
        proxies.append(Proxy(lab, port))
        return proxies[0].address()

    pair = Pair(lab, {"db": {"data": SIZE}}, through=through, directory="writes")
    pair.start()
    write(pair.alpha, 0, 200, 1)
    pair.caught_up("db")
    shared = pair.alpha.group("db", "agent")["head_seq"]
    proxies[0].refusing = True
    proxies[0].cut()
    lost = write(pair.alpha, 100, 16, 2)
    check(pair.alpha.group("db", "agent")["head_seq"] == shared + 16, "one write is not one record")
    pair.alpha.kill()
    answer = pair.beta.promote_after_loss("db")
    check(answer["seq"] == shared, f"promoted to {answer['seq']}, not {shared}")
    write(pair.beta, 400, 16, 3)

    say("it is fenced, opened as a copy, and refused: it has diverged")
    proxies[0].refusing = False
    pair.alpha.start()
    state = pair.alpha.wait_group("db", "engine", "to have diverged",
                                  lambda s: s["role"] == "fenced" and s["diverged"], 30)
    check(state["common_seq"] == shared, f"common up to {state['common_seq']}, not {shared}")
    wait_for("the primary to say what to do",
             lambda: "holdfast demote db" in the_peer(pair.beta)["error"])
    before = open(pair.alpha.volume("db", "data"), "rb").read()
    for offset, content in lost:
        check(before[offset:offset + STEP] == content, "an acknowledged write is gone already")
    check(not os.path.exists(os.path.join(pair.alpha.group_dir("db"), "salvage")), "nobody said so")

    say("with the operator's word its writes become salvage, and it is fed the difference")
    sent = the_peer(pair.beta)["sent_bytes"]
    pair.alpha.cli("demote", "db", "--yes")
    returned(pair, pair.beta, pair.alpha)
    sent = the_peer(pair.beta)["sent_bytes"] - sent
    name = f"1-{shared + 1}-{shared + 16}"
    salvage = decode_salvage(pair.alpha, name)
    check([seq for seq, _, _ in salvage] == list(range(shared + 1, shared + 17)), "not the lost seqs")
    check([(offset, content) for _, offset, content in salvage] == lost, "not what was acknowledged")
    check(os.listdir(os.path.join(pair.alpha.group_dir("db"), "salvage")) == [name], "other files")
    check(pair.alpha.group("db", "engine")["salvages"] == 1, "the status does not count it")
    differs = 32 * STEP
    say(f"  {differs} bytes differed, {sent} bytes were sent")
    check(differs <= sent < differs + differs // 4, f"{sent} bytes sent for {differs} that differed")

    document = pair.alpha.cli_json("salvage", "list", "db")
    check(document["salvages"][0]["records"] == 16, f"{json.dumps(document)}")
    out = lab.path("extracted")
    pair.alpha.cli("salvage", "extract", "db", document["salvages"][0]["id"], "--out", out)
    with open(os.path.join(out, "data.img"), "rb") as file:
        for offset, content in lost:
            file.seek(offset)
            check(file.read(STEP) == content, f"extracted otherwise at {offset}")
    write(pair.beta, 0, 8, 4)
    pair.caught_up("db", source=pair.beta, target=pair.alpha)
    back_and_forth(pair)


def back_and_forth(pair):
    say("without writes on the dead side nothing parts: it follows by itself")
    for source, target in ((pair.beta, pair.alpha), (pair.alpha, pair.beta)):
        pair.caught_up("db", source=source, target=target)
        source.kill()
        target.promote_after_loss("db")
        write(target, 20, 4, 5)
        source.start()
        returned(pair, target, source, 30)
        peer = the_peer(target)
        check(peer["sent_bytes"] < 8 * STEP, f"{peer['sent_bytes']} bytes sent for {4 * STEP}")
        check(target.group("db", "engine") is None
              or target.group("db", "engine")["role"] == "primary", "two standbys")
    pair.caught_up("db")
    pair.stop_and_compare()


def unserved(lab):
    say("a primary's host comes back without its agent: demote takes the directory, and only then")
    pair = Pair(lab, {"db": {"data": SIZE}}, directory="unserved")
    pair.start()
    write(pair.alpha, 0, 50, 1)
    pair.caught_up("db")
    done = pair.alpha.cli("demote", "db", "--yes", ok=None)
    check(done.returncode == 5 and "switchover" in done.stderr, f"a served primary: {done}")
    pair.alpha.kill()
    pair.beta.promote_after_loss("db")
    pair.alpha.start_daemon("engine")
    pair.alpha.cli("demote", "db", "--yes")
    returned(pair, pair.beta, pair.alpha)
    pair.alpha.start_daemon("agent")
    write(pair.beta, 60, 4, 2)
    pair.caught_up("db", source=pair.beta, target=pair.alpha)
    pair.beta.stop()
    pair.alpha.stop()
    pair.compare("db")


def old_state(lab):
    say("a standby's state directory is put back to an old one: everything is compared, nothing trusted")
    pair = Pair(lab, {"db": {"data": SIZE}}, directory="old")
    pair.start()
    write(pair.alpha, 0, 50, 1)
    pair.caught_up("db")
    pair.beta.stop_daemon("engine")
    backup = lab.path("backup")
    shutil.copytree(pair.beta.group_dir("db"), backup)
    pair.beta.start_daemon("engine")
    pair.beta.wait_streaming("db")
    write(pair.alpha, 100, 50, 2)
    pair.caught_up("db")
    pair.beta.stop_daemon("engine")
    shutil.rmtree(pair.beta.group_dir("db"))
    shutil.copytree(backup, pair.beta.group_dir("db"))
    with open(pair.beta.volume("db", "data"), "r+b") as file:  # and its disk is not what it was
        file.seek(300 * STEP)
        file.write(os.urandom(STEP))
    pair.beta.start_daemon("engine")
    pair.beta.wait_group("db", "engine", "a copy", lambda s: s["standby"]["connected"], 30)
    pair.beta.wait_streaming("db", 60)
    pair.stop_and_compare()


def test(lab):
    with_writes(lab)
    unserved(lab)
    old_state(lab)


main(test, "64")
