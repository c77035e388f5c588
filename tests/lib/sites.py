# SPDX-License-Identifier: Apache-2.0
"""Two sites on one machine: each with its own agent, engine, certificate, state and run directory.

    pair = Pair(lab, {"db": {"data": 64 << 20}})      group -> volume -> bytes
    pair.start()
    pair.alpha.uri("db", "data"), pair.beta.group("db"), pair.beta.promote("db")

alpha is the primary at first, beta the standby.
"""

import http.client
import json
import os
import socket
import subprocess
import time

from lab import BUILD, DECODER, Failure, check, fail, free_port, kill_process, wait_for

MIB = 1 << 20
QUICK = {
    "journal_size": "64MiB",
    "journal_file_size": "8MiB",
    "memory": "16MiB",
    "settle_timeout": "500ms",
    "heartbeat": "50ms",
    "peer_timeout": "1s",
}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def control(socket_path, method, path, body=None, timeout=60):
    """(HTTP status, document or text) of one request to a daemon's control socket."""
    connection = _UnixConnection(socket_path, timeout)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
        reply = connection.getresponse()
        data = reply.read().decode()
    finally:
        connection.close()
    if (reply.getheader("Content-Type") or "").startswith("application/json"):
        return reply.status, json.loads(data)
    return reply.status, data


class Pki:
    """A certificate authority in a directory, by the command under test."""

    def __init__(self, lab, name="pki"):
        self.lab = lab
        self.dir = lab.path(name)
        self._run("init")

    def _run(self, command, *args):
        return self.lab.run(os.path.join(BUILD, "holdfast"), "pki", command, "--dir", self.dir, *args)

    def issue(self, node, out=None, *args):
        """The options of a tls section for a new certificate of `node`."""
        out = out or os.path.join(self.dir, "issued")
        os.makedirs(out, exist_ok=True)
        document = json.loads(self._run("issue", "-o", "json", "--out", out, node, *args).stdout)
        return {
            "ca": os.path.join(self.dir, "ca.pem"),
            "cert": document["cert"],
            "key": document["key"],
            "crl": os.path.join(self.dir, "ca.crl"),
        }

    def revoke(self, node):
        self._run("revoke", node)


class Site:
    def __init__(self, lab, name, groups, options, root=None):
        self.lab = lab
        self.name = name
        self.node = f"{name}.example"
        self.root = root or lab.make_dir(name)
        self.state_dir = os.path.join(self.root, "state")
        self.run_dir = os.path.join(self.root, "run")
        self.conf = os.path.join(self.root, "holdfast.conf")
        self.port = free_port()
        self.metrics_port = free_port()
        self.groups = groups
        self.options = dict(QUICK, **options)
        self.peers = {}  # node: address
        self.peer_options = {}
        self.top = {}  # options of the sections agent and engine, and log_level
        self.group_options = {}  # group: options of its own
        self.host = "127.0.0.1"
        self.prefix = []  # what its daemons are started with: a network namespace
        self.tls = None
        self.processes = {}
        lab.describe.append(self.describe)
        for group, volumes in groups.items():
            for volume, size_bytes in volumes.items():
                path = self.volume(group, volume)
                if not os.path.exists(path):
                    with open(path, "wb") as file:
                        file.truncate(size_bytes)

    # ---- files -------------------------------------------------------------------------------

    def volume(self, group, volume):
        return os.path.join(self.root, f"{group}-{volume}.img")

    def group_dir(self, group):
        return os.path.join(self.state_dir, group)

    def log(self, daemon):
        return os.path.join(self.root, f"{daemon}.log")

    def log_text(self, daemon):
        with open(self.log(daemon), encoding="utf-8", errors="replace") as file:
            return file.read()

    def write_conf(self):
        lines = [
            f'node = "{self.node}"',
            f'state_dir = "{self.state_dir}"',
            f'run_dir = "{self.run_dir}"',
            f'log_level = {self.top.get("log_level", "info")}',
            "tls {",
            *(f'\t{key} = "{path}"' for key, path in self.tls.items()),
            "}",
            "agent {",
            *(f'\t{key} = "{value}"' for key, value in self.top.get("agent", {}).items()),
            "}",
            "engine {",
            f'\tlisten = "{self.host}:{self.port}"',
            *(f'\t{key} = "{value}"' for key, value in self.top.get("engine", {}).items()),
            "}",
        ]
        for group, volumes in self.groups.items():
            lines.append(f'group "{group}" {{')
            options = dict(self.options, **self.group_options.get(group, {}))
            lines += [f"\t{key} = {value}" for key, value in options.items()]
            for volume in volumes:
                lines.append(f'\tvolume "{volume}" {{ path = "{self.volume(group, volume)}" }}')
            for node, address in self.peers.items():
                lines.append(f'\tpeer "{node}" {{ address = "{address}"')
                lines += [f"\t\t{key} = {value}" for key, value in self.peer_options.items()]
                lines.append("\t}")
            lines.append("}")
        with open(self.conf, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    # ---- the command -------------------------------------------------------------------------

    def cli(self, verb, *args, ok=(0,), seconds=120):
        """Runs `holdfast VERB -c CONF ARGS`."""
        return self.lab.run(
            os.path.join(BUILD, "holdfast"), verb, "-c", self.conf, *args, ok=ok, seconds=seconds
        )

    def cli_json(self, verb, *args, ok=(0,), seconds=120):
        done = self.cli(verb, *args, "-o", "json", ok=ok, seconds=seconds)
        return json.loads(done.stdout if done.returncode == 0 else done.stderr)

    def init(self, role, groups=None):
        for group in groups or self.groups:
            self.cli("init", group, "--role", role)

    def promote(self, group, *args, ok=(0,), seconds=60):
        return self.cli_json("promote", group, "--yes", *args, ok=ok, seconds=seconds)

    def promote_after_loss(self, group, *args):
        """Promotes when the standby has noticed that its primary is gone. It first takes what is
        still in its sockets' buffers, and as long counts its primary as connected."""
        self.wait_group(
            group, "engine", "the loss to be noticed", lambda s: not s["standby"]["connected"], every=0.002
        )
        return self.promote(group, *args)

    # ---- daemons -----------------------------------------------------------------------------

    def start_daemon(self, daemon, wait=True):
        check(daemon not in self.processes, f"{self.name}: {daemon} runs already")
        os.makedirs(self.run_dir, exist_ok=True)
        process = self.lab.spawn(
            [*self.prefix, os.path.join(BUILD, f"holdfast-{daemon}"), "-c", self.conf], self.log(daemon)
        )
        self.processes[daemon] = process
        if wait:
            self.wait_daemon(daemon)
        return process

    def wait_daemon(self, daemon, seconds=20):
        def answers():
            process = self.processes[daemon]
            if process.poll() is not None:
                fail(f"{self.name}: {daemon} ended with status {process.returncode}")
            try:
                return self.control(daemon, "GET", "/v1/status")[0] == 200
            except OSError:
                return False

        wait_for(f"{self.name}: {daemon} to answer", answers, seconds)

    def start(self):
        self.start_daemon("engine")
        self.start_daemon("agent")

    def pid(self, daemon):
        return self.processes[daemon].pid

    def kill_daemon(self, daemon):
        """SIGKILL."""
        kill_process(self.processes.pop(daemon))

    def kill(self):
        """SIGKILL to all daemons of the site at once, as when its power goes."""
        for process in self.processes.values():
            process.kill()
        for daemon in list(self.processes):
            self.kill_daemon(daemon)

    def stop_daemon(self, daemon, seconds=30):
        process = self.processes.pop(daemon)
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            fail(f"{self.name}: {daemon} did not stop within {seconds} s")
        check(process.returncode == 0, f"{self.name}: {daemon} ended with status {process.returncode}")

    def stop(self):
        for daemon in list(self.processes):
            self.stop_daemon(daemon)

    # ---- state -------------------------------------------------------------------------------

    def control(self, daemon, method, path, body=None, timeout=60):
        return control(os.path.join(self.run_dir, f"{daemon}.sock"), method, path, body, timeout)

    def group(self, group, daemon):
        """The status of a group as the daemon sees it, or None."""
        try:
            status, document = self.control(daemon, "GET", f"/v1/groups/{group}")
        except OSError:
            return None
        return document if status == 200 else None

    def wait_group(self, group, daemon, what, condition, seconds=20, every=0.02):
        last = {}

        def holds():
            state = self.group(group, daemon)
            last["state"] = state
            return state if state is not None and condition(state) else None

        try:
            return wait_for(f"{self.name}: group {group}: {what}", holds, seconds, every)
        except Failure as error:
            raise Failure(f"{error}; it is {json.dumps(last['state'])}") from None

    def wait_serving(self, group, seconds=20):
        return self.wait_group(group, "agent", "serving", lambda s: s["state"] == "serving", seconds)

    def wait_streaming(self, group, seconds=30):
        """The standby here is connected, was copied, and is consistent."""
        return self.wait_group(
            group,
            "engine",
            "consistent and connected",
            lambda s: s["standby"]["connected"] and s["standby"]["consistent"],
            seconds,
        )

    def describe(self):
        """What the running daemons say about their groups, for the report of a failure."""
        lines = []
        for daemon in self.processes:
            for group in self.groups:
                state = self.group(group, daemon)
                lines.append(f"{self.root}: {daemon}: {json.dumps(state)}")
        return "\n".join(lines)

    def uri(self, group, volume):
        return f"nbd+unix:///{volume}?socket={self.nbd_socket(group)}"

    def nbd_socket(self, group):
        return os.path.join(self.run_dir, f"nbd-{group}.sock")

    def memory(self, daemon):
        """{VmRSS, VmHWM} of a daemon in bytes."""
        found = {}
        with open(f"/proc/{self.pid(daemon)}/status", encoding="ascii") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key in ("VmRSS", "VmHWM"):
                    found[key] = int(value.split()[0]) * 1024
        return found

    def decode(self, group, *args, ok=(0,)):
        """The second decoder on a group directory; a list of its documents."""
        where = self.group_dir(group)
        if args[0] == "superblock":
            where = os.path.join(where, "superblock")
        done = self.lab.run("/usr/bin/python3", DECODER, args[0], where, *args[1:], ok=ok)
        return [json.loads(line) for line in done.stdout.splitlines()]


class Pair:
    def __init__(self, lab, groups, options=None, through=None, directory=""):
        """`options` go into every group; `through` gives alpha another address for beta's engine."""
        self.lab = lab
        self.groups = groups
        options = options or {}
        roots = {n: lab.make_dir(os.path.join(directory, n)) for n in ("alpha", "beta")}
        self.alpha = Site(lab, "alpha", groups, options, roots["alpha"])
        self.beta = Site(lab, "beta", groups, options, roots["beta"])
        self.pki = Pki(lab, os.path.join(directory, "pki"))
        for site, other in ((self.alpha, self.beta), (self.beta, self.alpha)):
            site.tls = self.pki.issue(site.node)
            site.peers[other.node] = f"127.0.0.1:{other.port}"
        if through:
            self.alpha.peers[self.beta.node] = through(self.beta.port)
        self.alpha.write_conf()
        self.beta.write_conf()

    def init(self):
        self.alpha.init("primary")
        self.beta.init("standby")

    def start(self, init=True, wait=True):
        if init:
            self.init()
        self.beta.start()
        self.alpha.start()
        if wait:
            for group in self.groups:
                self.alpha.wait_serving(group)
                self.beta.wait_streaming(group)

    def caught_up(self, group, seconds=30, source=None, target=None):
        """Waits until the standby holds and has applied all that the primary has now."""
        source, target = source or self.alpha, target or self.beta
        head = source.group(group, "agent")["head_seq"]
        return target.wait_group(
            group,
            "engine",
            f"everything up to seq {head}",
            lambda s: s["applied_seq"] >= head and s["standby"]["consistent"],
            seconds,
        )

    def compare(self, group):
        """Both sides' volumes, byte for byte; call it when both daemons are stopped."""
        for volume in self.groups[group]:
            done = self.lab.run(
                "cmp", self.alpha.volume(group, volume), self.beta.volume(group, volume), ok=None
            )
            check(done.returncode == 0, f"group {group}, volume {volume}: {done.stdout}{done.stderr}")

    def stop_and_compare(self):
        """Stops cleanly, primary first, so that everything reaches the standby; then compares."""
        for group in self.groups:
            self.caught_up(group)
        self.alpha.stop()
        self.beta.stop()
        for group in self.groups:
            self.compare(group)


def sample(seconds, every, function):
    """Calls `function` every `every` seconds for `seconds`; the list of what it gave."""
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end:
        found.append(function())
        time.sleep(every)
    return found
