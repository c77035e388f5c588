#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""holdfast verify and resync against two sites: equal while writes go on, a difference found where it was
planted and nowhere else, repaired, a copy of everything that moves next to nothing; and every refusal."""

import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say, wait_for
from numbered import Plan, Writer
from sites import MIB, Pair

SIZE = 32 * MIB


def has(text, *words):
    for word in words:
        check(word in text, f"no '{word}' in:\n{text}")


def peer(pair):
    return pair.alpha.group("db", "agent")["peers"][0]


def equal_under_writes(pair):
    say("verify: equal, while writes go on")
    writer = Writer(Plan(1, SIZE // 4096, seed=71), [pair.alpha.uri("db", "data")], rate=400)
    writer.start()
    for _ in range(3):
        done = pair.alpha.cli("verify", "db", "--rate", "256MiB")
        has(done.stdout, "beta.example: equal at seq ")
    document = pair.alpha.cli_json("verify", "db", "--to", "beta.example")
    check(document["peers"][0]["equal"] and document["peers"][0]["node"] == "beta.example", f"{document}")
    writer.stop()
    pair.caught_up("db")
    state = peer(pair)["verify"]
    check(state["verified_seq"] > 0 and state["verified_time"], f"{state}")
    has(pair.alpha.cli("status", "db").stdout, "beta.example verified at seq ")


def usage(pair):
    say("what is refused")
    pair.alpha.cli("verify", "db", "--rate", "fast", ok=(2,))
    pair.alpha.cli("verify", "db", "--stop", "--repair", ok=(2,))
    pair.alpha.cli("resync", "db", "--drop-kept", "--everything", ok=(2,))
    pair.alpha.cli("verify", "none", ok=(9,))
    error = pair.alpha.cli_json("verify", "db", "--to", "gamma.example", ok=(9,))
    check("gamma.example" in error["error"]["text"], f"{error}")
    has(pair.alpha.cli("verify", "db", "--stop", ok=(7,)).stderr, "no verification is under way")
    has(pair.alpha.cli("resync", "db", ok=(7,)).stderr, "nothing is known to differ")
    pair.alpha.cli("resync", "db", "--to", "gamma.example", ok=(9,))
    error = pair.beta.cli_json("verify", "db", ok=(7,))
    check(error["error"]["reason"] == "not-served", f"{error}")
    check(pair.beta.cli_json("resync", "db", ok=(7,))["error"]["reason"] == "not-served", "resync on a standby")
    status, document = pair.alpha.control("agent", "POST", "/v1/groups/db/verify", {"repair": "yes"})
    check(status == 400 and document["error"]["exit_code"] == 2, f"{status} {document}")


def stopped(pair):
    say("one that runs is seen, and stopped")
    has(pair.alpha.cli("verify", "db", "--rate", "64KiB", "--no-wait").stdout, "has begun")
    wait_for("the verification", lambda: peer(pair)["verify"]["active"], 5)
    has(pair.alpha.cli("status").stdout, "verifying beta.example: ")
    has(pair.alpha.cli("verify", "db", "--stop").stdout, "is stopped")
    wait_for("its end", lambda: not peer(pair)["verify"]["active"], 5)


def difference(pair):
    say("somebody writes to the standby's volume")
    planted = [(1 * MIB + 4096, 100), (17 * MIB, 4096)]
    with open(pair.beta.volume("db", "data"), "r+b") as file:
        for offset, length in planted:
            file.seek(offset)
            file.write(b"\xa5" * length)
        file.flush()
        os.fsync(file.fileno())
    done = pair.alpha.cli("verify", "db", ok=(4,))
    has(done.stdout, "beta.example: differs in 2 ranges", "volume data")
    has(done.stderr, "1 standby differs")
    ranges = peer(pair)["verify"]["ranges"]
    check(len(ranges) == 2, f"{ranges}")
    for (offset, length), found in zip(planted, sorted(ranges, key=lambda r: r["offset_bytes"])):
        check(
            found["offset_bytes"] <= offset
            and offset + length <= found["offset_bytes"] + found["length_bytes"]
            and found["length_bytes"] <= MIB,
            f"planted at {offset}, {length} bytes; found {found}",
        )
    has(pair.alpha.cli("status").stdout, "! db: beta.example differs", "holdfast verify db --to beta.example --repair")
    document = json.loads(pair.alpha.cli("verify", "db", "-o", "json", ok=(4,)).stdout)
    check(not document["peers"][0]["equal"] and document["peers"][0]["differing_ranges"] == 2, f"{document}")

    say("repaired, and nothing else")
    done = pair.alpha.cli("verify", "db", "--repair", ok=(4,))
    has(done.stdout, "were sent again")
    pair.beta.wait_streaming("db")
    wait_for("the repair", lambda: not peer(pair)["needs_sync"] and not peer(pair)["sync"]["active"], 20)
    has(pair.alpha.cli("verify", "db").stdout, "equal at seq")
    check("! db" not in pair.alpha.cli("status").stdout, "an alarm is left")


def everything(pair):
    say("a copy of everything, by comparison")
    has(pair.alpha.cli("resync", "db", "--everything", "--compare", "--to", "beta.example").stdout, "has begun")
    wait_for(
        "the copy",
        # What is zero on both sides is neither compared nor sent.
        lambda: peer(pair)["resync_compared_bytes"] >= 2 * MIB and not peer(pair)["needs_sync"]
        and not peer(pair)["sync"]["active"],
        30,
    )
    check(peer(pair)["resync_sent_bytes"] <= MIB, f"sent although equal: {peer(pair)}")
    pair.beta.wait_streaming("db")


def away(pair):
    say("a standby that is away cannot be compared")
    pair.beta.stop_daemon("engine")
    wait_for("the loss", lambda: not peer(pair)["connected"], 10)
    error = pair.alpha.cli_json("verify", "db", ok=(5,))
    check(error["error"]["reason"] == "not-ready", f"{error}")
    pair.beta.start_daemon("engine")
    pair.beta.wait_streaming("db")


def test(lab):
    pair = Pair(lab, {"db": {"data": SIZE}})
    pair.start()
    time.sleep(0.2)
    equal_under_writes(pair)
    usage(pair)
    stopped(pair)
    difference(pair)
    everything(pair)
    away(pair)
    pair.stop_and_compare()


main(test, "71")
