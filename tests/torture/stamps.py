# SPDX-License-Identifier: Apache-2.0
"""A stamped workload and its independent checker.

Each write is one block of 4 KiB that names its branch, its number and its place. A history is a row of
writes, numbered from 1; where it is cut (a promote) a new branch goes on with the next number. One write
is one record, so a number is also a seq. What a volume holds must be, block for block, the history cut
at one number.
"""

import hashlib
import random
import struct
import threading
import time

import nbd

from lab import check, fail

BLOCK = 4096
_HEAD = struct.Struct("<8sQQQ")
_MAGIC = b"tortured"


def stamp(branch, number, block):
    head = _HEAD.pack(_MAGIC, branch, number, block)
    return (head + hashlib.shake_128(head).digest(BLOCK // 2)).ljust(BLOCK, b"\0")


class History:
    def __init__(self, blocks, seed):
        self.blocks, self.seed = blocks, seed
        self.branch = 0
        self.at = {}  # block: (branch, number) after the first `known` writes
        self.known = 0
        self.tail = []  # blocks of the writes behind them, all of this branch
        self.random = random.Random(seed)

    def last(self):
        return self.known + len(self.tail)

    def add(self):
        """One more write: (number, block, content)."""
        block = self.random.randrange(self.blocks)
        self.tail.append(block)
        return self.last(), block, stamp(self.branch, self.last(), block)

    def cut(self, number):
        """What was behind `number` is not of this history any more."""
        check(self.known <= number <= self.last(), f"{number} is not in {self.known}..{self.last()}")
        for i, block in enumerate(self.tail[: number - self.known]):
            self.at[block] = (self.branch, self.known + 1 + i)
        self.known, self.tail = number, []
        self.branch += 1

    def verify(self, contents, at_least, exactly=None):
        """The number at which `contents` (blocks in their order) is cut; fails if there is none."""
        found = {}
        for block, data in enumerate(contents):
            if not any(data[:32]) and not any(data):
                continue
            magic, branch, number, place = _HEAD.unpack_from(data)
            check(magic == _MAGIC, f"block {block}: foreign content {data[:16].hex()}")
            check(place == block, f"block {block}: content of block {place}")
            check(data == stamp(branch, number, block), f"block {block}: write {number} is torn")
            found[block] = (branch, number)
        mine = [number for branch, number in found.values() if branch == self.branch]
        last = exactly if exactly is not None else max([self.known, *mine])
        check(last <= self.last(), f"write {last} was never made: there are {self.last()}")
        check(last >= at_least, f"writes {last + 1}..{at_least} were promised and are lost")
        wanted = dict(self.at)
        for i, block in enumerate(self.tail[: last - self.known]):
            wanted[block] = (self.branch, self.known + 1 + i)
        for block in range(self.blocks):
            check(found.get(block) == wanted.get(block),
                  f"block {block} holds (branch, write) {found.get(block)}; the history up to {last} "
                  f"says {wanted.get(block)}")
        return last


class Writer(threading.Thread):
    """Writes on, up to `depth` in flight, until it is told to stop or the server is gone."""

    def __init__(self, history, uri, depth, flush_every=0, rate=700):
        super().__init__(daemon=True)
        self.rate = rate  # writes per second, so that the checker keeps up
        self.history, self.depth, self.flush_every = history, depth, flush_every
        self.acked = self.flushed = history.last()  # every write up to here
        self.halt, self.error = False, None
        self.handle = nbd.NBD()
        self.handle.connect_uri(uri)

    def promised(self):
        """What must not be lost however this site dies."""
        return self.flushed if self.flush_every else self.acked

    def run(self):
        try:
            self._write()
            self.handle.shutdown()
        except nbd.Error as error:
            self.error = error
        finally:
            self.handle = None

    def _write(self):
        handle, flying, busy, done = self.handle, {}, set(), set()
        waiting = None
        first, began = self.acked, time.monotonic()
        while not self.halt or flying:
            allowed = first + self.rate * (time.monotonic() - began)
            due = self.flush_every and self.acked - self.flushed >= self.flush_every
            while not self.halt and not due and len(flying) < self.depth and self.history.last() < allowed:
                if waiting is None:
                    waiting = self.history.add()
                number, block, content = waiting
                if block in busy:  # never two writes to one place in flight
                    break
                buffer = nbd.Buffer.from_bytearray(bytearray(content))
                flying[number] = (handle.aio_pwrite(buffer, block * BLOCK), block)
                busy.add(block)
                waiting = None
            handle.poll(20 if flying else 1)
            for number, (cookie, block) in list(flying.items()):
                if handle.aio_command_completed(cookie):
                    del flying[number]
                    busy.discard(block)
                    done.add(number)
            while self.acked + 1 in done:
                self.acked += 1
                done.discard(self.acked)
            if due and not flying:
                handle.flush()
                self.flushed = self.acked
        if waiting is not None:  # never sent
            self.history.tail.pop()
        if self.flush_every:
            handle.flush()
            self.flushed = self.acked

    def over(self, seconds=60):
        """Waits until it has ended, by itself or because it was told to."""
        self.join(seconds)
        check(not self.is_alive(), "the writer hangs")

    def stop(self):
        self.halt = True
        self.over()
        if self.error:
            fail(f"the writer failed: {self.error}")


def read_uri(uri, blocks):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    step = 256
    for first in range(0, blocks, step):
        count = min(step, blocks - first)
        data = bytes(handle.pread(count * BLOCK, first * BLOCK))
        yield from (data[i * BLOCK : (i + 1) * BLOCK] for i in range(count))
    handle.shutdown()


def read_file(path, blocks):
    with open(path, "rb") as file:
        yield from (file.read(BLOCK) for _ in range(blocks))
