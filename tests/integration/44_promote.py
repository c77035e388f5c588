#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Promote: what it refuses, what it recovers, that it may be repeated, and what an old primary does."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import nbd
from lab import check, main, say, wait_for
from numbered import Plan, Writer, read_uri, verify
from sites import MIB, Pair

SIZE = 4 * MIB
BLOCKS = SIZE // 4096


def new_pair(lab, name):
    return Pair(lab, {"db": {"data": SIZE}}, directory=name)


def refusals(lab):
    say("never consistent, primary alive, wrong epoch, unknown group: refused")
    pair = new_pair(lab, "refusals")
    pair.init()
    pair.beta.start()
    error = pair.beta.promote("db", ok=(5,))["error"]
    check(error["reason"] == "never-consistent" and error["remedy"], f"never consistent: {error}")
    error = pair.beta.promote("db", "--force", ok=(5,))["error"]
    check(error["reason"] == "never-consistent", f"--force must not invent a position: {error}")
    pair.alpha.start()
    pair.beta.wait_streaming("db")
    plan = Plan(1, BLOCKS, seed=44)
    writer = Writer(plan, [pair.alpha.uri("db", "data")], depth=4)
    writer.start()
    error = pair.beta.promote("db", ok=(5,))["error"]
    check(error["reason"] == "primary-alive" and "--force" in error["remedy"], f"alive: {error}")
    error = pair.beta.promote("db", "--force", "--expect-epoch", "99", ok=(7,))["error"]
    check(error["reason"] == "epoch" and "1" in error["text"], f"wrong epoch: {error}")
    check(pair.beta.promote("nix", ok=(9,))["error"]["exit_code"] == 9, "unknown group")
    human = pair.beta.cli("promote", "db", ok=(5,)).stderr
    check(human.startswith("holdfast: ") and "--force" in human, f"said to people: {human}")
    time.sleep(0.3)
    last = writer.stop()
    pair.caught_up("db")
    verify(plan, [read_uri(pair.alpha.uri("db", "data"), BLOCKS)], exactly=last)
    check(pair.beta.group("db", "engine")["epoch"] == 1, "a refusal changed the epoch")
    pair.stop_and_compare()


def old_primary(pair, epoch):
    say("the old primary comes back: refused by epoch, serves nothing, says so; twice")
    for _ in range(2):
        pair.alpha.start_daemon("agent")
        state = pair.alpha.wait_group("db", "agent", "fenced", lambda s: s["role"] == "fenced")
        check(state["fenced_by_epoch"] == epoch, f"fenced by epoch {state['fenced_by_epoch']}")
        check(state["fenced_by"] == pair.beta.node, f"fenced by {state['fenced_by']}")
        try:
            nbd.NBD().connect_uri(pair.alpha.uri("db", "data"))
            check(False, "a fenced primary serves its volume")
        except nbd.Error:
            pass
        table = pair.alpha.cli("status").stdout
        check("fenced" in table, f"status does not say it:\n{table}")
        pair.alpha.stop_daemon("agent")
    check("epoch" in pair.alpha.log_text("agent"), "the log does not say why")


def killed_primary(lab):
    say("killed under load, promoted, promoted again")
    pair = new_pair(lab, "killed")
    pair.start()
    plan = Plan(1, BLOCKS, seed=45)
    writer = Writer(plan, [pair.alpha.uri("db", "data")], depth=16)
    writer.start()
    time.sleep(1)
    pair.alpha.kill()
    acked = writer.died()
    begin = time.monotonic()
    answer = pair.beta.promote_after_loss("db", "--expect-epoch", "1")
    took = time.monotonic() - begin
    check(answer["result"] == "promoted" and answer["epoch"] == 2 and answer["served"], f"{answer}")
    uri = answer["nbd"][0]["uri"]
    last = verify(plan, [read_uri(uri, BLOCKS)], exactly=answer["seq"])
    check(answer["lost"]["writes"] <= writer.next - 1 - last, f"more lost than was written: {answer}")
    check(answer["heard_seconds_ago"] is not None and answer["heard_seconds_ago"] < 30, f"{answer}")
    say(f"acknowledged {acked}, recovered {last}, known lost {answer['lost']['writes']}, {took:.3f} s")
    again = pair.beta.promote("db")
    check(again["result"] == "already" and again["epoch"] == 2 and again["seq"] == last, f"{again}")

    second = Writer(Plan(1, BLOCKS, seed=46), [uri], limit=300, flush_every=10)
    second.start()
    check(second.died() == 300, f"the new primary does not take writes: {second.error}")
    state = pair.beta.group("db", "agent")
    check(state["epoch"] == 2 and state["head_seq"] == last + 300, f"{state}")
    old_primary(pair, 2)
    pair.beta.kill_daemon("agent")
    pair.beta.start_daemon("agent")
    check(pair.beta.wait_serving("db")["head_seq"] == last + 300, "the new primary forgot writes")
    pair.beta.stop()


def forced(lab):
    say("--force while the primary is alive: it is fenced while it serves")
    pair = new_pair(lab, "forced")
    pair.start()
    plan = Plan(1, BLOCKS, seed=47)
    writer = Writer(plan, [pair.alpha.uri("db", "data")], depth=8)
    writer.start()
    time.sleep(0.4)
    answer = pair.beta.promote("db", "--force", "--expect-epoch", "1")
    pair.alpha.wait_group("db", "agent", "fenced", lambda s: s["role"] == "fenced")
    writer.died()
    check(writer.error is not None, "clients of a fenced primary were not cut off")
    verify(plan, [read_uri(answer["nbd"][0]["uri"], BLOCKS)], exactly=answer["seq"])
    check(pair.alpha.processes["agent"].poll() is None, "the fenced agent died")
    pair.beta.stop()
    pair.alpha.stop()


def interrupted(lab):
    say("promote killed at many moments and run again")
    for number, delay_ms in enumerate((0, 2, 5, 10, 20, 40)):
        pair = new_pair(lab, f"interrupted{number}")
        pair.start()
        plan = Plan(1, BLOCKS, seed=48 + number)
        writer = Writer(plan, [pair.alpha.uri("db", "data")], depth=16)
        writer.start()
        time.sleep(0.3)
        pair.alpha.kill()
        writer.died()
        pair.beta.wait_group("db", "engine", "no primary", lambda s: not s["standby"]["connected"])
        command = lab.spawn(
            [os.path.join(os.environ.get("HOLDFAST_BUILD", "build"), "holdfast"), "promote", "-c",
             pair.beta.conf, "db", "--yes"], lab.path("promote.log"))
        time.sleep(delay_ms / 1000)
        command.kill()
        if number % 2 == 0:
            pair.beta.kill_daemon("engine")
            pair.beta.start_daemon("engine")
        else:
            pair.beta.kill()
            pair.beta.start()

        def again():
            done = pair.beta.cli("promote", "db", "--yes", "-o", "json", ok=None)
            check(done.returncode in (0, 7), f"run again: {done.stderr}")
            return done.returncode == 0

        wait_for("promote run again", again, 20, every=0.1)
        say(f"  after {delay_ms} ms")
        answer = pair.beta.promote("db")
        check(answer["result"] == "already" and answer["epoch"] == 2, f"{answer}")
        verify(plan, [read_uri(answer["nbd"][0]["uri"], BLOCKS)], exactly=answer["seq"])
        pair.beta.stop()


def test(lab):
    refusals(lab)
    killed_primary(lab)
    forced(lab)
    interrupted(lab)


main(test, "44")
