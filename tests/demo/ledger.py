# SPDX-License-Identifier: Apache-2.0
"""Numbered SQLite transactions that prove themselves, and the sampler of the RPO."""

import hashlib
import random
import sqlite3
import threading
import time

from lab import check


def digest(number, before):
    return hashlib.sha256(f"{number}:{before}".encode()).hexdigest()


class Ledger(threading.Thread):
    """Transactions 1, 2, 3, ...: each carries the digest of the one before, so none can be missing,
    doubled or changed unseen. After each commit `after` is called, and only then it counts."""

    def __init__(self, path, after, pause=0.0):
        super().__init__(daemon=True)
        self.path, self.after, self.pause = path, after, pause
        self.log = []  # [head seq after transaction i + 1]
        self.error = None
        self.halt = False

    def create(self):
        base = sqlite3.connect(self.path)
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA wal_autocheckpoint = 0")
        base.execute("CREATE TABLE ledger (n INTEGER PRIMARY KEY, amount INTEGER, text TEXT, digest TEXT)")
        base.commit()
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        base.close()

    def open(self):
        base = sqlite3.connect(self.path, isolation_level=None, timeout=5)
        base.execute("PRAGMA synchronous = FULL")
        base.execute("PRAGMA wal_autocheckpoint = 0")
        return base

    def run(self):
        dice = random.Random(1)
        before, number = "", 0
        try:
            base = self.open()
            while not self.halt:
                number += 1
                before = digest(number, before)
                base.execute("BEGIN IMMEDIATE")
                base.execute("INSERT INTO ledger VALUES (?, ?, ?, ?)",
                             (number, dice.randrange(10000), f"order {number} " * 20, before))
                base.execute("COMMIT")
                seq = self.after()
                if seq is None:
                    return
                self.log.append(seq)
                if self.pause:
                    time.sleep(self.pause)
        except (sqlite3.Error, OSError) as error:
            # The primary was killed below it.
            self.error = error


def verify(path, log, seq):
    """Checks a recovered ledger against what was acknowledged. (rows found, lost)"""
    base = sqlite3.connect(path)
    found = base.execute("PRAGMA integrity_check").fetchall()
    check(found == [("ok",)], f"integrity_check: {found[:3]}")
    rows = base.execute("SELECT n, digest FROM ledger ORDER BY n").fetchall()
    before = ""
    for position, (number, stored) in enumerate(rows, 1):
        before = digest(position, before)
        check((number, stored) == (position, before), f"transaction {position} is missing or altered")
    promised = sum(1 for head in log if head <= seq)
    check(len(rows) >= promised,
          f"{promised} transactions were complete at seq {seq}, only {len(rows)} are there")
    # The one that was in flight may be there as well.
    check(len(rows) <= len(log) + 1, f"{len(rows)} transactions, but only {len(log)} were made")
    base.close()
    return len(rows), max(0, len(log) - len(rows))


class Sampler(threading.Thread):
    """Asks for the primary's status every 20 ms and keeps how far the standby is behind."""

    def __init__(self, ask):
        super().__init__(daemon=True)
        self.ask = ask
        self.seconds = []
        self.last = self.last_good = None
        self.halt = False

    def run(self):
        while not self.halt:
            state = self.ask()
            if state and state["peers"]:
                self.last = self.last_good = state
                lag = state["peers"][0]["lag"]["seconds"]
                if lag is not None:
                    self.seconds.append(lag)
            time.sleep(0.02)

    def percentiles(self):
        ordered = sorted(self.seconds) or [0.0]
        return tuple(ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99, 1.0))
