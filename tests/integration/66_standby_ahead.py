#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Of two standbys the one that lags is promoted: the other holds writes that the new history does not
have. It keeps them as salvage when the operator says so, and follows; the old primary, configured to
come back by itself, does the same. In the end all three are equal."""

import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import nbd
from lab import check, main, say, wait_for
from sites import MIB, Pki, Site

SIZE = 32 * MIB
STEP = 65536
NAMES = ("alpha", "beta", "gamma")


def write(site, first, count, seed):
    noise = random.Random(seed)
    handle = nbd.NBD()
    handle.connect_uri(site.uri("db", "data"))
    for number in range(first, first + count):
        handle.pwrite(noise.randbytes(STEP), number * STEP)
    handle.flush()
    handle.shutdown()


def caught_up(source, target, seconds=60):
    state = source.group("db", "agent")
    head = state["head_seq"]
    target.wait_group("db", "engine", f"a whole standby with everything up to {head}",
                      lambda s: s["role"] == "standby" and s["standby"]["consistent"]
                      and s["epoch"] == state["epoch"] and s["applied_seq"] >= head, seconds)


def peer(source, site):
    return next(p for p in source.group("db", "agent")["peers"] if p["node"] == site.node)


def test(lab):
    pki = Pki(lab)
    sites = [Site(lab, n, {"db": {"data": SIZE}}, {"rejoin": "auto"} if n == "alpha" else {})
             for n in NAMES]
    alpha, beta, gamma = sites
    for site in sites:
        site.tls = pki.issue(site.node)
        site.peers = {s.node: f"127.0.0.1:{s.port}" for s in sites if s is not site}
        site.write_conf()
    alpha.init("primary")
    for site in (beta, gamma):
        site.init("standby")
        site.start()
    alpha.start()
    alpha.wait_serving("db")
    write(alpha, 0, 100, 1)
    for site in (beta, gamma):
        site.wait_streaming("db")
        caught_up(alpha, site)
    shared = alpha.group("db", "agent")["head_seq"]

    say("beta stays behind, gamma gets twenty writes more, alpha dies, beta is promoted")
    beta.kill_daemon("engine")
    write(alpha, 50, 20, 2)
    caught_up(alpha, gamma)
    alpha.kill()
    beta.start_daemon("engine")
    answer = beta.promote("db")
    check(answer["seq"] == shared, f"promoted to {answer['seq']}, not {shared}")
    write(beta, 300, 10, 3)

    say("gamma holds what the new history does not: it is left alone until somebody says so")
    state = gamma.wait_group("db", "engine", "to have diverged", lambda s: s["diverged"], 30)
    check(state["role"] == "standby" and state["common_seq"] == shared, f"{state}")
    check(state["fenced_by_epoch"] == 2, "it does not know which epoch rules")
    before = open(gamma.volume("db", "data"), "rb").read()
    write(beta, 310, 10, 4)
    wait_for("beta to say it", lambda: "holdfast demote db" in peer(beta, gamma)["error"])
    check(before == open(gamma.volume("db", "data"), "rb").read(), "it was written to")
    sent = peer(beta, gamma)["sent_bytes"]
    gamma.cli("demote", "db", "--yes")
    caught_up(beta, gamma)
    sent = peer(beta, gamma)["sent_bytes"] - sent
    say(f"  {40 * STEP} bytes differed, {sent} were sent")
    check(40 * STEP <= sent < 50 * STEP, f"{sent} bytes sent")

    say("alpha returns and follows by itself, as it is configured to")
    alpha.start()
    caught_up(beta, alpha)
    for site in (alpha, gamma):
        salvage = site.cli_json("salvage", "list", "db")["salvages"]
        check([s["records"] for s in salvage] == [20], f"{site.name}: {salvage}")
    write(beta, 0, 5, 5)
    for site in (alpha, gamma):
        caught_up(beta, site)
    beta.stop()
    alpha.stop()
    gamma.stop()
    for site in (alpha, gamma):
        lab.run("cmp", beta.volume("db", "data"), site.volume("db", "data"))


main(test, "66")
