#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What is said is true: a copy whose history has parted does not count what is lost, and is not promoted
without a word; a standby in the middle of a resync is behind from the position that it keeps."""

import os
import re
import sys
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import nbd
from lab import check, main, say
from sites import MIB, Pair, Pki, Site

SIZE = 32 * MIB
UNKNOWN = {"writes": None, "bytes": None, "seconds": None}


def write(site, off, count, length=4096):
    handle = nbd.NBD()
    handle.connect_uri(site.uri("db", "data"))
    for number in range(count):
        handle.pwrite(os.urandom(length), off + number * length)
    handle.flush()
    handle.shutdown()


def metrics(site):
    with urllib.request.urlopen(f"http://127.0.0.1:{site.metrics_port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(holdfast_\w+)\{.*\} (\S+)$", text, re.M)}


def shown(site, code):
    """The command's table and notes, with --check giving `code`."""
    return site.cli("status", "--check", ok=(code,)).stdout


def parted(lab):
    say("of two standbys the one that lags is promoted: the other does not depose it by mistake")
    pki = Pki(lab, lab.make_dir("three") + "/pki")
    sites = [Site(lab, n, {"db": {"data": SIZE}}, {}, lab.make_dir(f"three/{n}")) for n in ("alpha", "beta", "gamma")]
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
    for site in (beta, gamma):
        site.wait_streaming("db")
    write(alpha, 0, 1)
    for site in (beta, gamma):
        site.wait_group("db", "engine", "seq 1", lambda s: s["durable_seq"] == 1)
    beta.stop_daemon("engine")
    write(alpha, 0, 50)
    gamma.wait_group("db", "engine", "seq 51", lambda s: s["durable_seq"] == 51)
    alpha.kill()
    beta.start_daemon("engine")
    beta.promote("db")
    beta.wait_serving("db")
    write(beta, MIB, 10)
    state = gamma.wait_group("db", "engine", "to have diverged", lambda s: s["diverged"] and s["fenced_by_epoch"] == 2)
    check(state["standby"]["lag"] == UNKNOWN, f"a lag across two histories: {state}")
    text = shown(gamma, 4)
    check("ruling history of beta.example" in text and "unknown" in text, text)
    error = gamma.promote("db", ok=(5,))["error"]
    check("epoch 2 rules at beta.example" in error["text"] and "holdfast demote db" in error["remedy"], f"{error}")
    check(beta.group("db", "agent")["state"] == "serving", "the primary was deposed")
    answer = gamma.promote("db", "--force")
    check(answer["epoch"] == 3 and answer["lost"] == UNKNOWN, f"with --force: {answer}")
    check(answer["acknowledged_lost"] == "unknown", f"{answer}")
    state = beta.wait_group("db", "engine", "fenced", lambda s: s["role"] == "fenced" and s["fenced_by_epoch"] == 3)
    check(state["standby"]["lag"] == UNKNOWN, f"a fenced copy: {state}")
    for site in (beta, gamma):
        site.stop()


def copied_to(lab):
    say("in the middle of a resync: behind from the position that is kept, on both sides")
    pair = Pair(lab, {"db": {"data": SIZE}}, {"journal_size": "16MiB", "journal_file_size": "4MiB",
                                             "rpo_objective": "2s"}, directory="copied")
    pair.alpha.peer_options = {"sync_rate": "1MiB"}
    pair.beta.top = {"engine": {"metrics_listen": f"127.0.0.1:{pair.beta.metrics_port}"}}
    pair.alpha.write_conf()
    pair.beta.write_conf()
    pair.start()
    write(pair.alpha, 0, 16, MIB)
    pair.caught_up("db", 60)
    pair.beta.stop()
    write(pair.alpha, 0, 24, MIB)
    pair.beta.start()
    state = pair.beta.wait_group("db", "engine", "a kept position", lambda s: s["standby"]["kept"], 30)
    kept = state["standby"]["kept"]["seq"]
    state = pair.beta.wait_group("db", "engine", "a report behind it",
                                 lambda s: (s["standby"]["lag"]["seconds"] or 0) > 2.5)
    lag = state["standby"]["lag"]
    check(kept == 16 and lag["writes"] == 24 and lag["bytes"] == 24 * MIB, f"kept {kept}, behind {lag}")
    check(not re.search(r" 0 +0 B ", shown(pair.beta, 4)), "nothing behind, says the table")
    found = metrics(pair.beta)
    check(found["holdfast_protected"] == 0 and found["holdfast_replication_lag_writes"] == 24
          and found["holdfast_rpo_seconds"] > 2, f"{found}")
    peer = pair.alpha.group("db", "agent")["peers"][0]
    check(peer["sync"]["active"] and peer["lag"]["writes"] == 24 and peer["lag"]["bytes"] == 24 * MIB
          and peer["lag"]["seconds"] > 2, f"{peer}")
    shown(pair.alpha, 4)
    pair.alpha.kill()
    answer = pair.beta.promote_after_loss("db")
    check(answer["seq"] == kept and answer["lost"]["writes"] == 24 and answer["lost"]["seconds"] > 2, f"{answer}")
    pair.beta.stop()


def differs(lab):
    say("a difference is known to both sides, over restarts, until it is repaired")
    pair = Pair(lab, {"db": {"data": SIZE}}, directory="differs")
    alpha, beta = pair.alpha, pair.beta
    pair.start()
    write(alpha, 0, 8, MIB)
    pair.caught_up("db")
    with open(beta.volume("db", "data"), "r+b") as file:
        file.seek(3 * MIB)
        byte = file.read(1)[0]
        file.seek(3 * MIB)
        file.write(bytes([byte ^ 1]))
    alpha.cli("verify", "db", ok=(4,))
    for site in (alpha, beta):
        check("holdfast verify db --to beta.example --repair" in shown(site, 4), f"{site.name} says nothing")
    beta.kill_daemon("engine")  # not a clean stop: its stamps would be found changed
    beta.start_daemon("engine")
    alpha.kill_daemon("agent")
    alpha.start_daemon("agent")
    alpha.wait_serving("db")
    beta.wait_streaming("db")
    alpha.wait_group("db", "agent", "connected", lambda s: s["peers"][0]["connected"])
    for site in (alpha, beta):
        check("! db: " in shown(site, 4), f"{site.name} has forgotten")
    check(beta.group("db", "engine")["standby"]["differing_ranges"] == 1, "the standby does not know")
    alpha.cli("verify", "db", "--repair", ok=(0, 4))
    alpha.wait_group("db", "agent", "repaired", lambda s: s["peers"][0]["verify"]["known_ranges"] == 0)
    beta.wait_group("db", "engine", "told", lambda s: s["standby"]["differing_ranges"] == 0)
    for site in (alpha, beta):
        check("!" not in shown(site, 0), f"{site.name}: an alarm still")
    pair.stop_and_compare()


def lacking(lab):
    say("a volume of the configuration that the group does not have")
    pair = Pair(lab, {"db": {"data": SIZE}}, directory="lacking")
    pair.start()
    for site in (pair.alpha, pair.beta):
        check("wal" not in shown(site, 0), "not yet there")
        site.stop()
        site.groups = {"db": {"data": SIZE, "wal": SIZE}}
        with open(site.volume("db", "wal"), "wb") as file:
            file.truncate(SIZE)
        site.write_conf()
    pair.beta.start()
    pair.alpha.start()
    pair.alpha.wait_serving("db")
    pair.beta.wait_streaming("db")
    for site, daemon in ((pair.alpha, "agent"), (pair.beta, "engine")):
        text = site.cli("status").stdout
        check("! db: the configuration names volumes" in text and "wal" in text
              and "holdfast volume add db" in text, text)
        check('volumes="wal"' in site.log_text(daemon), f"{daemon}: nothing in the log")
        check(site.group("db", daemon)["lacking_volumes"] == "wal", "not in the status")
    pair.alpha.stop()
    pair.beta.stop()


def test(lab):
    parted(lab)
    copied_to(lab)
    differs(lab)
    lacking(lab)


main(test, "67")
