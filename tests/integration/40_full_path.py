#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The whole path with a libnbd client: write, flush, read back, standby catches up, equal bytes.

Oracles: the numbered writes, cmp of the volumes, and the second decoder replaying the standby's
journal onto an empty image.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import nbd
from lab import check, main, say
from numbered import Plan, Writer, read_uri, verify
from sites import MIB, Pair

VOLUMES = {"data": 12 * MIB, "log": 4 * MIB}
WRITES = 1500


def other_requests(uri):
    """What numbered writes do not do: large, unaligned, trimmed, zeroed, forced."""
    handle = nbd.NBD()
    handle.connect_uri(uri)
    mirror = bytearray(handle.pread(8 * MIB, 0))

    def put(offset, data, flags=0):
        handle.pwrite(data, offset, flags)
        mirror[offset : offset + len(data)] = data

    put(0, os.urandom(MIB))
    put(12345 * 512, b"\xa5" * 512, nbd.CMD_FLAG_FUA)
    put(4 * MIB - 512, os.urandom(1024))
    put(5 * MIB + 3584, bytes(range(256)) * 38)
    handle.zero(512 * 1001, MIB + 1536)
    mirror[MIB + 1536 : MIB + 1536 + 512 * 1001] = bytes(512 * 1001)
    handle.zero(65536, 2 * MIB, nbd.CMD_FLAG_NO_HOLE)
    mirror[2 * MIB : 2 * MIB + 65536] = bytes(65536)
    handle.trim(MIB, 6 * MIB)
    mirror[6 * MIB : 7 * MIB] = bytes(MIB)
    put(6 * MIB + 8192, os.urandom(4096))
    handle.flush()
    check(bytes(handle.pread(8 * MIB, 0)) == bytes(mirror), "what was written is not what is read")
    handle.shutdown()


def journals_agree(pair):
    """The same segments on both sides, by place in the history and chain value."""
    listed = []
    for site in (pair.alpha, pair.beta):
        documents = [d for d in site.decode("db", "journal", "--from", "oldest") if "end" not in d]
        listed.append({d["first_seq"]: (d["last_seq"], d["chain"], d["total"]) for d in documents})
    common = listed[0].keys() & listed[1].keys()
    check(len(common) > 0, "the two journals have nothing in common")
    for seq in common:
        check(listed[0][seq] == listed[1][seq], f"the segments at seq {seq} differ")
    return listed[1]


def replay_equals(lab, pair, cache):
    images = [lab.make_file(f"{cache}-{name}.replayed", size) for name, size in VOLUMES.items()]
    arguments = [f"{i}={path}" for i, path in enumerate(images)]
    pair.beta.decode("db", "replay", "--from", "oldest",
                     *(a for argument in arguments for a in ("--volume", argument)))
    for name, image in zip(VOLUMES, images):
        done = lab.run("cmp", image, pair.beta.volume("db", name), ok=None)
        check(done.returncode == 0, f"the journal's replay differs from volume {name}: {done.stdout}")


def one_mode(lab, cache):
    say(f"cache = {cache}")
    pair = Pair(lab, {"db": VOLUMES}, {"cache": cache}, directory=cache)
    pair.start()
    uris = [pair.alpha.uri("db", name) for name in VOLUMES]
    blocks = VOLUMES["log"] // 4096
    plan = Plan(2, blocks, seed=40)
    writer = Writer(plan, uris, limit=WRITES, flush_every=64)
    writer.start()
    check(writer.died() == WRITES and not writer.error, f"written: {writer.acked}: {writer.error}")
    verify(plan, [read_uri(uri, blocks) for uri in uris], exactly=WRITES)
    state = pair.caught_up("db")
    check(state["head_seq"] == WRITES, f"{WRITES} writes made {state['head_seq']} sequence numbers")
    check(state["standby"]["lag"]["writes"] == 0, "the standby is behind although all is applied")
    other_requests(uris[0])
    pair.stop_and_compare()
    journals_agree(pair)
    replay_equals(lab, pair, cache)


def test(lab):
    for cache in ("writeback", "writethrough"):
        one_mode(lab, cache)


main(test, "40")
