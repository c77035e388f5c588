#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An ext4 under load, its primary killed and its standby promoted, round after round.

Each round the former standby becomes the primary, and the other site is made anew as its standby. The
file system of every promoted copy must be clean after its own journal's replay, and every file whose
fsync returned at or before the recovered position must be whole.
"""

import hashlib
import os
import random
import shutil
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import time

from attach import Device, must_be_possible
from lab import check, main, say
from sites import MIB, Pair

SIZE = 64 * MIB
ROUNDS = 4


class Files(threading.Thread):
    """Makes, replaces and removes files; after every fsync it asks the agent for its head."""

    def __init__(self, directory, site, seed):
        super().__init__(daemon=True)
        self.directory, self.site = directory, site
        self.dice = random.Random(seed)
        self.known = []  # (head seq, name, digest or None) in order
        self.doing = None  # the name that the last change was about, done or not
        self.halt = False

    def head(self):
        state = self.site.group("fs", "agent")
        return state["head_seq"] if state else None

    def run(self):
        try:
            while not self.halt and self.one():
                pass
        except OSError:
            pass

    def sync_directory(self):
        handle = os.open(self.directory, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    def one(self):
        name = f"file{self.dice.randrange(60)}"
        path = os.path.join(self.directory, name)
        self.doing, digest = name, None
        if self.dice.random() < 0.2 and os.path.exists(path):
            os.unlink(path)
        else:
            data = self.dice.randbytes(self.dice.randrange(1, 60000))
            with open(path + ".new", "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(path + ".new", path)
            digest = hashlib.sha256(data).hexdigest()
        self.sync_directory()
        head = self.head()
        if head is None:
            return False
        self.known.append((head, name, digest))
        return True


def check_files(directory, known, seq, doing):
    """Names that were not touched after `seq` are as they were then. Returns how many were judged."""
    last, unsure = {}, {doing}
    for head, name, digest in known:
        if head <= seq:
            last[name] = digest
        else:
            unsure.add(name)
    judged = 0
    for name, digest in last.items():
        if name in unsure:
            continue
        path = os.path.join(directory, name)
        if digest is None:
            check(not os.path.exists(path), f"{name} was removed before seq {seq} and is there")
        else:
            check(os.path.exists(path), f"{name} was synced before seq {seq} and is gone")
            with open(path, "rb") as file:
                found = hashlib.sha256(file.read()).hexdigest()
            check(found == digest, f"{name} differs from what was synced before seq {seq}")
        judged += 1
    return judged


def anew(site, other):
    """Makes a dead site the standby of the other one."""
    shutil.rmtree(site.group_dir("fs"))
    site.init("standby")
    site.start()
    site.wait_streaming("fs")
    other.wait_serving("fs")


def test(lab):
    must_be_possible()
    pair = Pair(lab, {"fs": {"ext4": SIZE}}, {"cache": "writeback"})
    pair.start()
    primary, standby = pair.alpha, pair.beta
    device = Device(lab, primary.uri("fs", "ext4"))
    device.mkfs()
    for number in range(ROUNDS):
        where = device.mount(lab.path(f"mnt{number}"))
        os.makedirs(os.path.join(where, "files"), exist_ok=True)
        before = {name: None for name in os.listdir(os.path.join(where, "files"))}
        files = Files(os.path.join(where, "files"), primary, 48 + number)
        files.start()
        time.sleep(random.Random(number).uniform(1.0, 2.5))
        primary.kill()
        files.halt = True
        device.close()
        files.join(30)
        answer = standby.promote_after_loss("fs")
        device = Device(lab, answer["nbd"][0]["uri"])
        damage = device.fsck()
        check(damage is None, f"round {number}: {damage}")
        promoted = device.mount(lab.path(f"mnt{number}p"))
        judged = check_files(os.path.join(promoted, "files"), files.known, answer["seq"], files.doing)
        device.unmount()
        say(f"round {number}: {len(files.known)} changes on {len(before)} old files, recovered to seq "
            f"{answer['seq']}, {judged} files judged, epoch {answer['epoch']}")
        check(judged > 5, "too few files lie in the recovered history")
        check(answer["epoch"] == number + 2, f"epoch {answer['epoch']}")
        primary, standby = standby, primary
        if number < ROUNDS - 1:
            anew(standby, primary)
    device.close()


main(test, "48")
