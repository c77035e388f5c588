#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Bad links: slow, late, cut again and again, silent. The RPO follows, the primary does not stand still,
and the standby ends equal."""

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say, wait_for
from numbered import Plan, Writer
from proxy import Proxy
from sites import MIB, Pair

SIZE = 8 * MIB


def lag(pair):
    return pair.alpha.group("db", "agent")["peers"][0]["lag"]


def progress(writer, seconds):
    """Writes per second over a while; fails when half a second passes without one."""
    begin, start, last, since = time.monotonic(), writer.acked, writer.acked, time.monotonic()
    while time.monotonic() - begin < seconds:
        time.sleep(0.02)
        if writer.acked != last:
            last, since = writer.acked, time.monotonic()
        check(writer.error is None, f"{writer.error}")
        check(time.monotonic() - since < 1.5, f"no write for 1.5 s at write {last}")
    return (writer.acked - start) / seconds


def test(lab):
    proxies = []

    def through(port):
        proxies.append(Proxy(lab, port))
        return proxies[0].address()

    pair = Pair(lab, {"db": {"data": SIZE}}, {"journal_size": "128MiB", "peer_timeout": "2s"}, through=through)
    proxy = proxies[0]
    pair.start()
    writer = Writer(Plan(1, SIZE // 4096, seed=54), [pair.alpha.uri("db", "data")], depth=4, rate=600)
    writer.start()
    rate = progress(writer, 1.5)
    good = lag(pair)["seconds"]
    say(f"a good link: {rate:.0f} writes/s, {good:.3f} s behind")
    check(good < 0.5, f"{good} s behind on a good link")

    proxy.delay = 0.1
    rate = progress(writer, 2.5)
    late = lag(pair)["seconds"]
    say(f"100 ms each way: {rate:.0f} writes/s, {late:.3f} s behind")
    check(0.08 < late < 1.0, f"{late} s behind on a link of 100 ms")
    check(rate > 400, "the primary waits for the link")
    proxy.delay = 0.0

    proxy.bytes_per_second = 400_000
    behind = []
    for _ in range(4):
        rate = progress(writer, 1.0)
        behind.append(lag(pair)["seconds"])
    say(f"400 kB/s: {rate:.0f} writes/s, {behind[-1]:.2f} s behind and growing")
    check(behind == sorted(behind) and behind[-1] > 1.0, f"the lag does not follow: {behind}")
    check(rate > 400, "the primary waits for the link")
    proxy.bytes_per_second = None
    wait_for("the standby to catch up", lambda: lag(pair)["seconds"] < 0.5)

    say("cut 12 times")
    dice = random.Random(54)
    for _ in range(12):
        progress(writer, dice.uniform(0.05, 0.4))
        proxy.cut()
    wait_for("the standby to catch up", lambda: lag(pair)["seconds"] < 0.5)

    wait_for("the stream", lambda: pair.alpha.group("db", "agent")["peers"][0]["connected"])
    say("silent: nothing moves, nothing is closed")
    proxy.paused = True
    wait_for("the dead peer to be noticed",
             lambda: not pair.alpha.group("db", "agent")["peers"][0]["connected"], 10)
    wait_for("the dead primary to be noticed",
             lambda: not pair.beta.group("db", "engine")["standby"]["connected"], 10)
    progress(writer, 0.5)
    away = lag(pair)["seconds"]
    check(away > 1.5, f"{away} s behind a link that is dead for more than 2 s")
    proxy.paused = False
    proxy.cut()
    wait_for("the standby to catch up", lambda: lag(pair)["seconds"] < 0.5)

    last = writer.stop()
    peer = pair.alpha.group("db", "agent")["peers"][0]
    check(not peer["needs_sync"], "a bad link led to a copy")
    say(f"{last} writes, {peer['reconnects']} connections, {proxy.forwarded >> 20} MiB over the link")
    check(pair.beta.group("db", "engine")["counters"]["rejected_corrupt"] == 0, "segments came damaged")
    pair.stop_and_compare()


main(test, "54")
