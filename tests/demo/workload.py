# SPDX-License-Identifier: Apache-2.0
"""What runs on the replicated volumes: on a mounted ext4, or through libnbd where nothing can be
mounted. Both know what was acknowledged at which sequence number, and verify the promoted copy."""

import hashlib
import os
import shutil
import threading
import time

import nbd

from attach import Device
from lab import check, need, say
from ledger import Ledger, verify
from sites import MIB

SOURCES = ("/usr/include", "/usr/share/doc", "/usr/share/man", "/usr/lib/python3")
TREE_BYTES = 96 * MIB


def real_files(limit_bytes):
    """Paths of real files of this machine, at most `limit_bytes` together."""
    total = 0
    for top in SOURCES:
        for base, folders, names in os.walk(top):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(base, name)
                if os.path.islink(path) or not os.path.isfile(path):
                    continue
                total += os.path.getsize(path) + 4096
                if total > limit_bytes:
                    return
                yield path


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Copier(threading.Thread):
    """Copies real files into a folder, one fsync each; (head seq, path, digest) of each."""

    def __init__(self, folder, head):
        super().__init__(daemon=True)
        self.folder, self.head = folder, head
        self.log = []
        self.bytes = 0
        self.error = None
        self.halt = False

    def run(self):
        try:
            for path in real_files(TREE_BYTES):
                if self.halt:
                    return
                data = read(path)
                target = os.path.join(self.folder, path.lstrip("/"))
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(target, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                seq = self.head()
                if seq is None:
                    return
                self.bytes += len(data)
                self.log.append((seq, path, hashlib.sha256(data).digest()))
        except OSError as error:
            self.error = error


class _Workload:
    def __init__(self, lab, pair, group):
        self.lab, self.pair, self.group = lab, pair, group
        self.ledger = None

    def head(self):
        """The primary's head, asked after something was made durable: that lies at or before it."""
        state = self.pair.alpha.group(self.group, "agent")
        return state["head_seq"] if state else None

    @property
    def error(self):
        return self.ledger.error

    def transactions_row(self, found, lost, seq):
        log = self.ledger.log
        promised = sum(1 for head in log if head <= seq)
        return [
            ("transactions acknowledged", f"{len(log)}, of these {promised} at or before the position"),
            ("transactions recovered", f"{found}, without a gap; integrity_check ok"),
            ("transactions lost", f"{lost}, all of them behind the position" if lost else "none"),
        ]


class MountedWorkload(_Workload):
    VOLUMES = {"files": 768 * MIB}

    def prepare(self):
        need("nbdfuse", "mkfs.ext4", "e2fsck", "losetup")
        self.device = Device(self.lab, self.pair.alpha.uri(self.group, "files"))
        self.device.mkfs()
        self.where = self.device.mount(self.lab.path("alpha-mount"))
        self.ledger = Ledger(os.path.join(self.where, "ledger.db"), self.head)
        self.ledger.create()
        os.mkdir(os.path.join(self.where, "tree"))
        self.copier = Copier(os.path.join(self.where, "tree"), self.head)
        say(f"ext4 on {self.device.loop}, mounted")

    def start(self):
        self.ledger.start()
        self.copier.start()

    def progress(self):
        return f"{len(self.ledger.log):>6} transactions {len(self.copier.log):>6} files"

    def acknowledged(self):
        return (f"{len(self.ledger.log)} transactions, {len(self.copier.log)} files "
                f"({self.copier.bytes >> 20} MiB)")

    def died(self):
        """The server below the mount is dead: let both end, and take the mount away."""
        self.ledger.halt = self.copier.halt = True
        self.ledger.join(10)
        self.copier.join(10)
        self.device.close()

    def first_write(self, answer):
        """Checks and mounts the promoted volume, and writes a file to it; when that was durable."""
        handle = nbd.NBD()
        handle.connect_uri(answer["nbd"][0]["uri"])
        sector = bytes(handle.pread(512, 0))
        handle.pwrite(sector, 0, nbd.CMD_FLAG_FUA)
        written = time.monotonic()
        handle.shutdown()
        return written

    def verify(self, answer):
        self.device = Device(self.lab, answer["nbd"][0]["uri"])
        damage = self.device.fsck()
        check(damage is None, f"e2fsck: {damage}")
        say("e2fsck: clean after the journal's replay")
        where = self.device.mount(self.lab.path("beta-mount"))
        found, lost = verify(os.path.join(where, "ledger.db"), self.ledger.log, answer["seq"])
        say(f"SQLite: {found} transactions without a gap, integrity_check ok")
        files = 0
        for head, path, digest in self.copier.log:
            if head <= answer["seq"]:
                target = os.path.join(where, "tree", path.lstrip("/"))
                check(os.path.exists(target), f"{path} was synced before seq {answer['seq']} and is gone")
                check(hashlib.sha256(read(target)).digest() == digest, f"{path} differs")
                files += 1
        say(f"files: {files} of {len(self.copier.log)} were complete at the position; all are there, same bytes")
        self.device.unmount()
        damage = self.device.fsck()
        check(damage is None, f"e2fsck after use: {damage}")
        self.device.close()
        return [*self.transactions_row(found, lost, answer["seq"]),
                ("files", f"{len(self.copier.log)} copied, {files} at or before the position, all intact")]


class LibnbdWorkload(_Workload):
    """Volume `files`: an ext4 image made by mke2fs, copied by nbdcopy. Volume `db`: SQLite's database at
    0, its write-ahead log at LOG, appended after each commit and flushed."""

    VOLUMES = {"files": 160 * MIB, "db": 192 * MIB}
    LOG = 16 * MIB

    def prepare(self):
        need("mke2fs", "debugfs", "nbdcopy", "e2fsck")
        tree = self.lab.make_dir("tree")
        self.files = []
        for path in real_files(TREE_BYTES // 2):
            target = os.path.join(tree, path.lstrip("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(path, target)
            self.files.append(path)
        self.image = self.lab.make_file("files.ext4", self.VOLUMES["files"])
        self.lab.run("mke2fs", "-q", "-t", "ext4", "-d", tree, self.image)
        self.path = self.lab.path("ledger.db")
        self.ledger = Ledger(self.path, self.commit, pause=0.002)
        self.ledger.create()
        self.handle = nbd.NBD()
        self.handle.connect_uri(self.pair.alpha.uri(self.group, "db"))
        self.base_bytes = os.path.getsize(self.path)
        self.handle.pwrite(read(self.path), 0)
        self.handle.flush()
        self.logged = 0
        self.copied = None
        say(f"an ext4 image with {len(self.files)} real files")

    def commit(self):
        """The part of the write-ahead log that is new goes to the volume; then it counts."""
        with open(self.path + "-wal", "rb") as file:
            file.seek(self.logged)
            data = file.read()
        padded = data + bytes(-(self.logged + len(data)) % 512)
        begin = self.logged - self.logged % 512
        if begin < self.logged:
            with open(self.path + "-wal", "rb") as file:
                file.seek(begin)
                padded = file.read(self.logged - begin) + padded
        try:
            self.handle.pwrite(padded, self.LOG + begin)
            self.handle.flush()
        except nbd.Error:
            return None
        self.logged += len(data)
        return self.head()

    def start(self):
        def copy():
            self.lab.run("nbdcopy", "--flush", self.image, self.pair.alpha.uri(self.group, "files"))
            self.copied = self.head()

        self.copier = threading.Thread(target=copy, daemon=True)
        self.ledger.start()
        self.copier.start()

    def progress(self):
        return f"{len(self.ledger.log):>6} transactions, image {'copied' if self.copied else 'under way'}"

    def acknowledged(self):
        return f"{len(self.ledger.log)} transactions, the image {'' if self.copied else 'not '}copied"

    def died(self):
        self.ledger.halt = True
        self.ledger.join(30)
        self.copier.join(30)

    def uri(self, answer, volume):
        return next(entry["uri"] for entry in answer["nbd"] if entry["volume"] == volume)

    def first_write(self, answer):
        handle = nbd.NBD()
        handle.connect_uri(self.uri(answer, "db"))
        handle.pwrite(bytes(handle.pread(512, 0)), 0, nbd.CMD_FLAG_FUA)
        written = time.monotonic()
        handle.shutdown()
        return written

    def verify(self, answer):
        check(self.copied is not None and self.copied <= answer["seq"], "the image was not copied in time")
        back = self.lab.path("back.ext4")
        self.lab.run("nbdcopy", self.uri(answer, "files"), back)
        self.lab.run("e2fsck", "-f", "-n", back)
        out = self.lab.make_dir("out")
        self.lab.run("debugfs", "-R", f"rdump / {out}", back)
        for path in self.files:
            check(read(os.path.join(out, path.lstrip("/"))) == read(path), f"{path} differs")
        say(f"e2fsck: clean; {len(self.files)} files read back, same bytes")
        handle = nbd.NBD()
        handle.connect_uri(self.uri(answer, "db"))
        found = self.lab.path("found.db")
        with open(found, "wb") as file:
            file.write(handle.pread(self.base_bytes, 0))
        with open(found + "-wal", "wb") as file:
            for at in range(self.LOG, self.LOG + self.logged + MIB, MIB):
                file.write(handle.pread(MIB, at))
        rows, lost = verify(found, self.ledger.log, answer["seq"])
        say(f"SQLite: {rows} transactions without a gap, integrity_check ok")
        return [*self.transactions_row(rows, lost, answer["seq"]),
                ("files", f"{len(self.files)} in the image, all intact")]
