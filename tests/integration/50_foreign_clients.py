#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Foreign clients against the agent's export: nbdinfo, nbdcopy, qemu-img, qemu-io, fio; also while the
standby follows. What they leave behind must be equal on the standby."""

import json
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say
from sites import MIB, Pair

SIZE = 48 * MIB


def image(path):
    noise = random.Random(50)
    with open(path, "wb") as file:
        for start in (0, 9, 21, 40):
            file.seek(start * MIB)
            file.write(noise.randbytes(4 * MIB - 1536))
        file.truncate(SIZE)
    return path


def information(lab, uri, cache):
    info = json.loads(lab.run("nbdinfo", "--json", uri).stdout)["exports"][0]
    for flag in ("can_fua", "can_flush", "can_trim", "can_zero", "can_fast_zero", "can_cache", "can_df",
                 "can_multi_conn"):
        check(info[flag], f"{flag} is not offered")
    check(not info["is_read_only"] and info["export-size"] == SIZE, f"{info}")
    check("base:allocation" in info["contexts"], f"{info['contexts']}")
    check(info["block_size_minimum"] == 512 and info["block_size_maximum"] == 64 * MIB, f"{info}")
    say(f"cache = {cache}: preferred block {info['block_size_preferred']}")


def copies(lab, uri, source, back):
    lab.run("nbdcopy", "--connections=8", "--requests=32", "--flush", source, uri)
    lab.run("nbdcopy", "--connections=4", uri, back)
    lab.run("cmp", source, back)
    allocated = [e for e in json.loads(lab.run("nbdinfo", "--map", "--json", uri).stdout) if not e["type"] & 1]
    data = sum(e["length"] for e in allocated)
    check(15 * MIB < data < 20 * MIB, f"{data} bytes are mapped as data")
    lab.run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri)
    lab.run("nbdcopy", "--synchronous", "--request-size=33554432", source, uri)
    lab.run("qemu-img", "convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", source, uri)
    lab.run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri)


def patterns(lab, uri):
    done = lab.run(
        "qemu-io", "-f", "raw", "-t", "writeback", uri,
        "-c", "write -P 7 0 1M", "-c", "write -f -P 9 64k 4k", "-c", "flush", "-c", "write -z 128k 64k",
        "-c", "write -z -u 256k 64k", "-c", "discard 512k 128k", "-c", "aio_write -P 1 8M 8M",
        "-c", "aio_write -P 2 16M 8M", "-c", "aio_flush", "-c", "read -P 7 0 64k", "-c", "read -P 9 64k 4k",
        "-c", "read -P 0 128k 64k", "-c", "read -P 0 256k 64k", "-c", "read -P 0 512k 128k",
        "-c", "read -P 7 640k 384k", "-c", "read -P 1 8M 8M", "-c", "read -P 2 16M 8M")
    check("verification failed" not in done.stdout + done.stderr, done.stdout + done.stderr)


def fio(lab, uri, *options):
    lab.run("fio", "--name=v", "--ioengine=nbd", f"--uri={uri}", f"--size={SIZE}", "--randseed=50",
            "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=512", *options, cwd=lab.dir)


def test(lab):
    for cache in ("writeback", "writethrough"):
        pair = Pair(lab, {"db": {"data": SIZE}}, {"cache": cache, "journal_size": "128MiB"}, directory=cache)
        pair.start()
        uri = pair.alpha.uri("db", "data")
        qemu = f"nbd+unix:///data?socket={pair.alpha.nbd_socket('db')}"
        information(lab, uri, cache)
        copies(lab, qemu, image(lab.path("source.raw")), lab.path("back.raw"))
        patterns(lab, qemu)
        fio(lab, uri, "--rw=randrw", "--bs=4k", "--iodepth=32", "--io_size=16m", "--fsync=64")
        fio(lab, uri, "--rw=randwrite", "--bsrange=512-256k", "--blockalign=512", "--iodepth=8", "--io_size=32m",
            "--offset=1m", "--size=40m")
        fio(lab, uri, "--rw=write", "--bs=1m", "--iodepth=4", "--io_size=32m")
        check(pair.alpha.group("db", "agent")["counters"]["errors"] == 0, "errors were counted")
        pair.stop_and_compare()


main(test, "50", tools=("nbdinfo", "nbdcopy", "qemu-img", "qemu-io", "fio"))
