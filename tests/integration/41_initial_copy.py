#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The first copy of volumes that hold data, while fio writes: progress, holes, equality."""

import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say, wait_for
from sites import MIB, Pair

SIZE = 192 * MIB


def fill(path):
    """48 MiB of noise in 24 places, the rest holes."""
    noise = random.Random(41)
    with open(path, "r+b") as file:
        for place in range(24):
            file.seek(place * 8 * MIB)
            file.write(noise.randbytes(2 * MIB))


def allocated(path):
    return os.stat(path).st_blocks * 512


def test(lab):
    pair = Pair(lab, {"db": {"data": SIZE, "empty": 64 * MIB}})
    fill(pair.alpha.volume("db", "data"))
    pair.alpha.peer_options = {"sync_rate": "16MiB"}
    pair.alpha.write_conf()
    pair.init()
    pair.alpha.start()
    pair.alpha.wait_serving("db")

    say("writes begin; the standby comes later")
    fio = lab.spawn(
        ["fio", "--name=w", "--ioengine=nbd", "--uri=" + pair.alpha.uri("db", "data"), "--rw=randwrite",
         "--bsrange=4k-64k", "--blockalign=4k", "--iodepth=8", f"--size={SIZE}", "--rate=,8m",
         "--runtime=12", "--time_based", "--fsync=32", "--randseed=41", "--buffer_compress_percentage=50"],
        lab.path("fio.log"),
    )
    pair.beta.start()
    refused = {}
    seen = []

    def copied():
        state = pair.alpha.group("db", "agent")["peers"][0]
        sync = state["sync"]
        if sync["active"]:
            seen.append((sync["done_bytes"], sync["total_bytes"], sync["left_seconds"]))
            if len(seen) == 3:
                table = pair.alpha.cli("status").stdout
                check("%" in table, f"status does not show progress:\n{table}")
                refused["promote"] = pair.beta.promote("db", ok=(5,))["error"]["reason"]
        elif seen:
            return True
        check(fio.poll() is None, "fio ended before the copy")
        return False

    wait_for("the first copy", copied, 40, every=0.1)
    done = [entry[0] for entry in seen]
    check(len(seen) >= 5, f"progress was seen only {len(seen)} times")
    check(done == sorted(done) and done[-1] > done[0], f"progress went backwards: {done}")
    check(all(entry[0] <= entry[1] for entry in seen), "more copied than there is")
    check(any(entry[2] for entry in seen), "time left was never known")
    check(refused.get("promote") == "never-consistent", f"a half copy could be promoted: {refused}")
    pair.beta.wait_streaming("db")
    check(fio.wait(60) == 0, "fio failed")

    say("holes stay holes, and both sides are equal")
    pair.stop_and_compare()
    for volume in ("data", "empty"):
        ours, theirs = (allocated(site.volume("db", volume)) for site in (pair.alpha, pair.beta))
        check(theirs <= ours + 2 * MIB, f"{volume}: {theirs} bytes allocated on the standby, {ours} here")
    check(allocated(pair.beta.volume("db", "empty")) < MIB, "an empty volume was filled")


main(test, "41", tools=("fio",))
