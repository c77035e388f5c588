#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One primary, two standbys: each has its own position, dirty map, state and rate, and in mode sync-all
both hold what was acknowledged."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say, wait_for
from numbered import Plan, Writer, read_uri, verify
from sites import MIB, Pki, Site

SIZE = 32 * MIB
BLOCKS = SIZE // 2 // 4096  # only half of it is ever written
RATE = 2500  # writes per second: what a busy machine's standby follows
NAMES = ("alpha", "beta", "gamma")


class Three:
    """alpha is the primary, beta and gamma follow it."""

    def __init__(self, lab, directory, options):
        self.lab = lab
        lab.make_dir(directory)
        pki = Pki(lab, os.path.join(directory, "pki"))
        self.sites = [
            Site(lab, n, {"db": {"data": SIZE}}, options, lab.make_dir(os.path.join(directory, n)))
            for n in NAMES
        ]
        self.alpha, self.beta, self.gamma = self.sites
        for site in self.sites:
            site.tls = pki.issue(site.node)
            site.peers = {other.node: f"127.0.0.1:{other.port}" for other in self.sites if other is not site}
            site.write_conf()
        self.alpha.init("primary")
        for site in (self.beta, self.gamma):
            site.init("standby")
            site.start()
        self.alpha.start()
        self.alpha.wait_serving("db")
        for site in (self.beta, self.gamma):
            site.wait_streaming("db")

    def peer(self, site, state=None):
        state = state or self.alpha.group("db", "agent")
        return next(p for p in state["peers"] if p["node"] == site.node)

    def wait_peer(self, site, what, condition, seconds=40):
        state = self.alpha.wait_group(
            "db", "agent", f"{site.name}: {what}", lambda s: condition(self.peer(site, s)), seconds
        )
        return self.peer(site, state), state

    def settle(self, last_write):
        """Both hold and have applied everything."""
        head = self.alpha.group("db", "agent")["head_seq"]
        for site in (self.beta, self.gamma):
            site.wait_group("db", "engine", f"everything up to {head} ({last_write} writes)",
                            lambda s: s["applied_seq"] >= head and s["standby"]["consistent"], 60)

    def stop_and_compare(self):
        self.alpha.stop()
        for site in (self.beta, self.gamma):
            site.stop()
            self.lab.run("cmp", self.alpha.volume("db", "data"), site.volume("db", "data"))


def different_lag(lab):
    say("one streams, the other is away until the journal has let go of what it lacks")
    three = Three(lab, "lag", {"journal_size": "16MiB", "journal_file_size": "4MiB"})
    alpha, beta, gamma = three.sites
    plan = Plan(1, BLOCKS, seed=590)
    writer = Writer(plan, [alpha.uri("db", "data")], depth=16, rate=RATE)
    writer.start()
    wait_for("both to follow", lambda: min(three.peer(s)["durable_seq"] for s in (beta, gamma)) > 100)
    gamma.stop_daemon("engine")
    away, _ = three.wait_peer(gamma, "to be disconnected", lambda p: p["state"] == "disconnected")
    held = away["durable_seq"]

    released, state = three.wait_peer(gamma, "a dirty map", lambda p: p["needs_sync"])
    near = three.peer(beta, state)
    say(f"beta at {near['durable_seq']} of {state['head_seq']}, gamma at {held}, "
        f"{released['dirty_bytes'] >> 10} KiB dirty")
    check(0 < released["dirty_bytes"] <= SIZE // 2 and not released["connected"], f"gamma: {released}")
    check(released["lag"]["writes"] >= state["head_seq"] - held, f"gamma's lag: {released['lag']}")
    check(near["connected"] and not near["needs_sync"] and near["dirty_bytes"] == 0, f"beta: {near}")
    check(near["durable_seq"] > held and near["lag"]["writes"] < released["lag"]["writes"], f"beta: {near}")
    # It goes on, and says how fast; of the other nothing is sent.
    time.sleep(1.2)
    state = alpha.group("db", "agent")
    check(three.peer(beta, state)["durable_seq"] > near["durable_seq"], "beta stands still")
    check(three.peer(beta, state)["sent_bytes_per_second"] > 100_000, f"beta: {three.peer(beta, state)}")
    check(three.peer(gamma, state)["dirty_bytes"] >= released["dirty_bytes"], "gamma's map shrinks while away")
    three.wait_peer(gamma, "nothing to be sent", lambda p: p["sent_bytes_per_second"] == 0)

    say("it comes back under writes: a copy for one, the stream goes on for the other")
    starts = three.peer(beta, state)["reconnects"]
    copied = three.peer(gamma, state)["sent_bytes"]
    gamma.start_daemon("engine")
    three.wait_peer(gamma, "the copy to end", lambda p: p["connected"] and not p["needs_sync"])
    last = writer.stop()
    three.settle(last)
    state = alpha.group("db", "agent")
    check(three.peer(beta, state)["reconnects"] == starts, "beta was disconnected as well")
    check(three.peer(gamma, state)["dirty_bytes"] == 0, f"gamma: {three.peer(gamma, state)}")
    check(three.peer(gamma, state)["sent_bytes"] > copied, "nothing was copied")
    for site in (beta, gamma):
        check(three.peer(site, state)["durable_seq"] == state["head_seq"], f"{site.name} is not at the end")
    verify(plan, [read_uri(alpha.uri("db", "data"), BLOCKS)], exactly=last)

    say("a restart keeps what is known of each")
    gamma.stop_daemon("engine")
    writer = Writer(plan, [alpha.uri("db", "data")], first=last + 1, depth=16, rate=RATE)
    writer.start()
    three.wait_peer(gamma, "a dirty map again", lambda p: p["needs_sync"])
    last = writer.stop()
    before = alpha.wait_group("db", "agent", "beta at the end",
                              lambda s: three.peer(beta, s)["durable_seq"] == s["head_seq"])
    alpha.stop_daemon("agent")
    alpha.start_daemon("agent")
    alpha.wait_serving("db")
    after = alpha.wait_group("db", "agent", "beta back", lambda s: three.peer(beta, s)["connected"])
    check(three.peer(gamma, after)["needs_sync"], "the dirty map was forgotten")
    check(three.peer(gamma, after)["dirty_bytes"] >= three.peer(gamma, before)["dirty_bytes"] > 0,
          f"{three.peer(gamma, before)} became {three.peer(gamma, after)}")
    check(not three.peer(beta, after)["needs_sync"], "beta needs a copy for no reason")
    gamma.start_daemon("engine")
    three.wait_peer(gamma, "the second copy to end", lambda p: p["connected"] and not p["needs_sync"])
    three.settle(last)
    three.stop_and_compare()


def sync_all(lab):
    say("sync-all: writes wait for both; afterwards each of them has all that was acknowledged")
    options = {"mode": "sync-all", "on_sync_loss": "freeze", "sync_timeout": "1s", "cache": "writethrough"}
    three = Three(lab, "all", options)
    alpha, beta, gamma = three.sites
    alpha.wait_group("db", "agent", "in sync", lambda s: s["mode"]["state"] == "in-sync")
    plan = Plan(1, BLOCKS, seed=591)
    writer = Writer(plan, [alpha.uri("db", "data")], depth=8, rate=RATE)
    writer.start()
    wait_for("writes", lambda: writer.acked > 200)
    for site in (beta, gamma):
        site.kill_daemon("engine")
        state = alpha.wait_group("db", "agent", "frozen", lambda s: s["mode"]["state"] == "frozen")
        check(not three.peer(site, state)["in_sync"], f"{site.name} is away and in sync")
        acked = writer.acked
        time.sleep(1.5)
        check(writer.acked == acked, f"{writer.acked - acked} writes were acknowledged without {site.name}")
        site.start_daemon("engine")
        alpha.wait_group("db", "agent", "in sync again", lambda s: s["mode"]["state"] == "in-sync")
        wait_for("writes to go on", lambda: writer.acked > acked + 200)
    alpha.kill()
    acked = writer.died()
    for site in (beta, gamma):
        answer = site.promote_after_loss("db")
        check(answer["acknowledged_lost"] == "none", f"{site.name}: {answer}")
        last = verify(plan, [read_uri(site.uri("db", "data"), BLOCKS)], at_least=acked)
        say(f"acknowledged {acked}, {site.name} has {last}")
        site.stop()


def test(lab):
    different_lag(lab)
    sync_all(lab)


main(test, "65")
