#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two sites on one machine: replicate a file system with a database, kill the primary, promote, verify.

Where root, FUSE and loop devices are there, the replicated volume carries a mounted ext4. Elsewhere an
ext4 image is copied onto it, and SQLite's write-ahead log is appended to a second volume, both through
libnbd; after the promotion they are read back. The exit status tells whether everything was right.
"""

import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, HERE)
import attach
from lab import check, main, say
from ledger import Sampler
from sites import Pair
from workload import LibnbdWorkload, MountedWorkload

LOAD_SECONDS = 18
GROUP = "shop"
OPTIONS = {"journal_size": "256MiB", "journal_file_size": "16MiB", "memory": "64MiB",
           "settle_timeout": "1s", "heartbeat": "200ms", "rpo_objective": "2s"}


def size(count):
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def duration(seconds):
    if seconds is None:
        return "unknown"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def title(text):
    print(flush=True)
    say(f"== {text}")


def show(text):
    """What a command printed, set off."""
    for line in text.rstrip().splitlines():
        print(f"         | {line}", flush=True)


def set_up(lab, workload_type):
    title("two sites: alpha (primary) and beta (standby), each with agent, engine, certificate")
    pair = Pair(lab, {GROUP: workload_type.VOLUMES}, OPTIONS)
    pair.start()
    say("alpha serves, beta follows over TLS 1.3; volumes: "
        + ", ".join(f"{name} {size(b)}" for name, b in workload_type.VOLUMES.items()))
    return pair


def under_load(pair, workload):
    title(f"load for {LOAD_SECONDS} s: SQLite transactions (synchronous = FULL) and a tree of real files")
    sampler = Sampler(lambda: pair.alpha.group(GROUP, "agent"))
    workload.start()
    sampler.start()
    begin = time.monotonic()
    shown = False
    while time.monotonic() - begin < LOAD_SECONDS:
        time.sleep(1)
        state = sampler.last
        check(workload.error is None, f"the load failed: {workload.error}")
        if state is None:
            continue
        lag = state["peers"][0]["lag"]
        say(f"head {state['head_seq']:>7}   beta holds {state['peers'][0]['durable_seq']:>7}   "
            f"RPO {lag['writes']:>4} writes {size(lag['bytes']):>10} {duration(lag['seconds']):>7}   "
            f"{workload.progress()}")
        if not shown and time.monotonic() - begin > LOAD_SECONDS / 2:
            shown = True
            say("holdfast status, on alpha:")
            show(pair.alpha.cli("status").stdout)
    return sampler


def disaster(pair, workload, sampler):
    title("the primary site is killed under load (SIGKILL to its agent and engine)")
    killed = time.monotonic()
    pair.alpha.kill()
    sampler.halt = True
    pair.beta.wait_group(GROUP, "engine", "the loss to be noticed",
                         lambda s: not s["standby"]["connected"], every=0.005)
    say(f"holdfast promote {GROUP}, on beta:")
    done = pair.beta.cli("promote", GROUP, "--yes")
    returned = time.monotonic()
    show(done.stdout)
    # Repeating it is harmless, and tells position and sockets to programs.
    answer = pair.beta.promote(GROUP)
    check(answer["result"] == "already" and answer["epoch"] == 2, f"promoted: {answer}")
    written = workload.first_write(answer)
    say(f"first write on beta {duration(written - killed)} after the kill")
    workload.died()
    say(f"acknowledged before the kill: {workload.acknowledged()}")
    return answer, returned - killed, written - killed


def old_primary(pair):
    title("the old primary comes back")
    pair.alpha.start_daemon("agent")
    state = pair.alpha.wait_group(GROUP, "agent", "fenced", lambda s: s["role"] == "fenced")
    say(f"refused: it is {state['role']} by epoch {state['fenced_by_epoch']} of {state['fenced_by']}, "
        "and serves nothing")
    check(not os.path.exists(pair.alpha.nbd_socket(GROUP)) or state["volumes"][0]["uri"] == "",
          "a fenced primary still offers its volumes")


def report(sampler, answer, promote_seconds, write_seconds, verdict):
    state = sampler.last_good
    counters = state["counters"]
    raw, stored = counters["segment_raw_bytes"], counters["segment_stored_bytes"]
    rpo = sampler.percentiles()
    title("report")
    rows = [
        ("writes captured", f"{counters['writes']} ({size(counters['written_bytes'])}, "
                            f"{counters['flushes']} flushes)"),
        ("compression", f"{size(raw)} to {size(stored)} ({raw / max(stored, 1):.2f} to 1)"),
        ("RPO while under load", f"p50 {duration(rpo[0])}, p99 {duration(rpo[1])}, most {duration(rpo[2])} "
                                 f"({len(sampler.seconds)} samples)"),
        ("recovered position", f"epoch 1, seq {answer['seq']}; serving under epoch {answer['epoch']}"),
        *verdict,
        ("kill to promote's return", duration(promote_seconds)),
        ("kill to first write on beta", duration(write_seconds)),
    ]
    for name, text in rows:
        print(f"  {name:<28} {text}")
    print(flush=True)


def demo(lab):
    reason = attach.possible() or os.environ.get("HOLDFAST_DEMO_NO_MOUNT")
    if reason:
        say(f"no mounted file system: {reason}; libnbd it is")
    workload_type = LibnbdWorkload if reason else MountedWorkload
    pair = set_up(lab, workload_type)
    workload = workload_type(lab, pair, GROUP)
    workload.prepare()
    sampler = under_load(pair, workload)
    answer, promote_seconds, write_seconds = disaster(pair, workload, sampler)
    title("verification of what beta has")
    verdict = workload.verify(answer)
    old_primary(pair)
    report(sampler, answer, promote_seconds, write_seconds, verdict)
    pair.beta.stop()
    say("everything that had to be there is there")


if __name__ == "__main__":
    main(demo, "demo")
