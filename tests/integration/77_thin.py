#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Thin stays thin: what is discarded or written as zeroes on the primary takes no space on the standby either,
a copy of a thin volume allocates what the primary has and no more, and frees what a fat standby held."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import nbd
from lab import Skip, check, main, need, say, wait_for
from sites import MIB, Pair

SIZE = 192 * MIB
SLACK = 2 * MIB  # what a file system rounds, and what writes around it touch


def used(site):
    """Bytes that the file under the volume takes."""
    with open(site.volume("db", "data"), "rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_blocks * 512


def applied(pair):
    pair.caught_up("db")
    head = pair.alpha.group("db", "agent")["head_seq"]
    for site, daemon in ((pair.alpha, "agent"), (pair.beta, "engine")):
        site.wait_group("db", daemon, "apply", lambda s: s["applied_seq"] >= head)


def alike(pair, expected, what):
    """Both take about what was written, and the standby no more than the primary."""
    applied(pair)
    wait_for(
        f"{what}: {expected / MIB:.0f} MiB in use, not {used(pair.alpha) / MIB:.1f} and {used(pair.beta) / MIB:.1f}",
        lambda: all(abs(used(site) - expected) <= SLACK for site in (pair.alpha, pair.beta)),
        20,
    )
    check(used(pair.beta) <= used(pair.alpha) + SLACK, f"{what}: the standby takes more")


def pieces(handle, places, function):
    for place in places:
        function(handle, place * MIB)
    handle.flush()


def discards(pair):
    handle = nbd.NBD()
    handle.connect_uri(pair.alpha.uri("db", "data"))
    say("written here and there")
    noise = os.urandom(MIB)
    places = range(3, 190, 6)  # 32 pieces of 1 MiB
    pieces(handle, places, lambda h, at: h.pwrite(noise, at))
    alike(pair, 32 * MIB, "written")
    say("discarded, and written as zeroes")
    pieces(handle, places[:12], lambda h, at: h.trim(MIB, at))
    alike(pair, 20 * MIB, "discarded")
    pieces(handle, places[12:20], lambda h, at: h.zero(MIB, at))
    alike(pair, 12 * MIB, "written as zeroes")
    say("zeroes that keep their room")
    pieces(handle, places[:4], lambda h, at: h.zero(MIB, at, nbd.CMD_FLAG_NO_HOLE))
    alike(pair, 16 * MIB, "zeroes without holes")
    pieces(handle, places[:4], lambda h, at: h.trim(MIB, at))
    alike(pair, 12 * MIB, "discarded again")
    say("one discard over nearly everything, with foreign tools")
    uri = pair.alpha.uri("db", "data")
    subprocess.run(
        ["qemu-io", "-f", "raw", "-d", "unmap", "-c", f"discard {150 * MIB} {30 * MIB}", "-c", "flush", uri],
        check=True, stdout=subprocess.DEVNULL,
    )
    left = sum(not 150 <= place < 180 for place in places[20:])
    alike(pair, left * MIB, "discarded by qemu-io")
    handle.shutdown()
    return left


def copies(pair, left):
    say("copies of everything allocate nothing")
    for how in ("--everything", "--compare"):
        args = ("--everything",) if how == "--everything" else ("--everything", "--compare")
        count = pair.alpha.group("db", "agent")["peers"][0]["reconnects"]
        pair.alpha.cli("resync", "db", *args)
        wait_for(
            "the copy to begin", lambda: pair.alpha.group("db", "agent")["peers"][0]["reconnects"] > count, 20
        )
        pair.beta.wait_streaming("db")
        alike(pair, left * MIB, f"resync {' '.join(args)}")
    say("a fat standby becomes thin")
    pair.beta.stop()
    with open(pair.beta.volume("db", "data"), "r+b") as file:
        for at in range(0, SIZE + 64 * MIB, MIB):
            file.seek(at)
            file.write(b"\x77" * MIB)
        os.fsync(file.fileno())
    check(used(pair.beta) >= SIZE - SLACK, "not fat")
    subprocess.run(["rm", "-r", pair.beta.group_dir("db")], check=True)
    pair.beta.init("standby")
    pair.beta.start()
    pair.beta.wait_streaming("db", 60)
    alike(pair, left * MIB, "copied over a fat one")
    say("and they are equal, as clients read them and as they lie")
    out = pair.alpha.lab.path("copy.img")
    subprocess.run(["nbdcopy", pair.alpha.uri("db", "data"), out], check=True)
    pair.stop_and_compare()
    with open(out, "rb") as one, open(pair.beta.volume("db", "data"), "rb") as other:
        check(one.read() == other.read(), "a client reads something else than the standby holds")


def grows(pair, left):
    say("what a volume gains takes no space, whatever lay there")
    with open(pair.alpha.volume("db", "data"), "r+b") as file:
        file.truncate(SIZE + 64 * MIB)
        file.seek(SIZE + MIB)
        file.write(b"\x5a" * 8 * MIB)
        os.fsync(file.fileno())
    check(used(pair.alpha) >= (left + 8) * MIB - SLACK, "nothing lies there")
    pair.alpha.cli("volume", "resize", "db", "data")
    pair.beta.wait_group(
        "db", "engine", "the new size", lambda s: s["volumes"][0]["size_bytes"] == SIZE + 64 * MIB
    )
    alike(pair, left * MIB, "grown")


def test(lab):
    need("qemu-io", "nbdcopy")
    probe = lab.make_file("probe", 4 * MIB)
    if os.stat(probe).st_blocks * 512 > MIB:
        raise Skip("this file system has no holes")
    pair = Pair(lab, {"db": {"data": SIZE}})
    pair.start()
    alike(pair, 0, "empty")
    left = discards(pair)
    grows(pair, left)
    copies(pair, left)


main(test, "77")
