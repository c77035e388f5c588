#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An outage longer than the journal, writes on the old primary, and then its standby is promoted: what
the journal does not hold any more cannot become salvage, and is not given up before that was said."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say
from numbered import Plan, Writer
from sites import MIB, Pair

SIZE = 48 * MIB
BLOCKS = SIZE // 4096


def parted(lab, name, rejoin):
    """alpha was primary and has more than its journal holds; beta was promoted without that."""
    pair = Pair(lab, {"db": {"data": SIZE}},
                {"journal_size": "16MiB", "journal_file_size": "4MiB", "rejoin": rejoin}, directory=name)
    pair.start()
    alpha, beta = pair.alpha, pair.beta
    writer = Writer(Plan(1, BLOCKS, seed=79), [alpha.uri("db", "data")], limit=200, depth=8)
    writer.start()
    check(writer.died() == 200, f"the writer failed: {writer.error}")
    pair.caught_up("db")
    beta.stop()
    writer = Writer(Plan(1, BLOCKS, seed=80), [alpha.uri("db", "data")], limit=9000, depth=16)
    writer.start()
    check(writer.died() == 9000, f"the writer failed: {writer.error}")
    check(alpha.group("db", "agent")["journal"]["oldest_seq"] > 201, "the journal has not moved on")
    alpha.kill()
    beta.start()
    beta.promote_after_loss("db")
    beta.wait_serving("db")
    alpha.start()
    return pair


def volume(site):
    with open(site.volume("db", "data"), "rb") as file:
        return file.read()


def untouched(pair, state):
    alpha = pair.alpha
    check(state["common_seq"] == 200 and state["salvage_missing"] > 0, f"diverged: {state}")
    before = volume(alpha)
    error = alpha.cli_json("demote", "db", "--yes", ok=(5,))["error"]
    check("cannot become salvage" in str(error) and "--without-salvage" in str(error), f"demote: {error}")
    time.sleep(1.5)  # its primary comes again
    state = alpha.group("db", "engine")
    check(state["diverged"] and state["role"] == "fenced", f"it follows all the same: {state}")
    check(volume(alpha) == before, "its volume has changed")
    check("salvage" not in os.listdir(alpha.group_dir("db")), "there is a salvage before anybody agreed")
    table = alpha.cli("status").stdout
    check("holdfast demote db --without-salvage" in table, f"status:\n{table}")
    return state["salvage_missing"]


def test(lab):
    for rejoin in ("manual", "auto"):
        say(f"the journal has moved on; rejoin = {rejoin}")
        pair = parted(lab, rejoin, rejoin)
        alpha, beta = pair.alpha, pair.beta
        state = alpha.wait_group("db", "engine", "diverged", lambda s: s["role"] == "fenced" and s["diverged"])
        missing = untouched(pair, state)
        alpha.cli("demote", "db", "--without-salvage", "--yes")
        alpha.wait_group("db", "engine", "a standby", lambda s: s["role"] == "standby", 30)
        alpha.wait_streaming("db", 60)
        table = alpha.cli("salvage", "list", "db").stdout
        check(f"lacks 201 to {200 + missing}" in table, f"salvage list:\n{table}")
        salvage = alpha.cli_json("salvage", "list", "db")["salvages"][0]
        check(salvage["lacks_seq"] == 201 and salvage["first_seq"] == 201 + missing
              and salvage["last_seq"] == 9200 and salvage["whole"], f"salvage list: {salvage}")
        alpha.cli("salvage", "show", "db", salvage["id"])
        alpha.cli("salvage", "extract", "db", salvage["id"], "--out", lab.path("out-" + rejoin))
        pair.alpha, pair.beta = beta, alpha
        pair.stop_and_compare()


main(test, "79")
