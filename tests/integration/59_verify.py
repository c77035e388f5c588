#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Verification with real processes: equal under load, a flipped bit found where it is, repaired, and
what was verified still known after a restart; copies that send only what differs."""

import os
import random
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say, wait_for
from sites import MIB, Pair

SIZE = 96 * MIB
WRITTEN = 64 * MIB  # fio writes below that
PLACE = 81 * MIB + 12345


def fill(path):
    noise = random.Random(59)
    with open(path, "r+b") as file:
        for place in range(0, SIZE // MIB, 4):
            file.seek(place * MIB)
            file.write(noise.randbytes(2 * MIB))


def peer(pair):
    return pair.alpha.group("db", "agent")["peers"][0]


def flip(path, offset):
    """One bit, behind the back of whoever has the file open."""
    with open(path, "r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, offset)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 4]), offset)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def verify(pair, *args, ok):
    return pair.alpha.cli("verify", "db", *args, ok=ok)


def under_load(lab, pair):
    fio = lab.spawn(
        ["fio", "--name=w", "--ioengine=nbd", "--uri=" + pair.alpha.uri("db", "data"), "--rw=randwrite",
         "--bsrange=512-64k", "--blockalign=4k", "--iodepth=8", f"--size={WRITTEN}", "--rate=,6m",
         "--runtime=120", "--time_based", "--fsync=32", "--randseed=59", "--buffer_compress_percentage=50"],
        lab.path("fio.log"),
    )
    wait_for("writes", lambda: pair.alpha.group("db", "agent")["head_seq"] > 100, 20)

    say("equal under load, however often")
    for _ in range(3):
        verify(pair, "--rate", "256MiB", ok=(0,))
        check(peer(pair)["verify"]["differing_ranges"] == 0, "a difference that is none")
    first = peer(pair)["verify"]["verified_seq"]
    check(first and first > 100, f"no position was verified: {peer(pair)['verify']}")

    say("a flipped bit is found, at its place, and only there")
    flip(pair.beta.volume("db", "data"), PLACE)
    done = verify(pair, "--rate", "256MiB", ok=(4,))
    state = peer(pair)["verify"]
    check(state["differing_ranges"] == 1 and len(state["ranges"]) == 1, f"found: {state}")
    found = state["ranges"][0]
    check(found["volume"] == "data", f"found in {found}")
    check(found["offset_bytes"] <= PLACE < found["offset_bytes"] + found["length_bytes"], f"found at {found}")
    check(found["length_bytes"] <= 256 * 1024, f"found at {found}")
    check("differs in 1 range" in done.stdout, f"verify says {done.stdout}")
    check(state["verified_seq"] >= first, "the last good one was forgotten")
    check(not peer(pair)["needs_sync"], "repaired without being asked")

    say("repaired, under load")
    verify(pair, "--repair", "--rate", "256MiB", ok=(4,))
    wait_for("the repair", lambda: peer(pair)["verify"]["repaired_bytes"] > 0, 20)
    pair.beta.wait_streaming("db")
    check(peer(pair)["resync_sent_bytes"] <= 2 * MIB, f"the repair sent {peer(pair)['resync_sent_bytes']}")
    verify(pair, "--rate", "256MiB", ok=(0,))
    check(fio.poll() is None, "fio ended before")
    fio.terminate()
    fio.wait(30)


def after_restart(pair):
    say("what was verified is known after a restart, on both sides")
    pair.caught_up("db")
    verify(pair, "--rate", "256MiB", ok=(0,))
    before = peer(pair)["verify"]
    pair.stop_and_compare()
    pair.start(init=False)
    state = peer(pair)["verify"]
    for key in ("verified_seq", "verified_time"):
        check(state[key] == before[key], f"{key}: {state[key]}, was {before[key]}")
    standby = pair.beta.group("db", "engine")["standby"]["verified"]
    check(standby and standby["seq"] == before["verified_seq"], f"the standby knows {standby}")


def in_the_background(pair):
    say("by itself, and what it finds is told")
    pair.alpha.stop()
    pair.alpha.options["verify_interval"] = "1s"
    pair.alpha.options["verify_rate"] = "512MiB"
    pair.alpha.write_conf()
    pair.alpha.start()
    pair.alpha.wait_serving("db")
    seen = set()

    def again():
        seen.add(peer(pair)["verify"]["verified_time"])
        return len(seen) >= 3

    wait_for("verifications in the background", again, 20, every=0.1)
    flip(pair.beta.volume("db", "data"), PLACE)
    wait_for("the difference", lambda: peer(pair)["verify"]["differing_ranges"] == 1, 20)
    pair.alpha.cli("resync", "db")
    wait_for("no difference", lambda: not peer(pair)["needs_sync"]
             and peer(pair)["verify"]["differing_ranges"] == 0
             and not peer(pair)["verify"]["active"], 20)
    pair.stop_and_compare()


def seeded(pair):
    """A standby made anew on a volume that holds nearly everything."""
    say("a new copy over what is nearly the same sends only what differs")
    shutil.rmtree(pair.beta.group_dir("db"))
    flip(pair.beta.volume("db", "data"), PLACE)
    pair.beta.init("standby")
    del pair.alpha.options["verify_interval"]
    pair.alpha.write_conf()
    pair.start(init=False)
    state = peer(pair)
    check(state["resync_compared_bytes"] >= 40 * MIB, f"compared: {state['resync_compared_bytes']}")
    check(0 < state["resync_sent_bytes"] <= MIB, f"sent: {state['resync_sent_bytes']}")
    check(state["sent_bytes"] < 2 * MIB, f"over the link: {state['sent_bytes']}")
    pair.stop_and_compare()


def test(lab):
    pair = Pair(lab, {"db": {"data": SIZE, "log": 16 * MIB}})
    fill(pair.alpha.volume("db", "data"))
    pair.start()
    under_load(lab, pair)
    after_restart(pair)
    in_the_background(pair)
    seeded(pair)


main(test, "59")
