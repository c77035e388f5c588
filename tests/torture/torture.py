#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two sites with real processes, disks, TLS and a cable; every cycle ends with a primary that dies, hangs
or is cut off, and a standby that is promoted. What it then holds must be the history cut at the position
that promote names, with everything that was promised. The old primary returns, under load, and the roles
have changed. In between: switchovers, with daemons killed in the middle of them, and audits that compare
both sides byte for byte.

    tests/torture/torture.py [--cycles N] [--seed N]

Group "far" is asynchronous: what its primary had been told of as durable on the standby must survive.
Group "near" is in mode sync and freezes: whatever was acknowledged as durable must survive.
"""

import argparse
import collections
import json
import os
import random
import signal
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]
from lab import Failure, check, main, say, wait_for
from network import Network
from sites import MIB, Pki, Site
from stamps import BLOCK, History, Writer, read_file, read_uri

SIZE = 8 * MIB
BLOCKS = SIZE // BLOCK
PORT = 7400
AUDIT_EVERY = 10
SWITCH_EVERY = 4
QUICK = {"heartbeat": "50ms", "peer_timeout": "1s", "settle_timeout": "300ms", "journal_size": "32MiB",
         "journal_file_size": "4MiB"}
GROUPS = {
    "far": {"mode": "async", "cache": "writeback"},
    "near": {"mode": "sync", "on_sync_loss": "freeze", "sync_timeout": "1s", "cache": "writethrough"},
}


def command(site, verb, *args):
    """A command that may be refused: (exit status, document)."""
    done = site.cli(verb, *args, "-o", "json", ok=None)
    text = done.stdout if done.returncode == 0 else done.stderr
    try:
        return done.returncode, json.loads(text)
    except ValueError:
        return done.returncode, {"text": text}


class Group:
    def __init__(self, name, seed):
        self.name = name
        self.sync = GROUPS[name]["mode"] == "sync"
        self.history = History(BLOCKS, seed)
        self.writer = None

    def write(self, site, dice):
        """Begins to write at `site`, which serves."""
        depth = dice.choice((1, 4, 16))
        flush = 0 if self.sync else dice.choice((16, 64))
        self.writer = Writer(self.history, site.uri(self.name, "data"), depth, flush)
        self.writer.start()

    def content(self, site, at_least, exactly=None):
        """What `site` serves is the history, cut somewhere; it goes on from there."""
        last = self.history.verify(read_uri(site.uri(self.name, "data"), BLOCKS), at_least, exactly)
        self.history.cut(last)
        return last


def timed(function):
    """Adds what it takes to the world's account."""

    def wrapped(self, *args):
        began = time.monotonic()
        try:
            return function(self, *args)
        finally:
            self.took[function.__name__] += time.monotonic() - began

    return wrapped


class World:
    def __init__(self, lab, seed):
        self.took = collections.Counter()
        self.lab, self.dice = lab, random.Random(seed)
        self.net = Network(lab)
        self.count = collections.Counter()
        pki = Pki(lab)
        self.sites = []
        for side, name in enumerate(("alpha", "beta")):
            site = Site(lab, name, {group: {"data": SIZE} for group in GROUPS}, QUICK)
            site.host, site.port, site.prefix = self.net.addresses[side], PORT, self.net.prefix(side)
            site.group_options = GROUPS
            site.tls = pki.issue(site.node)
            site.side = side
            self.sites.append(site)
        for site in self.sites:
            other = self.other(site)
            site.peers[other.node] = f"{other.host}:{PORT}"
            site.write_conf()
        self.groups = [Group(name, seed + i) for i, name in enumerate(GROUPS)]
        self.primary = self.sites[0]
        self.primary.init("primary")
        self.sites[1].init("standby")
        for site in self.sites:
            site.start()
        self.settled()

    def other(self, site):
        return self.sites[1 - site.side]

    @property
    def standby(self):
        return self.other(self.primary)

    # ---- states ------------------------------------------------------------------------------

    def follows(self, group, source, target):
        """`source` serves the group, and `target` follows it, whole."""
        ours, theirs = source.group(group.name, "agent"), target.group(group.name, "engine")
        return bool(
            ours and theirs
            and ours["role"] == "primary" and ours["state"] == "serving"
            and theirs["role"] == "standby" and theirs["standby"]["connected"]
            and theirs["standby"]["consistent"] and theirs["epoch"] == ours["epoch"]
            and (not group.sync or ours["mode"]["state"] == "in-sync")
        )

    @timed
    def settled(self, seconds=60):
        for group in self.groups:
            wait_for(f"group {group.name}: {self.primary.name} to serve and the other to follow",
                     lambda: self.follows(group, self.primary, self.standby), seconds)

    def write(self):
        for group in self.groups:
            group.write(self.primary, self.dice)

    def stop_writing(self):
        for group in self.groups:
            group.writer.stop()
            group.writer = None

    # ---- faults while all is well ------------------------------------------------------------

    def kill_and_restart(self, site, daemon):
        site.kill_daemon(daemon)
        time.sleep(self.dice.choice((0, self.dice.uniform(0, 0.3))))
        site.start_daemon(daemon)

    def stand_still(self, site, daemon):
        os.kill(site.pid(daemon), signal.SIGSTOP)
        time.sleep(self.dice.uniform(0.1, 0.9))
        os.kill(site.pid(daemon), signal.SIGCONT)

    def primary_agent_killed(self):
        """Nothing acknowledged is lost, and it serves again."""
        self.primary.kill_daemon("agent")
        for group in self.groups:
            group.writer.over()
        self.primary.start_daemon("agent")
        for group in self.groups:
            self.primary.wait_serving(group.name)
            group.content(self.primary, group.writer.acked)
        self.write()

    @timed
    def fault(self):
        kind = self.dice.choice(("none", "kill-standby", "kill-standby-agent", "kill-primary-engine",
                                 "kill-primary-agent", "stop-standby", "stop-primary", "cut", "deaf-primary",
                                 "deaf-standby"))
        self.count[f"fault {kind}"] += 1
        if kind == "kill-standby":
            self.kill_and_restart(self.standby, "engine")
        elif kind == "kill-standby-agent":
            self.kill_and_restart(self.standby, "agent")
        elif kind == "kill-primary-engine":
            self.kill_and_restart(self.primary, "engine")
        elif kind == "kill-primary-agent":
            self.primary_agent_killed()
        elif kind == "stop-standby":
            self.stand_still(self.standby, self.dice.choice(("engine", "engine", "agent")))
        elif kind == "stop-primary":
            self.stand_still(self.primary, "agent")
        elif kind != "none":
            if kind == "cut":
                self.net.cut()
            else:
                self.net.deafen((self.primary if kind == "deaf-primary" else self.standby).side)
            time.sleep(self.dice.uniform(0.1, 0.9))
            self.net.heal()
        return kind

    # ---- the primary dies, the standby is promoted -------------------------------------------

    def floor(self, group):
        """What its primary knows to be durable on the standby, before anything happens to it."""
        state = self.primary.group(group.name, "agent")
        return state["peers"][0]["durable_seq"] if state else 0

    def lose_primary(self):
        kind = self.dice.choice(("kill-site", "kill-site", "kill-site", "kill-agent", "stop-agent", "cut"))
        if kind == "kill-site":
            self.primary.kill()
        elif kind == "kill-agent":
            self.primary.kill_daemon("agent")
        elif kind == "stop-agent":
            os.kill(self.primary.pid("agent"), signal.SIGSTOP)
        else:
            self.net.cut()
        self.count[f"lost by {kind}"] += 1
        return kind

    @timed
    def promote(self, group):
        """Now and then the engine is killed while it promotes, and asked again."""
        site, name = self.standby, group.name
        if self.dice.random() < 0.15:
            call = threading.Thread(target=command, args=(site, "promote", name, "--yes", "--force"), daemon=True)
            call.start()
            time.sleep(self.dice.uniform(0, 0.08))
            site.kill_daemon("engine")
            call.join(60)
            site.start_daemon("engine")
            self.count["promotes killed"] += 1
        state = site.group(name, "engine")
        if state and state["role"] == "primary":  # the one that was killed had taken effect
            return None
        site.wait_group(name, "engine", "the loss to be noticed",
                        lambda s: s["role"] == "primary" or not s["standby"]["connected"], every=0.005)
        status, answer = command(site, "promote", name, "--yes")
        if status != 0 and (site.group(name, "engine") or {}).get("role") == "primary":
            return None
        check(status == 0, f"promote {name}: {answer}")
        return answer["seq"]

    def kill_and_promote(self):
        floors = {group: self.floor(group) for group in self.groups}
        whole = {group: self.standby.group(group.name, "engine")["standby"]["consistent"]
                 for group in self.groups}
        kind = self.lose_primary()
        acked = {}
        if kind.startswith("kill"):
            for group in self.groups:
                group.writer.over()
        story = []
        seqs = {group: self.promote(group) for group in self.groups}
        for group in self.groups:
            self.standby.wait_serving(group.name)
            acked[group] = group.writer.acked  # by the old one; it may go on, where it is not dead
            promised = group.writer.promised() if group.sync else floors[group]
            if not whole[group] and not group.sync:
                promised = 0
            old, group.writer = group.writer, None
            last = self.recovered(group, old, promised, seqs[group])
            self.count["promotes"] += 1
            self.count["writes lost in async"] += max(0, acked[group] - last)
            story.append(f"{group.name} {acked[group]} acknowledged, promoted at {last}")
        self.primary = self.standby
        self.write()
        self.come_back(kind)
        self.count["cycles"] += 1
        return f"{kind}: {'; '.join(story)}"

    @timed
    def recovered(self, group, old, promised, seq):
        """The old writer may still be writing into its own branch: it gets a history of its own."""
        if old.is_alive():
            mine = group.history
            own = History(mine.blocks, mine.random.random())
            own.at, own.known, own.branch = mine.at, mine.known, mine.branch
            own.tail, own.random = mine.tail, random.Random(mine.random.random())
            old.history, group.history = own, mine
            mine.tail = list(own.tail)
            mine.at = dict(own.at)
        return group.content(self.standby, promised, seq)

    # ---- the old primary returns -------------------------------------------------------------

    @timed
    def come_back(self, kind):
        old = self.standby
        if kind == "kill-site":
            daemons = ["engine", "agent"]
            early = self.dice.random() < 0.6
            if not early:
                self.dice.shuffle(daemons)
            for daemon in daemons:
                old.start_daemon(daemon)
                if early and daemon == "engine":  # before its agent could learn that it is fenced
                    self.demote_unserved(old)
        elif kind == "kill-agent":
            old.start_daemon("agent")
        elif kind == "stop-agent":
            os.kill(old.pid("agent"), signal.SIGCONT)
        else:
            self.net.heal()
        if self.dice.random() < 0.2:  # once more, on its way
            time.sleep(self.dice.uniform(0, 0.3))
            self.kill_and_restart(old, "engine")
            self.count["returns killed"] += 1
        for group in self.groups:
            self.returned(group, old)

    def demote_unserved(self, old):
        for group in self.groups:
            status, answer = command(old, "demote", group.name, "--yes")
            check(status == 0, f"demote {group.name}, which is not served: {answer}")
            self.count["demotes of a copy not served"] += 1

    def returned(self, group, old):
        asked = []

        def back():
            if self.follows(group, self.primary, old):
                return True
            state = old.group(group.name, "engine")
            if state and state.get("diverged") and not asked:
                status, answer = command(old, "demote", group.name, "--yes")
                check(status in (0, 5, 6, 7), f"demote {group.name}: {answer}")
                if status == 0:
                    asked.append(True)
            return False

        wait_for(f"group {group.name}: {old.name} to follow {self.primary.name}", back, 60, 0.05)
        self.count["returns"] += 1
        self.count["returns with salvage"] += bool(asked)

    # ---- planned -----------------------------------------------------------------------------

    @timed
    def switchover(self):
        """Under load, with a daemon killed in the middle of it now and then."""
        self.settled()
        group = self.dice.choice(self.groups)
        answers = []
        call = threading.Thread(
            target=lambda: answers.append(command(self.primary, "switchover", group.name, "--yes", "--timeout", "5")),
            daemon=True,
        )
        killed = self.dice.random() < 0.4
        call.start()
        if killed:
            site, daemon = self.dice.choice(self.sites), self.dice.choice(("agent", "engine"))
            time.sleep(self.dice.uniform(0, 0.15))
            self.kill_and_restart(site, daemon)
        call.join(60)
        check(not call.is_alive(), "switchover does not answer")
        done = answers[0][0] == 0
        reason = answers[0][1].get("error", {}).get("reason")
        # Not ready, given up in time: refusals that leave everything as it was.
        check(done or killed or reason in ("not-ready", "timeout"), f"switchover of {group.name}: {answers[0][1]}")
        self.count["switchovers refused"] += not done and not killed
        self.count["switchovers"] += done
        self.count["switchovers killed"] += killed
        self.one_primary(group, done)

    def one_primary(self, group, done):
        """Every group serves somewhere and is followed; all of them go to where `group` is."""
        old, new = self.primary, self.standby
        wait_for(f"group {group.name}: one site to serve and the other to follow",
                 lambda: self.follows(group, old, new) or self.follows(group, new, old), 60)
        here = new if self.follows(group, new, old) else old
        check(here is new or not done, "switchover said that it was done, but the old primary serves")
        for one in self.groups:
            one.writer.halt = True
            one.writer.over()
            if one is not group and here is new:
                self.move(one, old, new)
        self.primary = here
        for one in self.groups:
            self.primary.wait_serving(one.name)
            one.content(self.primary, one.writer.acked)
        self.settled()
        self.write()

    def move(self, group, old, new):
        """The other group goes to where the first one is: repeated until it is done."""

        def moved():
            if self.follows(group, old, new):
                command(old, "switchover", group.name, "--yes", "--timeout", "5")
            return self.follows(group, new, old)

        wait_for(f"group {group.name} to move to {new.name}", moved, 60, 0.1)
        self.count["switchovers"] += 1

    # ---- both sides, byte for byte ------------------------------------------------------------

    @timed
    def audit(self):
        self.stop_writing()
        heads = {g: self.primary.group(g.name, "agent")["head_seq"] for g in self.groups}
        for group in self.groups:
            check(heads[group] == group.history.last(), f"{group.name}: {heads[group]} records for "
                                                        f"{group.history.last()} writes")
            self.standby.wait_group(group.name, "engine", f"seq {heads[group]} to be applied",
                                    lambda s: s["applied_seq"] >= heads[group] and s["standby"]["consistent"], 60)
        self.primary.stop()
        self.standby.stop()
        for group in self.groups:
            for site in self.sites:
                group.history.verify(read_file(site.volume(group.name, "data"), BLOCKS), heads[group], heads[group])
            done = self.lab.run("cmp", *(site.volume(group.name, "data") for site in self.sites), ok=None)
            check(done.returncode == 0, f"{group.name}: {done.stdout}{done.stderr}")
            group.history.cut(heads[group])
        for site in self.sites:
            site.start()
        self.settled()
        self.write()
        self.count["audits"] += 1


def torture(lab, cycles, seed):
    say(f"seed {seed}")
    began = time.monotonic()
    world = World(lab, seed)
    world.write()
    for cycle in range(1, cycles + 1):
        faults = []
        for _ in range(world.dice.choice((0, 0, 1, 1, 2))):
            time.sleep(world.dice.uniform(0.05, 0.3))
            faults.append(world.fault())
        if cycle % SWITCH_EVERY == 0:
            world.switchover()
        if not faults or world.dice.random() < 0.5:
            world.settled()
        time.sleep(world.dice.uniform(0.1, 0.5))
        say(f"{cycle}: {' '.join(faults)}{' ' if faults else ''}{world.kill_and_promote()}")
        if cycle % AUDIT_EVERY == 0 or cycle == cycles:
            world.audit()
    world.stop_writing()
    for site in world.sites:
        site.stop()
    took = time.monotonic() - began
    say("seconds: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in world.took.most_common()))
    writes = sum(group.history.last() for group in world.groups)
    for what, count in sorted(world.count.items()):
        say(f"  {count:7}  {what}")
    say(f"torture: {cycles} kill-and-promote cycles of {len(world.groups)} groups in {took:.0f} s, "
        f"{writes} writes, nothing lost that was promised")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="kill and promote, again and again")
    parser.add_argument("--cycles", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    options = parser.parse_args()
    main(lambda lab: torture(lab, options.cycles, options.seed), "torture", ("ip", "nft", "cmp"))
