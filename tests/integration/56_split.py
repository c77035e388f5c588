#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two primaries must not last, and must never mix: a hung primary that wakes up after the promotion, a
primary behind a cut link that goes on, and one that restarts behind it. Each is fenced as soon as it can
hear of the higher epoch; nothing it wrote since reaches the new history."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import nbd
from lab import check, main, say
from numbered import Plan, Writer, read_uri, verify
from proxy import Proxy
from sites import MIB, Pair

SIZE = 4 * MIB
BLOCKS = SIZE // 4096


def fenced(pair, writer):
    """alpha stops serving by itself, and its client is cut off."""
    state = pair.alpha.wait_group("db", "agent", "fenced", lambda s: s["role"] == "fenced", 15)
    check(state["fenced_by_epoch"] == 2, f"fenced by epoch {state['fenced_by_epoch']}")
    if writer:
        writer.died()
        check(writer.error, "the client of a fenced primary was not cut off")
    try:
        nbd.NBD().connect_uri(pair.alpha.uri("db", "data"))
        check(False, "a fenced primary serves")
    except nbd.Error:
        pass
    return state


def goes_on(pair, plan, first):
    """The new primary takes writes; afterwards it holds exactly its own history."""
    writer = Writer(plan, [pair.beta.uri("db", "data")], first=first, limit=first + 300)
    writer.start()
    check(writer.died() == first + 300 and not writer.error, f"{writer.error}")
    return writer.acked


def hung(lab):
    say("the primary hangs, the standby is promoted without --force, the primary wakes up")
    pair = Pair(lab, {"db": {"data": SIZE}}, directory="hung")
    pair.start()
    plan = Plan(1, BLOCKS, seed=56)
    writer = Writer(plan, [pair.alpha.uri("db", "data")], depth=8)
    writer.start()
    time.sleep(0.5)
    os.kill(pair.alpha.pid("agent"), signal.SIGSTOP)
    answer = pair.beta.promote_after_loss("db")
    check(answer["heard_seconds_ago"] > 0.8, f"promoted before peer_timeout: {answer}")
    last = verify(plan, [read_uri(pair.beta.uri("db", "data"), BLOCKS)], exactly=answer["seq"])
    last = goes_on(pair, plan, last + 1)
    os.kill(pair.alpha.pid("agent"), signal.SIGCONT)
    fenced(pair, writer)
    verify(plan, [read_uri(pair.beta.uri("db", "data"), BLOCKS)], exactly=last)
    say(f"  acknowledged by the old one {writer.acked}, recovered {answer['seq']}, then {last}")
    pair.alpha.stop()
    pair.beta.stop()


def cut_off(lab, restart):
    say("the link is cut, the standby is promoted, the primary "
        + ("restarts and serves" if restart else "goes on") + "; then the link heals")
    proxies = []

    def through(port):
        proxies.append(Proxy(lab, port))
        return proxies[0].address()

    pair = Pair(lab, {"db": {"data": SIZE}}, through=through, directory="restarted" if restart else "cut")
    proxy = proxies[0]
    pair.start()
    plan = Plan(1, BLOCKS, seed=57)
    writer = Writer(plan, [pair.alpha.uri("db", "data")], depth=8)
    writer.start()
    time.sleep(0.5)
    proxy.refusing = True
    proxy.cut()
    answer = pair.beta.promote_after_loss("db")
    shared = answer["seq"]
    if restart:
        pair.alpha.kill_daemon("agent")
        acked = writer.died()
        pair.alpha.start_daemon("agent")
        pair.alpha.wait_serving("db")
        old = verify(plan, [read_uri(pair.alpha.uri("db", "data"), BLOCKS)], at_least=acked)
        writer = Writer(plan, [pair.alpha.uri("db", "data")], first=old + 1, depth=8)
        writer.start()
    # The new history goes its own way: other writes at the same sequence numbers.
    own = Plan(1, BLOCKS, seed=58)
    branch = Branch(plan, own, shared)
    last = goes_on(pair, branch, shared + 1)
    before = writer.acked
    time.sleep(0.5)
    check(writer.acked > before and not writer.error, "without a link the old primary cannot know")
    proxy.refusing = False
    fenced(pair, writer)
    verify(branch, [read_uri(pair.beta.uri("db", "data"), BLOCKS)], exactly=last)
    say(f"  common up to {shared}; the old one acknowledged up to {writer.acked}, the new one {last}")
    for _ in range(2):
        pair.alpha.kill_daemon("agent")
        pair.alpha.start_daemon("agent")
        fenced(pair, None)
    pair.alpha.stop()
    pair.beta.stop()


class Branch(Plan):
    """One plan up to a write, another one from there on."""

    def __init__(self, old, new, shared):
        super().__init__(old.volumes, old.blocks, new.seed)
        self.old, self.new, self.shared = old, new, shared

    def place(self, number):
        return (self.old if number <= self.shared else self.new).place(number)

    def block(self, number):
        return (self.old if number <= self.shared else self.new).block(number)


def test(lab):
    hung(lab)
    cut_off(lab, restart=False)
    cut_off(lab, restart=True)


main(test, "56")
