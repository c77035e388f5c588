#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Volumes that somebody writes to while no daemon has them: a copy like that follows only after all of
it was compared, and is not promoted without --force."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say
from numbered import Plan, Writer
from sites import MIB, Pair

SIZE = 16 * MIB
MARK = b"BEHIND THE BACK "


def new_pair(lab, name):
    pair = Pair(lab, {"db": {"data": SIZE}}, directory=name)
    pair.start()
    writer = Writer(Plan(1, SIZE // 4096, seed=78), [pair.alpha.uri("db", "data")], limit=500, depth=8)
    writer.start()
    check(writer.died() == 500, f"the writer failed: {writer.error}")
    pair.caught_up("db")
    return pair


def tamper(site):
    with open(site.volume("db", "data"), "r+b") as file:
        file.seek(4 * MIB)
        file.write(MARK * 4096)


def clean(site):
    with open(site.volume("db", "data"), "rb") as file:
        check(MARK not in file.read(), f"{site.name} still has what was written behind its back")


def old_primary(lab, name, come_back):
    say(f"an old primary's volume is written to; {name}")
    pair = new_pair(lab, name)
    alpha, beta = pair.alpha, pair.beta
    alpha.stop()
    beta.promote_after_loss("db")
    beta.wait_serving("db")
    tamper(alpha)
    come_back(alpha)
    alpha.wait_streaming("db", 60)
    state = alpha.group("db", "engine")
    check(state["role"] == "standby" and not state["suspect"], f"after the comparison: {state}")
    beta.cli("verify", "db")
    pair.alpha, pair.beta = beta, alpha
    pair.stop_and_compare()
    clean(alpha)


def by_demote(site):
    """The operator's word instead of an agent that looks."""
    site.start_daemon("engine")
    site.cli("demote", "db", "--yes")


def standby(lab):
    say("a standby's volume is written to; its primary dies before it was compared")
    pair = new_pair(lab, "standby")
    alpha, beta = pair.alpha, pair.beta
    beta.stop()
    tamper(beta)
    alpha.kill()
    beta.start()
    state = beta.wait_group("db", "engine", "suspect", lambda s: s["suspect"])
    table = beta.cli("status").stdout
    check("! db: a volume was changed behind the daemon's back" in table, f"status:\n{table}")
    error = beta.cli_json("promote", "db", "--yes", ok=(5,))["error"]
    check("behind the engine's back" in str(error), f"promote: {error}")
    alpha.start()
    beta.wait_streaming("db", 60)
    state = beta.group("db", "engine")
    check(not state["suspect"], f"compared, and still suspect: {state}")
    pair.stop_and_compare()
    clean(beta)


def forced(lab):
    say("promoted by force as it is: the other copy gets what is here")
    pair = new_pair(lab, "forced")
    alpha, beta = pair.alpha, pair.beta
    beta.stop()
    tamper(beta)
    alpha.stop()
    beta.start()
    beta.wait_group("db", "engine", "suspect", lambda s: s["suspect"])
    beta.promote("db", "--force")
    beta.wait_serving("db")
    check(not beta.group("db", "agent")["suspect"], "served, and still suspect")
    alpha.start()
    alpha.wait_streaming("db", 60)
    pair.alpha, pair.beta = beta, alpha
    pair.stop_and_compare()
    with open(alpha.volume("db", "data"), "rb") as file:
        check(MARK in file.read(), "the other copy does not have what rules")


def test(lab):
    old_primary(lab, "agent", lambda site: site.start())
    old_primary(lab, "demote", by_demote)
    standby(lab)
    forced(lab)


main(test, "78")
