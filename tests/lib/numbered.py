# SPDX-License-Identifier: Apache-2.0
"""Numbered writes: an oracle for "the content is the history, cut at one position".

Every write is one block of 4 KiB that says its number. The blocks' places are known in advance from
the seed, so the content after any prefix of the writes is known, too. Whatever a recovered volume
holds is read back whole: it must be exactly the content after the first N writes for one N, across
all volumes that were written to.
"""

import os
import random
import struct
import threading
import time

import nbd

from lab import check, fail

BLOCK = 4096
_HEAD = struct.Struct("<8sQQQ")
_MAGIC = b"numbered"


class Plan:
    """Which write goes where: (volume, block) of write number 1, 2, 3, ..."""

    def __init__(self, volumes, blocks, seed):
        self.volumes = volumes
        self.blocks = blocks
        self.random = random.Random(seed)
        self.seed = seed
        self.places = []

    def place(self, number):
        while len(self.places) < number:
            self.places.append(
                (self.random.randrange(self.volumes), self.random.randrange(self.blocks))
            )
        return self.places[number - 1]

    def block(self, number):
        """The content: half of it does not compress."""
        volume, block = self.place(number)
        noise = random.Random(self.seed << 32 ^ number).randbytes(BLOCK // 2)
        return (_HEAD.pack(_MAGIC, number, volume, block) + noise).ljust(BLOCK, b"\0")

    def last_at(self, last):
        """{(volume, block): number} after the first `last` writes."""
        found = {}
        for number in range(1, last + 1):
            found[self.place(number)] = number
        return found


class Writer(threading.Thread):
    """Writes in order, at most `depth` in flight, until it is told to stop or the server is gone."""

    def __init__(self, plan, uris, first=1, depth=1, flush_every=0, limit=None, rate=None):
        super().__init__(daemon=True)
        self.plan = plan
        self.depth = depth if len(uris) == 1 else 1  # order across connections needs a pause
        self.flush_every = flush_every
        self.next = first
        self.limit = limit
        self.rate = rate  # writes per second; None: as fast as it goes
        self.first, self.began = first, time.monotonic()
        self.acked = first - 1  # every write up to here was acknowledged
        self.flushed = first - 1  # every write up to here was covered by a flush
        self.halt = False
        self.error = None
        self.handles = []
        for uri in uris:
            handle = nbd.NBD()
            handle.connect_uri(uri)
            self.handles.append(handle)

    def run(self):
        try:
            if self.depth == 1:
                self._one_by_one()
            else:
                self._many()
        except nbd.Error as error:
            self.error = error
        finally:
            self.handles = []

    def stop(self):
        """Ends it cleanly; the number of the last write."""
        self.halt = True
        self.join(60)
        check(not self.is_alive(), "the writer hangs")
        if self.error:
            fail(f"the writer failed: {self.error}")
        return self.acked

    def died(self):
        """Waits until the server's death has ended it."""
        self.join(60)
        check(not self.is_alive(), "the writer hangs after the server's death")
        return self.acked

    def _more(self):
        return not self.halt and (self.limit is None or self.next <= self.limit)

    def _early(self):
        """Seconds until the next write is due."""
        if self.rate is None:
            return 0
        return self.began + (self.next - self.first) / self.rate - time.monotonic()

    def _one_by_one(self):
        while self._more():
            number = self.next
            volume, block = self.plan.place(number)
            time.sleep(max(0, self._early()))
            self.next += 1
            self.handles[volume].pwrite(self.plan.block(number), block * BLOCK)
            self.acked = number
            if self.flush_every and number % self.flush_every == 0:
                for handle in self.handles:
                    handle.flush()
                self.flushed = number

    def _many(self):
        handle = self.handles[0]
        flying = {}  # number: cookie
        busy = set()  # blocks: two writes to one place are never in flight together
        done = set()
        while self._more() or flying:
            while self._more() and len(flying) < self.depth and self._early() <= 0:
                place = self.plan.place(self.next)
                if place in busy:
                    break
                buffer = nbd.Buffer.from_bytearray(bytearray(self.plan.block(self.next)))
                flying[self.next] = handle.aio_pwrite(buffer, place[1] * BLOCK)
                busy.add(place)
                self.next += 1
            handle.poll(100 if self.rate is None else 1)
            for number, cookie in list(flying.items()):
                if handle.aio_command_completed(cookie):
                    del flying[number]
                    busy.discard(self.plan.place(number))
                    done.add(number)
            while self.acked + 1 in done:
                self.acked += 1
                done.discard(self.acked)
            if self.flush_every and not flying and self.acked - self.flushed >= self.flush_every:
                handle.flush()
                self.flushed = self.acked


def read_uri(uri, blocks):
    """All blocks of an export."""
    handle = nbd.NBD()
    handle.connect_uri(uri)
    chunk = 256
    for first in range(0, blocks, chunk):
        count = min(chunk, blocks - first)
        data = bytes(handle.pread(count * BLOCK, first * BLOCK))
        for i in range(count):
            yield data[i * BLOCK : (i + 1) * BLOCK]
    handle.shutdown()


def read_file(path, blocks):
    with open(path, "rb") as file:
        for _ in range(blocks):
            yield file.read(BLOCK)


def verify(plan, contents, at_least=0, exactly=None):
    """The N of which `contents` (one iterable of blocks for each volume) is the state; else fails.

    `at_least`: all up to it were promised. `exactly`: N itself is known.
    """
    found, newest = {}, 0
    for volume, blocks in enumerate(contents):
        for block, data in enumerate(blocks):
            if not any(data[:32]) and not any(data):
                continue
            magic, number, in_volume, in_block = _HEAD.unpack_from(data)
            where = f"volume {volume}, block {block}"
            check(magic == _MAGIC, f"{where}: foreign content {data[:16].hex()}")
            check((in_volume, in_block) == (volume, block), f"{where}: content of another place")
            check(number <= 10_000_000 and plan.place(number) == (volume, block),
                  f"{where}: write {number} was never made there")
            check(data == plan.block(number), f"{where}: write {number} is torn")
            found[volume, block] = number
            newest = max(newest, number)
    last = exactly if exactly is not None else newest
    check(newest <= last, f"write {newest} is there although history ends at {last}")
    check(last >= at_least, f"writes {last + 1}..{at_least} were promised and are lost")
    wanted = plan.last_at(last)
    for place, number in wanted.items():
        check(found.get(place) == number,
              f"volume {place[0]}, block {place[1]} holds write {found.get(place)}; "
              f"the history up to {last} says {number}")
    check(len(found) == len(wanted), "blocks hold content that the history does not have")
    return last


def file_blocks(path):
    return os.path.getsize(path) // BLOCK
