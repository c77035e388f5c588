#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What an operator types when a primary returns that had more than its standby, and for the move back:
status, demote, salvage, switchover, with every refusal on the way; in the end both sides are equal and the
salvage holds exactly the writes that were left behind."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say, wait_for
from numbered import Plan, Writer, read_uri, verify
from proxy import Proxy
from sites import MIB, Pair

SIZE = 8 * MIB
BLOCKS = SIZE // 4096
SHARED, LOST = 300, 100


def has(text, *words):
    for word in words:
        check(word in text, f"no '{word}' in:\n{text}")


def write(pair, site, plan, first, last):
    writer = Writer(plan, [site.uri("db", "data")], first=first, limit=last)
    writer.start()
    check(writer.died() == last and not writer.error, f"{writer.error}")


class Branch:
    """Writes of `base` up to `shared`, of `own` behind it."""

    def __init__(self, base, own, shared):
        self.base, self.own, self.shared = base, own, shared
        self.volumes, self.blocks = base.volumes, base.blocks

    def _of(self, number):
        return self.base if number <= self.shared else self.own

    def place(self, number):
        return self._of(number).place(number)

    def block(self, number):
        return self._of(number).block(number)

    def last_at(self, last):
        return Plan.last_at(self, last)


def follows(site):
    """It may be connected and consistent for a moment before it has become a standby."""
    site.wait_group(
        "db",
        "engine",
        "a standby that follows",
        lambda s: s["role"] == "standby" and s["state"] == "receiving" and s["standby"]["consistent"],
        30,
    )


def refusals_while_served(pair):
    say("refused while all is well")
    error = pair.alpha.cli_json("demote", "db", ok=(5,))["error"]
    check(error["reason"] == "served" and "switchover" in error["remedy"], f"{error}")
    pair.alpha.cli("accept", "db", ok=(2,))
    pair.alpha.cli("switchover", "db", "--timeout", "soon", ok=(2,))
    pair.alpha.cli("switchover", "none", ok=(9,))
    check(pair.alpha.cli_json("switchover", "db", "--expect-epoch", "9", ok=(7,))["error"]["reason"] == "epoch", "")
    error = pair.alpha.cli_json("switchover", "db", "--to", "gamma.example", ok=(9,))["error"]
    check("gamma.example" in error["text"], f"{error}")
    check(pair.beta.cli_json("switchover", "db", ok=(7,))["error"]["reason"] == "not-served", "switchover on a standby")
    check(pair.beta.cli_json("accept", "db", "--expect-epoch", "1", ok=(7,))["error"]["reason"] == "not-served", "")
    has(pair.beta.cli("demote", "db").stdout, "follows already")
    pair.alpha.cli("salvage", "list", "db")


def part(pair, proxy, plan):
    say("the link is cut; the primary goes on, the standby is promoted")
    write(pair, pair.alpha, plan, 1, SHARED)
    pair.caught_up("db")
    proxy.refusing = True
    proxy.cut()
    write(pair, pair.alpha, plan, SHARED + 1, SHARED + LOST)
    error = pair.alpha.cli_json("switchover", "db", "--timeout", "1", ok=(5,))["error"]
    check(error["reason"] == "not-ready", f"{error}")
    check(pair.beta.promote_after_loss("db")["seq"] == SHARED, "promoted to another position")
    branch = Branch(plan, Plan(1, BLOCKS, seed=73), SHARED)
    write(pair, pair.beta, branch, SHARED + 1, SHARED + 200)
    proxy.refusing = False
    return branch


def come_back(pair):
    say("the old primary is fenced, and waits for a word")
    pair.alpha.wait_group("db", "engine", "its divergence", lambda s: s["role"] == "fenced" and s["diverged"], 30)
    shown = pair.alpha.cli("status").stdout
    has(shown, "db    fenced", f"! db: holds writes behind seq {SHARED}", "holdfast demote db")
    check(pair.alpha.cli("status", "--check", ok=(4,)).returncode == 4, "--check")
    pair.alpha.cli("promote", "db", ok=(5,))
    check(pair.alpha.cli_json("demote", "db", "--expect-epoch", "7", ok=(7,))["error"]["reason"] == "epoch", "")
    pair.alpha.cli("salvage", "show", "db", f"1-{SHARED + 1}-{SHARED + LOST}", ok=(9,))

    say("demote: it shows what becomes salvage, and follows")
    done = pair.alpha.cli("demote", "db", "--expect-epoch", "1")
    has(done.stdout, f"becomes salvage   seq {SHARED + 1} to {SHARED + LOST}: {LOST} records", "follows as soon as")
    follows(pair.alpha)
    check("! db" not in pair.alpha.cli("status").stdout, "an alarm is left")
    has(pair.alpha.cli("status").stdout, "1 salvage is kept")
    has(pair.alpha.cli("doctor", ok=None).stdout, "1 salvage is kept")


def salvage(pair, plan, lab):
    say("the salvage holds the writes that were left behind")
    found = json.loads(pair.alpha.cli("salvage", "list", "db", "-o", "json").stdout)["salvages"]
    check(len(found) == 1 and found[0]["whole"] and found[0]["records"] == LOST, f"{found}")
    out = lab.path("salvaged")
    pair.alpha.cli("salvage", "extract", "db", found[0]["id"], "--out", out)
    newest = {plan.place(number)[1]: number for number in range(SHARED + 1, SHARED + LOST + 1)}
    with open(os.path.join(out, "data.img"), "rb") as image:
        for block, number in newest.items():
            image.seek(block * 4096)
            check(image.read(4096) == plan.block(number), f"block {block} is not of write {number}")
    with open(os.path.join(out, "map.json"), encoding="utf-8") as file:
        volume = json.load(file)["volumes"][0]
    check(volume["covered_bytes"] == 4096 * len(newest), f"{volume['covered_bytes']} bytes in the map")
    pair.alpha.cli("salvage", "drop", "db", found[0]["id"])
    check(pair.alpha.group("db", "engine")["salvages"] == 0, "it is still counted")


def move_back(pair, branch):
    say("and home again: switchover")
    pair.caught_up("db", source=pair.beta, target=pair.alpha)
    answer = pair.beta.cli_json("switchover", "db", "--to", "alpha.example", "--expect-epoch", "2")
    check(answer["epoch"] == 3 and answer["seq"] == SHARED + 200 and answer["to"] == "alpha.example", f"{answer}")
    check(0 <= answer["held_seconds"] <= answer["took_seconds"], f"{answer}")
    pair.alpha.wait_serving("db")
    follows(pair.beta)
    verify(branch, [read_uri(pair.alpha.uri("db", "data"), BLOCKS)], exactly=SHARED + 200)
    # A round trip without writes is no divergence, and nothing is copied.
    has(pair.alpha.cli("switchover", "db").stdout, "primary at beta.example under epoch 4", "lost           nothing")
    pair.beta.wait_serving("db")
    follows(pair.alpha)
    pair.beta.cli("switchover", "db")
    pair.alpha.wait_serving("db")
    follows(pair.beta)
    for site in (pair.alpha, pair.beta):
        has(site.cli("salvage", "list", "db").stdout, "has no salvage")
    wait_for("the verification", lambda: pair.alpha.cli("verify", "db", ok=(0, 5)).returncode == 0, 20)


def test(lab):
    proxies = []

    def through(port):
        proxies.append(Proxy(lab, port))
        return proxies[0].address()

    pair = Pair(lab, {"db": {"data": SIZE}}, through=through)
    pair.start()
    plan = Plan(1, BLOCKS, seed=72)
    refusals_while_served(pair)
    branch = part(pair, proxies[0], plan)
    come_back(pair)
    salvage(pair, plan, lab)
    move_back(pair, branch)
    pair.stop_and_compare()


main(test, "72")
