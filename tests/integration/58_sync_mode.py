#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Mode sync with real processes: what was acknowledged is on the standby when the primary's site dies,
the standby's absence costs writes a time-out or makes them wait, and both end by themselves."""

import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say, wait_for
from numbered import Plan, Writer, read_uri, verify
from sites import MIB, Pair

SIZE = 4 * MIB
BLOCKS = SIZE // 4096
ROUNDS = 3
TIMEOUT = 1.0


def new_pair(lab, name, loss, **more):
    options = {"cache": "writethrough", "mode": "sync", "on_sync_loss": loss, "sync_timeout": "1s"}
    pair = Pair(lab, {"db": {"data": SIZE}}, dict(options, **more), directory=name)
    pair.start()
    wait_mode(pair, "in-sync")
    return pair


def wait_mode(pair, name, seconds=20):
    state = pair.alpha.wait_group(
        "db", "agent", f"mode to be {name}", lambda s: s["mode"]["state"] == name, seconds
    )
    check(state["mode"]["name"] == "sync", f"the mode is {state['mode']}")
    check(state["peers"][0]["in_sync"] == (name == "in-sync"), f"in_sync while {name}: {state['peers'][0]}")
    return state["mode"]


def primary_dies(lab, loss, cache, number):
    """kill -9 of everything that the primary's site has, then promote: RPO zero."""
    pair = new_pair(lab, f"dies-{loss}-{cache}-{number}", loss, cache=cache)
    plan = Plan(1, BLOCKS, seed=580 + number)
    # One at a time flushes at once; with more in flight a flush waits for a moment without any.
    writer = Writer(plan, [pair.alpha.uri("db", "data")], depth=1 if cache == "writeback" else 16,
                    flush_every=7 if cache == "writeback" else 0)
    writer.start()
    wait_for("writes to be promised", lambda: (writer.flushed if cache == "writeback" else writer.acked) > 20)
    time.sleep(random.Random(number).uniform(0.3, 1.2))
    pair.alpha.kill()
    acked = writer.died()
    promised = writer.flushed if cache == "writeback" else acked
    check(promised > 20, f"only {promised} writes were promised")
    answer = pair.beta.promote_after_loss("db")
    last = verify(plan, [read_uri(pair.beta.uri("db", "data"), BLOCKS)], at_least=promised)
    said = "none" if loss == "freeze" else "none-when-last-heard"
    check(answer["acknowledged_lost"] == said, f"promote says {answer['acknowledged_lost']}")
    say(f"{loss}, {cache}: promised {promised}, promoted at {last}")
    pair.beta.stop()


def standby_away(lab):
    say("async: the standby stops, stands still, is killed: alone after the time-out, and back by itself")
    pair = new_pair(lab, "async", "async")
    plan = Plan(1, BLOCKS, seed=588)
    writer = Writer(plan, [pair.alpha.uri("db", "data")], depth=4, rate=500)
    writer.start()

    def lose(number, leave, come):
        since, acked = time.monotonic(), writer.acked
        leave()
        mode = wait_mode(pair, "lost")
        took = time.monotonic() - since
        check(took > TIMEOUT * 0.8, f"alone after {took:.2f} s already")
        check(mode["losses"] == number and mode["lost_since"], f"after loss {number}: {mode}")
        acked = writer.acked
        wait_for("writes to go on alone", lambda: writer.acked > acked + 50)
        come()
        mode = wait_mode(pair, "in-sync")
        check(mode["losses"] == number and mode["lost_since"] is None, f"back after loss {number}: {mode}")
        say(f"lost after {took:.2f} s, back")

    lose(1, lambda: pair.beta.stop_daemon("engine"), lambda: pair.beta.start_daemon("engine"))
    lose(2, lambda: os.kill(pair.beta.pid("engine"), signal.SIGSTOP),
         lambda: os.kill(pair.beta.pid("engine"), signal.SIGCONT))
    lose(3, lambda: pair.beta.kill_daemon("engine"), lambda: pair.beta.start_daemon("engine"))
    check(pair.alpha.log_text("agent").count("no standby is in sync") == 3, "the log does not warn each time")
    last = writer.stop()
    pair.caught_up("db")
    verify(plan, [read_uri(pair.alpha.uri("db", "data"), BLOCKS)], exactly=last)
    pair.stop_and_compare()


def frozen(lab):
    say("freeze: writes wait for as long as it takes, and go on")
    pair = new_pair(lab, "freeze", "freeze")
    plan = Plan(1, BLOCKS, seed=589)
    writer = Writer(plan, [pair.alpha.uri("db", "data")], depth=4, rate=500)
    writer.start()
    wait_for("writes", lambda: writer.acked > 50)
    pair.beta.kill_daemon("engine")
    mode = wait_mode(pair, "frozen")
    check(mode["losses"] == 1 and mode["lost_since"], f"frozen: {mode}")
    acked = writer.acked
    time.sleep(3 * TIMEOUT)
    check(writer.acked == acked, f"{writer.acked - acked} writes were acknowledged without the standby")
    pair.beta.start_daemon("engine")
    wait_for("writes to go on", lambda: writer.acked > acked + 50)
    wait_mode(pair, "in-sync")
    last = writer.stop()
    pair.caught_up("db")
    verify(plan, [read_uri(pair.alpha.uri("db", "data"), BLOCKS)], exactly=last)

    say("a frozen group can be stopped, and what was not promised failed")
    writer = Writer(plan, [pair.alpha.uri("db", "data")], first=last + 1, depth=4, rate=500)
    writer.start()
    pair.beta.stop_daemon("engine")
    wait_mode(pair, "frozen")
    since = time.monotonic()
    pair.alpha.stop_daemon("agent")
    check(time.monotonic() - since < 15, f"stopped after {time.monotonic() - since:.1f} s")
    writer.died()
    pair.beta.start_daemon("engine")
    pair.alpha.start_daemon("agent")
    pair.alpha.wait_serving("db")
    wait_mode(pair, "in-sync")
    verify(plan, [read_uri(pair.alpha.uri("db", "data"), BLOCKS)], at_least=writer.acked)
    pair.stop_and_compare()


def test(lab):
    for number in range(ROUNDS):
        primary_dies(lab, "freeze", "writethrough", number)
    primary_dies(lab, "async", "writethrough", ROUNDS)
    primary_dies(lab, "freeze", "writeback", ROUNDS + 1)
    standby_away(lab)
    frozen(lab)


main(test, "58")
