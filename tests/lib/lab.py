# SPDX-License-Identifier: Apache-2.0
"""A laboratory: a temporary directory, and everything that a test starts or attaches in it.

What is started, mounted or attached is undone in reverse order when the laboratory closes, also after
a failure, Ctrl-C, SIGTERM or a time-out of the runner.
"""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

BUILD = os.path.abspath(os.environ.get("HOLDFAST_BUILD", "build"))
SOURCE = os.environ.get(
    "HOLDFAST_SOURCE", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
)
DECODER = os.path.join(SOURCE, "tests", "decoder", "hfdecode.py")

# Debian's tools and Python come first: another Python does not find Debian's nbd module.
os.environ["PATH"] = "/usr/bin:/bin:/usr/sbin:/sbin:" + os.environ.get("PATH", "")


class Failure(Exception):
    """A test failed; the text says why."""


class Skip(Exception):
    """This machine cannot run the test; the text says why."""


def fail(text):
    raise Failure(text)


def check(condition, text):
    if not condition:
        raise Failure(text)


def need(*tools):
    for tool in tools:
        if shutil.which(tool) is None:
            raise Skip(f"{tool} is not installed")


_began = time.monotonic()


def say(text):
    """A line of the test's story, with the time since its beginning."""
    print(f"{time.monotonic() - _began:6.2f}  {text}", flush=True)


def wait_for(what, condition, seconds=20.0, every=0.02):
    """Calls `condition` until it is true and returns what it gave; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"waited {seconds:.0f} s for: {what}")
        time.sleep(every)


_ports_given = set()


def free_port():
    """A TCP port of 127.0.0.1 that nobody listens on, and that this process was not given before."""
    while True:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        if port not in _ports_given:
            _ports_given.add(port)
            return port


def _file_system(path):
    return subprocess.run(
        ["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True
    ).stdout.strip()


def _temporary_base():
    """A directory on a disk: a memory file system would make every figure and crash meaningless."""
    base = os.environ.get("TMPDIR", "/tmp")
    if _file_system(base) in ("tmpfs", "ramfs") and _file_system("/var/tmp") not in ("tmpfs", "ramfs"):
        return "/var/tmp"
    return base


class Lab:
    def __init__(self, name="test"):
        self.dir = tempfile.mkdtemp(prefix=f"hf-{name}.", dir=_temporary_base())
        os.chmod(self.dir, 0o755)
        self.undo = []
        self.logs = []
        self.describe = []  # functions whose text helps to understand a failure
        self.closed = False
        atexit.register(self.close)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def make_dir(self, *parts):
        path = self.path(*parts)
        os.makedirs(path, exist_ok=True)
        return path

    def make_file(self, name, size_bytes):
        path = self.path(name)
        with open(path, "wb") as file:
            file.truncate(size_bytes)
        return path

    def later(self, function, *args):
        """Registers what undoes a step. Returns a handle for forget()."""
        entry = (function, args)
        self.undo.append(entry)
        return entry

    def forget(self, entry):
        if entry in self.undo:
            self.undo.remove(entry)

    def spawn(self, args, log=None, **options):
        """Starts a process; its output goes to the file `log`, which is shown when the test fails."""
        if log is not None:
            with open(log, "ab") as out:
                process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **options)
            if log not in self.logs:
                self.logs.append(log)
        else:
            process = subprocess.Popen(args, stdin=subprocess.DEVNULL, **options)
        self.later(kill_process, process)
        return process

    def run(self, *args, ok=(0,), seconds=120, **options):
        """Runs a command to its end. Its output is in the result, and in the failure."""
        try:
            done = subprocess.run(
                args, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, **options
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"{' '.join(args)}: not done after {seconds} s") from None
        if ok is not None and done.returncode not in ok:
            raise Failure(
                f"{' '.join(args)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def show_logs(self, lines=40):
        for function in self.describe:
            print(function(), file=sys.stderr)
        for log in self.logs:
            try:
                with open(log, encoding="utf-8", errors="replace") as file:
                    tail = file.readlines()[-lines:]
            except OSError:
                continue
            print(f"---- {os.path.relpath(log, self.dir)}", file=sys.stderr)
            sys.stderr.writelines(tail)

    def close(self):
        if self.closed:
            return
        self.closed = True
        for function, args in reversed(self.undo):
            try:
                function(*args)
            except Exception as error:  # the rest must be undone all the same
                print(f"cleaning up: {error}", file=sys.stderr)
        if os.environ.get("HOLDFAST_KEEP"):
            print(f"kept: {self.dir}", file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def kill_process(process):
    if process.poll() is None:
        process.kill()
    process.wait()


def main(function, name, tools=()):
    """Runs one integration test: exit 0 passed, 77 skipped, 1 failed."""

    def on_signal(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    lab = None
    try:
        need(*tools)
        lab = Lab(name)
        function(lab)
        status = 0
    except Skip as reason:
        print(f"skipped: {reason}")
        status = 77
    except SystemExit as leave:
        print(f"stopped by a signal\n{''.join(traceback.format_tb(leave.__traceback__)[-4:])}", file=sys.stderr)
        if lab:
            lab.show_logs()
        status = leave.code
    except Exception as error:
        if isinstance(error, Failure):
            where = traceback.extract_tb(error.__traceback__)
            lines = [f"{os.path.basename(f.filename)}:{f.lineno}" for f in where[1:]]
            print(f"FAILED: {error}\n  at {' < '.join(reversed(lines))}", file=sys.stderr)
        else:
            traceback.print_exc()
        if lab:
            lab.show_logs()
        status = 1
    finally:
        if lab:
            lab.close()
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)
