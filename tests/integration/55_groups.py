#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two groups with several volumes each: order holds across the volumes of a group, groups are on their
own, and one group is promoted while the other one stays."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import nbd
from lab import check, main, say
from numbered import Plan, Writer, read_uri, verify
from sites import MIB, Pair

GROUPS = {
    "db": {"data": 4 * MIB, "wal": 4 * MIB, "temp": 4 * MIB},
    "web": {"root": 4 * MIB, "home": 4 * MIB},
}
BLOCKS = 4 * MIB // 4096


def uris(site, group):
    return [site.uri(group, volume) for volume in GROUPS[group]]


def listed(lab, site, group):
    handle = nbd.NBD()
    handle.set_opt_mode(True)
    handle.connect_uri(f"nbd+unix:///?socket={site.nbd_socket(group)}")
    names = []
    handle.opt_list(lambda name, text: names.append(name))
    handle.opt_abort()
    return names


def test(lab):
    pair = Pair(lab, GROUPS)
    pair.start()
    for group, volumes in GROUPS.items():
        names = listed(lab, pair.alpha, group)
        check(set(volumes) <= set(names), f"group {group} offers {names}")
    check(set(listed(lab, pair.alpha, "db")).isdisjoint(GROUPS["web"]), "a group offers another one's volumes")

    plans = {group: Plan(len(volumes), BLOCKS, seed=55) for group, volumes in GROUPS.items()}
    writers = {group: Writer(plans[group], uris(pair.alpha, group)) for group in GROUPS}
    for writer in writers.values():
        writer.start()
    time.sleep(1.5)

    say("one group is taken over by force; the other one goes on as if nothing had happened")
    answer = pair.beta.promote("db", "--force")
    writers["db"].died()
    check(writers["db"].error, "the fenced group still takes writes")
    last = verify(plans["db"], [read_uri(uri, BLOCKS) for uri in uris(pair.beta, "db")], exactly=answer["seq"])
    say(f"group db: {writers['db'].acked} acknowledged, recovered to {last}, across 3 volumes")
    before = writers["web"].acked
    time.sleep(0.5)
    check(writers["web"].acked > before and not writers["web"].error, "group web was disturbed")
    table = pair.beta.cli("status").stdout
    check("primary" in table and "standby" in table, f"both roles on one host:\n{table}")
    check(pair.alpha.group("web", "agent")["epoch"] == 1, "the epoch of group web moved")

    say("then the whole site goes, and the other group is promoted, too")
    pair.alpha.kill()
    acked = writers["web"].died()
    answer = pair.beta.promote_after_loss("web")
    last = verify(plans["web"], [read_uri(uri, BLOCKS) for uri in uris(pair.beta, "web")], exactly=answer["seq"])
    say(f"group web: {acked} acknowledged, recovered to {last}, across 2 volumes")
    check(last > 100, "hardly anything arrived")
    pair.beta.stop()


main(test, "55")
