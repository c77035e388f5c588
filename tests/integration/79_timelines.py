#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two histories under one epoch never pass for each other: a primary that went on from a backup, two
standbys that were promoted apart. Nothing is overwritten, status says so, and both ways out work."""

import os
import shutil
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say
from numbered import Plan, Writer
from sites import MIB, Pair, Pki, Site

SIZE = 16 * MIB
JOURNAL = {"journal_size": "16MiB", "journal_file_size": "4MiB"}


def write(site, seed, count):
    writer = Writer(Plan(1, SIZE // 4096, seed=seed), [site.uri("db", "data")], limit=count, depth=16)
    writer.start()
    check(writer.died() == count and not writer.error, f"the writer failed: {writer.error}")


def parted(site, kind):
    site.wait_group("db", "agent", f"a node that has parted ({kind})",
                    lambda s: any(p["parted"] == kind for p in s["peers"]))
    check("! db: " in site.cli("status", ok=None).stdout, "no note of what has parted")


def accept(site, epoch):
    """While it serves, with a client that writes."""
    writer = Writer(Plan(1, SIZE // 4096, seed=5), [site.uri("db", "data")], limit=3000, depth=16)
    writer.start()
    site.cli("accept", "db", "--yes", "--expect-epoch", str(epoch))
    check(writer.died() == 3000 and not writer.error, f"accept hurt a client: {writer.error}")
    check(site.group("db", "agent")["epoch"] == epoch + 2, "the epoch did not go up by two")


def from_backup(lab, name, accepted):
    say(f"a primary goes on from a backup until its journal has wrapped; {name}")
    pair = Pair(lab, {"db": {"data": SIZE}}, JOURNAL, directory=name)
    alpha, beta = pair.alpha, pair.beta
    pair.start()
    write(alpha, 1, 50)
    pair.caught_up("db")
    alpha.stop()
    backup = alpha.root + ".backup"
    lab.run("cp", "-a", alpha.root, backup)
    alpha.start()
    alpha.wait_serving("db")
    beta.wait_streaming("db")
    write(alpha, 2, 300)  # what was acknowledged, and the backup lacks
    pair.caught_up("db")
    held = beta.group("db", "engine")["durable_seq"]
    pair.alpha.stop()
    pair.beta.stop()
    shutil.rmtree(alpha.root)
    lab.run("cp", "-a", backup, alpha.root)
    alpha.start()
    alpha.wait_serving("db")
    write(alpha, 3, 9000)
    check(alpha.group("db", "agent")["journal"]["oldest_seq"] > held, "the journal has not wrapped")
    beta.start()
    parted(alpha, "standby")
    check(beta.group("db", "engine")["durable_seq"] == held, "the standby was touched")
    if accepted:
        refused = beta.cli("demote", "db", "--yes", ok=None)
        check(refused.returncode != 0, "demote gave way to an older primary of the same epoch")
        accept(alpha, 1)
        beta.wait_group("db", "engine", "a higher epoch", lambda s: s["fenced_by_epoch"] == 3)
        beta.cli("demote", "db", "--yes")
        beta.wait_streaming("db", 60)
        pair.caught_up("db")
        salvage = beta.cli("salvage", "list", "db").stdout
        check(str(held) in salvage, f"the standby's records are no salvage: {salvage}")
        pair.stop_and_compare()
        return
    beta.cli("promote", "db", "--force", "--yes")
    beta.wait_serving("db")
    check(beta.group("db", "agent")["head_seq"] == held, "promote did not keep what it held")
    alpha.wait_group("db", "engine", "the fence", lambda s: s["role"] == "fenced")
    alpha.stop()
    beta.stop()


def rivals(lab):
    say("two standbys are promoted apart from each other")
    pki = Pki(lab, "pki-rivals")
    sites = [Site(lab, n, {"db": {"data": SIZE}}, JOURNAL, lab.make_dir("rivals-" + n))
             for n in ("alpha", "beta", "gamma")]
    for site in sites:
        site.tls = pki.issue(site.node)
        site.peers = {o.node: f"127.0.0.1:{o.port}" for o in sites if o is not site}
        site.write_conf()
    alpha, beta, gamma = sites
    alpha.init("primary")
    for site in (beta, gamma):
        site.init("standby")
        site.start()
    alpha.start()
    alpha.wait_serving("db")
    for site in (beta, gamma):
        site.wait_streaming("db")
    write(alpha, 1, 200)
    head = alpha.group("db", "agent")["head_seq"]
    for site in (beta, gamma):
        site.wait_group("db", "engine", "everything", lambda s: s["applied_seq"] >= head)
    alpha.kill()
    for stopped, promoted, seed in ((gamma, beta, 2), (beta, gamma, 3)):
        for daemon in stopped.processes.values():
            os.kill(daemon.pid, signal.SIGSTOP)
        promoted.cli("promote", "db", "--force", "--yes")
        promoted.wait_serving("db")
        write(promoted, seed, 300)
        if stopped is gamma:  # it must not hear of beta before it is promoted itself
            for daemon in beta.processes.values():
                os.kill(daemon.pid, signal.SIGSTOP)
        for daemon in stopped.processes.values():
            os.kill(daemon.pid, signal.SIGCONT)
    parted(beta, "rival")
    parted(gamma, "rival")
    check(beta.group("db", "agent")["epoch"] == gamma.group("db", "agent")["epoch"], "no rivals")
    accept(gamma, gamma.group("db", "agent")["epoch"])
    beta.wait_group("db", "engine", "the fence",
                    lambda s: s["role"] == "fenced" and s["state"] == "waiting")
    beta.cli("demote", "db", "--yes")
    beta.wait_streaming("db", 60)
    head = gamma.group("db", "agent")["head_seq"]
    beta.wait_group("db", "engine", "everything",
                    lambda s: s["applied_seq"] >= head and s["standby"]["consistent"], 60)
    check(beta.group("db", "engine")["salvages"] == 1, "what only beta had is no salvage")
    gamma.stop()
    beta.stop()
    done = lab.run("cmp", beta.volume("db", "data"), gamma.volume("db", "data"), ok=None)
    check(done.returncode == 0, f"they differ: {done.stdout}{done.stderr}")


def test(lab):
    from_backup(lab, "accept", True)
    from_backup(lab, "promote", False)
    rivals(lab)


main(test, "timelines")
