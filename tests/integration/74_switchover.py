#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Switchover there and back under load, given up, and with a daemon killed at any moment of it."""

import os
import random
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import Failure, check, main, say, wait_for
from numbered import Plan, Writer, read_uri, verify
from sites import MIB, Pair

SIZE = 4 * MIB
BLOCKS = SIZE // 4096
ROUND_TRIPS = 3
KILLS = 14


class Call(threading.Thread):
    """A switchover that is asked for over the control socket; the test goes on meanwhile."""

    def __init__(self, site, timeout=5):
        super().__init__(daemon=True)
        self.site, self.timeout, self.status, self.answer = site, timeout, None, None

    def run(self):
        try:
            self.status, self.answer = self.site.control(
                "agent", "POST", "/v1/groups/db/switchover", {"timeout_seconds": self.timeout}
            )
        except OSError as error:  # its agent was killed
            self.answer = str(error)

    def result(self):
        self.join(60)
        check(not self.is_alive(), "switchover does not answer")
        return self.status


class Rig:
    def __init__(self, lab, name, seed):
        self.pair = Pair(lab, {"db": {"data": SIZE}}, directory=name)
        self.pair.start()
        self.plan = Plan(1, BLOCKS, seed=seed)
        self.last = 0

    def sites(self, primary):
        pair = self.pair
        return (pair.alpha, pair.beta) if primary is pair.alpha else (pair.beta, pair.alpha)

    def writer(self, site, depth=8):
        writer = Writer(self.plan, [site.uri("db", "data")], first=self.last + 1, depth=depth)
        writer.start()
        return writer

    def content(self, site, writer):
        """Nothing acknowledged is lost, nothing else is there; the number of the last write."""
        self.last = verify(
            self.plan, [read_uri(site.uri("db", "data"), BLOCKS)], at_least=writer.acked
        )
        check(self.last < writer.next, f"write {self.last} was never made")

    def start_again(self, site, daemon):
        """While nobody listens on it, a connection that is tried may have taken the port itself."""
        for last in (False, False, True):
            try:
                site.start_daemon(daemon)
                return
            except Failure:
                if last or site.processes[daemon].poll() is None:
                    raise
                check("Address already in use" in site.log_text(daemon), f"{daemon} does not start")
                site.kill_daemon(daemon)
                time.sleep(0.3)

    def primary(self):
        """The one site that serves, when the other one follows it."""
        for site, other in (self.sites(self.pair.alpha), self.sites(self.pair.beta)):
            state = site.group("db", "agent")
            standby = other.group("db", "engine")
            if (
                state and standby
                and state["role"] == "primary" and state["state"] == "serving" and not state["detail"]
                and standby["role"] == "standby" and standby["standby"]["connected"]
                and standby["standby"]["consistent"] and standby["epoch"] == state["epoch"]
            ):
                return site
        return None

    def settled(self, seconds=60):
        return wait_for("one site to serve and the other to follow", self.primary, seconds)


def there_and_back(lab):
    say(f"{ROUND_TRIPS} round trips under load")
    rig = Rig(lab, "trips", 74)
    site = rig.pair.alpha
    for trip in range(2 * ROUND_TRIPS):
        site, other = rig.sites(site)
        writer = rig.writer(site, depth=1 if trip % 2 else 16)
        time.sleep(0.5)
        began = time.monotonic()
        done = site.cli_json("switchover", "db", "--yes")
        other.wait_serving("db")
        gap = time.monotonic() - began
        writer.died()
        check(writer.error, "the client of the old primary was not cut off")
        check(done["epoch"] == trip + 2 and done["to"] == other.node, f"switchover: {done}")
        check(0 < done["held_seconds"] <= done["took_seconds"], f"switchover: {done}")
        rig.content(other, writer)
        state = other.group("db", "agent")
        check(state["epoch"] == trip + 2, f"the new primary is in epoch {state['epoch']}")
        say(f"to {other.name}: {writer.acked} writes so far, held {done['held_seconds'] * 1e3:.0f} ms, "
            f"all of it {done['took_seconds'] * 1e3:.0f} ms, served there after {gap * 1e3:.0f} ms")
        check(rig.settled() is other, "the old primary does not follow")
        standby = site.group("db", "engine")["standby"]
        check(not standby.get("diverged"), "a round trip without writes behind it is no divergence")
        site = other
    error = rig.pair.beta.cli_json("switchover", "db", "--yes", ok=(7,))["error"]
    check(error["reason"] == "not-served", f"on the standby: {error}")
    rig.pair.caught_up("db")
    rig.pair.alpha.stop()
    rig.pair.beta.stop()
    rig.pair.compare("db")


def given_up(lab):
    say("the standby does not answer: given up, everything as it was, and again later")
    rig = Rig(lab, "given-up", 75)
    pair = rig.pair
    writer = rig.writer(pair.alpha)
    time.sleep(0.3)
    os.kill(pair.beta.pid("engine"), signal.SIGSTOP)
    began = time.monotonic()
    call = Call(pair.alpha, timeout=0.5)
    call.start()
    check(call.result() != 200, f"handed over to a standby that stands still: {call.answer}")
    check(time.monotonic() - began < 10, "it took its time to be given up")
    say(f"given up: {call.answer['error']['text']}")
    acked = writer.acked
    wait_for("writes to go on", lambda: writer.acked > acked + 100)
    os.kill(pair.beta.pid("engine"), signal.SIGCONT)
    check(rig.settled() is pair.alpha, "it changed hands")
    check(pair.alpha.group("db", "agent")["epoch"] == 1, "the epoch changed")
    call = Call(pair.alpha)
    call.start()
    check(call.result() == 200, f"switchover after one that was given up: {call.answer}")
    pair.beta.wait_serving("db")
    writer.died()
    rig.content(pair.beta, writer)
    pair.alpha.stop()
    pair.beta.stop()


def agent_missing(lab):
    say("the new primary's agent is not there: it serves as soon as it comes")
    rig = Rig(lab, "no-agent", 76)
    pair = rig.pair
    writer = rig.writer(pair.alpha)
    time.sleep(0.3)
    pair.beta.kill_daemon("agent")
    call = Call(pair.alpha)
    call.start()
    check(call.result() == 200, f"switchover: {call.answer}")
    writer.died()
    pair.beta.start_daemon("agent")
    pair.beta.wait_serving("db")
    rig.content(pair.beta, writer)
    pair.alpha.stop()
    pair.beta.stop()


def killed(lab):
    say(f"a daemon is killed at some moment of it, {KILLS} times")
    seed = random.randrange(1 << 30)
    say(f"seed {seed}")
    dice = random.Random(seed)
    rig = Rig(lab, "killed", 77)
    site = rig.pair.alpha
    for number in range(KILLS):
        site, other = rig.sites(site)
        writer = rig.writer(site)
        time.sleep(dice.uniform(0.05, 0.2))
        call = Call(site, timeout=3)
        call.start()
        victim, daemon = dice.choice(((site, "agent"), (other, "engine"), (site, "engine"), (other, "agent"),
                                      (site, "agent"), (other, "engine")))
        time.sleep(dice.uniform(0, 0.08))
        victim.kill_daemon(daemon)
        time.sleep(dice.choice((0, dice.uniform(0, 1))))
        rig.start_again(victim, daemon)
        call.result()
        after = rig.settled()
        writer.halt = True
        writer.died()
        what = "old" if after is site else "new"
        if call.status == 200:
            check(after is other, "switchover said that it was done, but the old primary serves")
        rig.content(after, writer)
        say(f"{number + 1}: killed the {daemon} of the {'old' if victim is site else 'new'} primary: "
            f"{call.status}, the {what} one serves, {rig.last} writes")
        site = after
    site, other = rig.sites(site)
    rig.pair.caught_up("db", source=site, target=other)
    site.stop()
    other.stop()
    rig.pair.compare("db")


def test(lab):
    there_and_back(lab)
    given_up(lab)
    agent_missing(lab)
    killed(lab)


main(test, "74")
