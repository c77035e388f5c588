# SPDX-License-Identifier: Apache-2.0
"""An NBD export as a block device and a mounted file system: nbdfuse, a loop device, mount."""

import os
import subprocess
import time

from lab import Skip, kill_process, need, wait_for


def possible():
    """Why this machine cannot do it, or None."""
    if os.geteuid() != 0:
        return "loop devices and mounts need root"
    for path in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(path):
            return f"{path} is not there"
    return None


def must_be_possible():
    reason = possible()
    if reason:
        raise Skip(reason)
    need("nbdfuse", "losetup", "mkfs.ext4", "e2fsck", "mount", "fusermount3")


class Device:
    """A loop device over nbdfuse over an NBD URI."""

    _count = 0

    def __init__(self, lab, uri):
        Device._count += 1
        self.lab = lab
        self.uri = uri
        self.fuse_dir = lab.make_dir(f"fuse{Device._count}")
        self.loop = None
        self.mounts = []
        log = lab.path(f"nbdfuse{Device._count}.log")
        self.pid_file = lab.path(f"nbdfuse{Device._count}.pid")
        self.process = lab.spawn(["nbdfuse", "-P", self.pid_file, os.path.join(self.fuse_dir, "nbd"), uri], log)
        # Undone before what was started earlier, the server included: the file system ends in order.
        self.undo = lab.later(self.close)

        def ready():
            if self.process.poll() is not None:
                with open(log, encoding="utf-8", errors="replace") as file:
                    raise Skip(f"nbdfuse does not work here: {file.read().strip()}")
            return os.path.exists(self.pid_file)

        wait_for("nbdfuse", ready)
        done = lab.run("losetup", "--find", "--show", os.path.join(self.fuse_dir, "nbd"), ok=None)
        if done.returncode != 0:
            raise Skip(f"no loop device: {done.stderr.strip()}")
        self.loop = done.stdout.strip()

    def mkfs(self, *options):
        self.lab.run("mkfs.ext4", "-q", "-F", "-E", "nodiscard", *options, self.loop)

    def fsck(self):
        """e2fsck -n after the journal's replay; its output when it found an error, else None."""
        self.lab.run("e2fsck", "-p", self.loop, ok=(0, 1, 2, 4))
        done = self.lab.run("e2fsck", "-f", "-n", self.loop, ok=None)
        return None if done.returncode == 0 else done.stdout + done.stderr

    def mount(self, where, *options):
        os.makedirs(where, exist_ok=True)
        self.lab.run("mount", *options, self.loop, where)
        self.mounts.append(where)
        return where

    def unmount(self):
        for where in reversed(self.mounts):
            _unmount(where)
        self.mounts = []

    def close(self):
        """Undoes everything, also when the server behind it is dead."""
        if self.undo is None:
            return
        self.lab.forget(self.undo)
        self.undo = None
        self.unmount()
        if self.loop:
            subprocess.run(["losetup", "-d", self.loop], capture_output=True, check=False)
            self.loop = None
        _unmount(self.fuse_dir)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        kill_process(self.process)


def _mounted(where):
    """A mount whose server is dead cannot be asked itself."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        return any(line.split()[1] == where for line in file)


def _unmount(where):
    for _ in range(40):
        subprocess.run(["umount", where], capture_output=True, check=False)
        if not _mounted(where):
            return
        time.sleep(0.05)
    subprocess.run(["umount", "-l", where], capture_output=True, check=False)
