#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL with pgbench on the replicated volume; the primary site is killed, the standby promoted.

While pgbench runs, the test asks the database which transactions are committed and only then asks the
agent for its head: so they lie at or before that sequence number. Whatever was committed at a sample
whose head was recovered must be in the promoted database.
"""

import os
import pwd
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from attach import Device, must_be_possible
from lab import Skip, check, kill_process, main, say
from sites import MIB, Pair

CLIENTS = 4
SCRIPT = """\\set amount random(1, 1000)
BEGIN;
UPDATE progress SET n = n + 1, total = total + :amount WHERE client = :client_id;
INSERT INTO ledger SELECT client, n, :amount FROM progress WHERE client = :client_id;
COMMIT;
"""


def programs():
    base = "/usr/lib/postgresql"
    versions = sorted(os.listdir(base), key=lambda v: float(v)) if os.path.isdir(base) else []
    if not versions:
        raise Skip("PostgreSQL is not installed")
    return os.path.join(base, versions[-1], "bin")


class Postgres:
    def __init__(self, lab, mount, name):
        self.lab, self.bin = lab, programs()
        self.data = os.path.join(mount, "pgdata")
        self.socket_dir = lab.make_dir(f"pgsock-{name}")
        self.log = lab.path(f"postgres-{name}.log")
        account = pwd.getpwnam("postgres")
        self.ids = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(self.socket_dir, account.pw_uid, account.pw_gid)
        self.process = None

    def run(self, program, *args, **options):
        return self.lab.run(os.path.join(self.bin, program), *args, cwd="/", **self.ids, **options)

    def create(self):
        os.mkdir(self.data)
        os.chown(self.data, self.ids["user"], self.ids["group"])
        self.run("initdb", "-D", self.data, "-A", "trust", "--no-instructions", "-E", "UTF8", "--locale=C")

    def start(self):
        self.process = self.lab.spawn(
            [os.path.join(self.bin, "postgres"), "-D", self.data, "-k", self.socket_dir, "-h", "",
             "-c", "shared_buffers=32MB", "-c", "checkpoint_timeout=30s", "-c", "max_connections=20"],
            self.log, cwd="/", **self.ids)
        self.lab.later(self.kill)
        end = time.monotonic() + 40
        while self.run("pg_isready", "-h", self.socket_dir, "-q", ok=None).returncode != 0:
            check(self.process.poll() is None, "postgres ended")
            check(time.monotonic() < end, "postgres does not become ready")
            time.sleep(0.1)

    def sql(self, text, ok=(0,)):
        done = self.run("psql", "-h", self.socket_dir, "-d", "postgres", "-AtqX", "-v",
                        "ON_ERROR_STOP=1", "-c", text, ok=ok)
        return done.stdout.strip().splitlines() if done.returncode == 0 else None

    def kill(self):
        """All of it: a backend that waits for another one's lock would outlive the postmaster."""
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.readlink(f"/proc/{entry}/cwd") == self.data:
                    os.kill(int(entry), signal.SIGKILL)
            except OSError:
                continue
        kill_process(self.process)

    def stop(self):
        self.process.send_signal(2)
        check(self.process.wait(60) == 0, "postgres did not stop")


def counts(rows):
    return [int(row.split("|")[1]) for row in rows]


def load(lab, postgres, pair):
    """pgbench and the samples [(head seq, committed per client)] until the primary is killed."""
    script = lab.path("ledger.sql")
    with open(script, "w", encoding="ascii") as file:
        file.write(SCRIPT)
    bench = lab.spawn(
        [os.path.join(postgres.bin, "pgbench"), "-n", "-h", postgres.socket_dir, "-c", str(CLIENTS),
         "-T", "120", "-f", script, "postgres"], lab.path("pgbench.log"), cwd="/", **postgres.ids)
    samples, halt = [], threading.Event()

    def watch():
        while not halt.is_set():
            rows = postgres.sql("SELECT client, n FROM progress ORDER BY client", ok=None)
            state = pair.alpha.group("db", "agent")
            if rows is None or state is None:
                return
            samples.append((state["head_seq"], counts(rows)))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    time.sleep(7)
    check(bench.poll() is None, "pgbench ended early")
    pair.alpha.kill()
    halt.set()
    watcher.join(30)
    bench.kill()
    return samples


def verify(postgres, samples, answer):
    at = postgres.sql("SELECT client, n, total FROM progress ORDER BY client")
    found = counts(at)
    ledger = postgres.sql(
        "SELECT client, count(*), min(n), max(n), sum(amount) FROM ledger GROUP BY client ORDER BY client")
    for row, kept in zip(at, ledger):
        client, n, total = row.split("|")
        check(kept == f"{client}|{n}|1|{n}|{total}", f"progress says {row}, the ledger {kept}")
    promised = [sample for sample in samples if sample[0] <= answer["seq"]]
    check(len(promised) > 10, f"only {len(promised)} of {len(samples)} samples lie in the history")
    for head, committed in promised:
        check(all(f >= c for f, c in zip(found, committed)),
              f"at seq {head} committed {committed}, at seq {answer['seq']} there are {found}")
    say(f"recovered to seq {answer['seq']}: {sum(found)} transactions; "
        f"last seen committed {sum(samples[-1][1])} at seq {samples[-1][0]}")
    check(sum(found) > 100, "hardly anything was committed")
    # Every page: pg_dump reads all tables, amcheck the indexes.
    postgres.sql("CREATE EXTENSION amcheck; SELECT bt_index_check(oid, true) FROM pg_class WHERE "
                 "relkind = 'i' AND relam = (SELECT oid FROM pg_am WHERE amname = 'btree')")
    postgres.run("pg_dump", "-h", postgres.socket_dir, "postgres")


def test(lab):
    must_be_possible()
    programs()
    pair = Pair(lab, {"db": {"pg": 384 * MIB}}, {"journal_size": "128MiB", "memory": "32MiB"})
    pair.start()
    device = Device(lab, pair.alpha.uri("db", "pg"))
    device.mkfs()
    postgres = Postgres(lab, device.mount(lab.path("mnt-alpha")), "alpha")
    postgres.create()
    postgres.start()
    postgres.sql("CREATE TABLE progress(client int PRIMARY KEY, n bigint, total bigint);"
                 "CREATE TABLE ledger(client int, n bigint, amount int, PRIMARY KEY (client, n));"
                 f"INSERT INTO progress SELECT c, 0, 0 FROM generate_series(0, {CLIENTS - 1}) c")
    samples = load(lab, postgres, pair)
    postgres.kill()
    device.close()

    answer = pair.beta.promote_after_loss("db")
    device = Device(lab, answer["nbd"][0]["uri"])
    check(device.fsck() is None, "the promoted file system is damaged")
    postgres = Postgres(lab, device.mount(lab.path("mnt-beta")), "beta")
    postgres.start()
    verify(postgres, samples, answer)
    postgres.stop()
    device.unmount()
    check(device.fsck() is None, "the file system is damaged after use")
    device.close()
    pair.beta.stop()


main(test, "45")
