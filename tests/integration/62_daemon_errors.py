#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Daemons that cannot do what they should: each says what, where and what to do, and ends or goes on
as it must. Ports and sockets in use, files of others in the way, keys open to others, two daemons on
one state directory, few descriptors, SIGTERM at any moment of the start, SIGHUP with a broken
certificate."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import BUILD, check, main, say, wait_for
from sites import MIB, Pki, Site


def attempt(site, daemon, conf=None, seconds=10, **options):
    """(exit status, output) of a daemon that should end by itself."""
    done = subprocess.run(
        [os.path.join(BUILD, f"holdfast-{daemon}"), "-c", conf or site.conf],
        capture_output=True, text=True, timeout=seconds, **options,
    )
    return done.returncode, done.stdout + done.stderr


def refused(site, daemon, *words, status=1, conf=None):
    code, text = attempt(site, daemon, conf)
    check(code == status, f"{daemon}: exit status {code}, not {status}:\n{text}")
    for word in words:
        check(word in text, f"{daemon} does not say '{word}':\n{text}")


def changed(site, name, **values):
    """Another configuration beside the site's own, with lines replaced."""
    path = os.path.join(site.root, name)
    with open(site.conf, encoding="utf-8") as file:
        lines = file.read().splitlines()
    for key, value in values.items():
        found = [i for i, line in enumerate(lines) if line.strip().startswith(f"{key} =")]
        check(found, f"no {key} in {site.conf}")
        lines[found[0]] = f'{key} = "{value}"'
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path


def in_the_way(lab, site):
    say("ports, sockets and files that are taken")
    with socket.create_server(("127.0.0.1", site.port)):
        refused(site, "engine", f"listen = 127.0.0.1:{site.port}", "already in use", "choose a free address")
    with socket.create_server(("127.0.0.1", site.metrics_port)):
        refused(site, "agent", f"metrics_listen 127.0.0.1:{site.metrics_port}", "choose another address")
    precious = os.path.join(site.run_dir, "agent.sock")
    with open(precious, "w", encoding="ascii") as file:
        file.write("precious")
    refused(site, "agent", precious, "exists", "check run_dir")
    with open(precious, encoding="ascii") as file:
        check(file.read() == "precious", "the agent removed a file that is not its own")
    os.remove(precious)
    os.mkdir(site.nbd_socket("db"))
    site.start_daemon("agent")
    wait_for("words about the NBD socket", lambda: "remove what is there" in site.log_text("agent"))
    check(site.nbd_socket("db") in site.log_text("agent"), "the log does not name the socket")
    site.stop_daemon("agent")
    os.rmdir(site.nbd_socket("db"))


def files_of_ours(lab, site):
    say("keys, certificates, directories")
    key = site.tls["key"]
    os.chmod(key, 0o644)
    for daemon in ("agent", "engine"):
        refused(site, daemon, key, "0644", f"chmod 600 {key}")
    os.chmod(key, 0o600)
    other = Pki(lab, "other").issue("other.example")
    refused(site, "agent", "another node's", "other.example",
            conf=changed(site, "other.conf", cert=other["cert"], key=other["key"]))
    refused(site, "agent", "run_dir", "cannot be made",
            conf=changed(site, "nodir.conf", run_dir=os.path.join(site.root, "a", "b")))
    refused(site, "agent", "run_dir is too long", status=2,
            conf=changed(site, "long.conf", run_dir="/tmp/" + "x" * 120))
    kept = site.tls["cert"] + ".kept"
    shutil.copy(site.tls["cert"], kept)
    site.start_daemon("agent")
    with open(site.tls["cert"], "w", encoding="ascii") as file:
        file.write("garbage")
    os.kill(site.pid("agent"), signal.SIGHUP)
    wait_for("the refusal of the broken certificate", lambda: "the old ones stay" in site.log_text("agent"))
    shutil.copy(kept, site.tls["cert"])
    os.kill(site.pid("agent"), signal.SIGHUP)
    wait_for("the new certificate", lambda: "certificates reloaded" in site.log_text("agent"))
    site.stop_daemon("agent")


def two_of_one(site):
    say("two daemons on one state directory")
    site.start_daemon("agent")
    site.wait_serving("db")
    refused(site, "agent", "agent.sock", "another daemon of this configuration runs")
    twin = changed(site, "twin.conf", run_dir=os.path.join(site.root, "run2"),
                   metrics_listen=f"127.0.0.1:{site.metrics_port + 1 if site.metrics_port < 65000 else 65000}")
    process = subprocess.Popen([os.path.join(BUILD, "holdfast-agent"), "-c", twin],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(1)
    process.terminate()
    text = process.communicate(timeout=20)[0]
    check("another process owns the group's directory" in text, f"the second agent says:\n{text}")
    check(site.group("db", "agent")["state"] == "serving", "the first agent does not serve any more")
    site.stop_daemon("agent")


def stopped_at_any_time(site):
    say("SIGTERM at any moment of the start; few descriptors")
    for step in range(12):
        process = subprocess.Popen([os.path.join(BUILD, "holdfast-agent"), "-c", site.conf],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(0.004 * step * step / 3)
        process.terminate()
        text = process.communicate(timeout=20)[0]
        # Before it takes over the signals it dies of them.
        check(process.returncode in (0, -signal.SIGTERM), f"exit status {process.returncode}:\n{text}")
    for limit in (6, 10, 14, 18, 24, 40):
        process = subprocess.Popen(
            [os.path.join(BUILD, "holdfast-agent"), "-c", site.conf],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
        )
        time.sleep(0.4)
        process.terminate()
        text = process.communicate(timeout=20)[0]
        check(process.returncode in (0, 1, 2, 127), f"{limit} descriptors: exit status {process.returncode}:\n{text}")
        check("does not hold" not in text, f"{limit} descriptors: an assertion failed:\n{text}")
    site.start_daemon("agent")
    site.wait_serving("db")
    site.stop_daemon("agent")


def test(lab):
    site = Site(lab, "alpha", {"db": {"data": 8 * MIB}}, {})
    site.tls = Pki(lab).issue(site.node)
    site.top["agent"] = {"metrics_listen": f"127.0.0.1:{site.metrics_port}"}
    site.write_conf()
    os.makedirs(site.run_dir)
    site.init("primary")
    in_the_way(lab, site)
    files_of_ours(lab, site)
    two_of_one(site)
    stopped_at_any_time(site)


main(test, "62")
