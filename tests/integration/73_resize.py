#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A volume grows while it is used: backing first, then holdfast volume resize; the standby grows by itself,
what is new reads as zeroes on both sides although the files held other bytes there, and promote, restart and
return find the new size."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import nbd
from lab import check, main, say
from numbered import Plan, Writer
from proxy import Proxy
from sites import MIB, Pair

OLD, NEW = 4 * MIB, 24 * MIB


def has(text, *words):
    for word in words:
        check(word in text, f"no '{word}' in:\n{text}")


def follows(site):
    site.wait_group(
        "db", "engine", "a standby", lambda s: s["role"] == "standby" and s["state"] == "receiving", 30
    )


def client(site):
    handle = nbd.NBD()
    handle.connect_uri(site.uri("db", "data"))
    return handle


def grow_file(site, size, junk=0):
    """As an operator does it; `junk`: the device has held something else there."""
    with open(site.volume("db", "data"), "r+b") as file:
        file.truncate(size)
        if junk:
            file.seek(OLD)
            file.write(b"\x5a" * junk)
        file.flush()
        os.fsync(file.fileno())


def refused(pair):
    say("what is refused")
    error = pair.alpha.cli_json("volume", "resize", "db", "data", ok=(7,))["error"]
    check("enlarge" in error["remedy"] or "enlarge" in error["text"], f"{error}")
    pair.alpha.cli("volume", "resize", "db", "none", ok=(9,))
    pair.alpha.cli("volume", "shrink", "db", "data", ok=(2,))
    pair.beta.cli("volume", "resize", "db", "data", ok=(7,))


def grow(pair):
    say("it grows while it is written")
    plan = Plan(1, OLD // 4096, seed=73)
    writer = Writer(plan, [pair.alpha.uri("db", "data")], rate=500)
    writer.start()
    old = client(pair.alpha)
    grow_file(pair.alpha, NEW + 512, junk=MIB)
    done = pair.alpha.cli("volume", "resize", "db", "data")
    has(done.stdout, "volume data is resized to 24.0 MiB")
    check(old.get_size() == OLD and old.pread(4096, 0), "a client that was there is disturbed")
    old.shutdown()
    new = client(pair.alpha)
    check(new.get_size() == NEW, f"{new.get_size()} bytes")
    check(new.pread(2 * MIB, OLD) == bytes(2 * MIB), "what is new is not zeroes")
    new.pwrite(b"n" * 4096, NEW - 4096)
    new.pwrite(b"m" * 4096, OLD)
    new.flush()
    pair.caught_up("db")
    pair.beta.wait_streaming("db")
    writer.stop()
    check(pair.beta.group("db", "engine")["volumes"][0]["size_bytes"] == NEW, "the standby's size")
    check(not pair.alpha.group("db", "agent")["peers"][0]["needs_sync"], "a resync for nothing")
    new.shutdown()


def after(pair):
    say("both restart, roles change, and it is still that large")
    for site in (pair.alpha, pair.beta):
        site.stop()
    pair.beta.start()
    pair.alpha.start()
    pair.alpha.wait_serving("db")
    pair.beta.wait_streaming("db")
    pair.caught_up("db")
    done = pair.alpha.cli("verify", "db")
    has(done.stdout, "equal at seq")
    pair.alpha.kill_daemon("agent")
    pair.beta.promote_after_loss("db")
    new = client(pair.beta)
    check(new.get_size() == NEW, f"{new.get_size()} bytes")
    check(new.pread(4096, NEW - 4096) == b"n" * 4096, "the last block")
    new.pwrite(b"p" * 4096, NEW - 8192)
    new.flush()
    new.shutdown()
    pair.alpha.start_daemon("agent")
    follows(pair.alpha)
    pair.caught_up("db", source=pair.beta, target=pair.alpha)
    pair.beta.stop()
    pair.alpha.stop()
    with open(pair.alpha.volume("db", "data"), "rb") as one, open(pair.beta.volume("db", "data"), "rb") as other:
        check(one.read(NEW) == other.read(NEW), "the volumes differ")


def parted(lab):
    say("it grew in a history that is given up: the ruling primary's size counts")
    proxies = []

    def through(port):
        proxies.append(Proxy(lab, port))
        return proxies[0].address()

    pair = Pair(lab, {"db": {"data": OLD}}, through=through, directory="parted")
    pair.start()
    handle = client(pair.alpha)
    handle.pwrite(b"a" * 4096, 0)
    handle.flush()
    handle.shutdown()
    pair.caught_up("db")
    proxies[0].refusing = True
    proxies[0].cut()
    grow_file(pair.alpha, NEW)
    pair.alpha.cli("volume", "resize", "db", "data")
    handle = client(pair.alpha)
    handle.pwrite(b"x" * 65536, NEW - 65536)
    handle.pwrite(b"y" * 4096, OLD - 4096)
    handle.flush()
    handle.shutdown()
    pair.beta.promote_after_loss("db")
    proxies[0].refusing = False
    pair.alpha.wait_group("db", "engine", "its divergence", lambda s: s["diverged"], 30)
    pair.alpha.cli("demote", "db")
    follows(pair.alpha)
    # Until the copy ends it could go back to what it was.
    pair.alpha.wait_group("db", "engine", "the ruling size", lambda s: s["volumes"][0]["size_bytes"] == OLD)
    grow_file(pair.beta, NEW)
    pair.beta.cli("volume", "resize", "db", "data")
    pair.alpha.wait_group("db", "engine", "the new size", lambda s: s["volumes"][0]["size_bytes"] == NEW)
    handle = client(pair.beta)
    handle.pwrite(b"z" * 4096, NEW - 8192)
    handle.flush()
    handle.shutdown()
    pair.caught_up("db", source=pair.beta, target=pair.alpha)
    has(pair.beta.cli("verify", "db").stdout, "equal at seq")
    pair.beta.stop()
    pair.alpha.stop()
    pair.compare("db")


def test(lab):
    pair = Pair(lab, {"db": {"data": OLD}})
    pair.start()
    refused(pair)
    grow(pair)
    after(pair)
    parted(lab)


main(test, "73")
