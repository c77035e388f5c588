#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Floods and strangers at the ports of an engine that receives.

500 connections that say nothing, a thousand that come and go, TLS that stops in the middle, the
right certificate with another node's name, endless sessions of the right peer: the real primary
gets in again within seconds, descriptors and memory go back to what they were. What changes state
is not reachable over TCP, and sockets and keys are closed to others.
"""

import http.client
import os
import socket
import ssl
import stat
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, main, say, wait_for
from sites import MIB, Pair

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "decoder"))
from hfdecode import FRAME_BYTES, crc32c, frame_decode


SANITIZED = any(name in os.environ.get("HOLDFAST_BUILD", "") for name in ("asan", "tsan"))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def silent_sockets(port, count):
    found = []
    for _ in range(count):
        sock = socket.socket()
        sock.settimeout(5)
        sock.connect(("127.0.0.1", port))
        found.append(sock)
    return found


def tls_context(site):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["holdfast/1"])
    context.load_verify_locations(site.tls["ca"])
    context.load_cert_chain(site.tls["cert"], site.tls["key"])
    return context


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def hello_numbers(source):
    """{name: number} of the fields of message Hello."""
    with open(source, encoding="utf-8") as file:
        text = file.read()
    body = text[text.index("message Hello {") :]
    body = body[: body.index("}")]
    found = {}
    for line in body.splitlines():
        words = line.split("//")[0].replace(";", " ").split()
        if "=" in words:
            found[words[words.index("=") - 1]] = int(words[words.index("=") + 1])
    return found


def hello(numbers, node, uuid):
    body = b"".join(
        field(numbers[name], value)
        for name, value in (
            ("protocol_min", 1),
            ("protocol_max", 1),
            ("node", node.encode()),
            ("group", b"db"),
            ("group_uuid", bytes.fromhex(uuid.replace("-", ""))),
            ("epoch", 1),
        )
    )
    head = struct.pack("<4sHHIIQQQQ12s", b"HFFR", 1, 0, len(body), crc32c(body), 1, 0, 0, 0, bytes(12))
    return head + struct.pack("<I", crc32c(head)) + body


def answer(site, port, data):
    """The name and body of the frame that comes back, or None."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        with tls_context(site).wrap_socket(plain) as tls:
            tls.sendall(data)
            got = b""
            try:
                while len(got) < FRAME_BYTES or len(got) < FRAME_BYTES + struct.unpack_from("<I", got, 8)[0]:
                    part = tls.recv(65536)
                    if not part:
                        return None
                    got += part
            except (ConnectionError, ssl.SSLError):
                return None
    document, body = frame_decode(got, 0)
    return document["frame"], body


def flood(pair, pid):
    before = descriptors(pid)
    say("500 connections that say nothing; then the primary's link is cut")
    silent = silent_sockets(pair.beta.port, 500)
    pair.alpha.stop_daemon("agent")
    began = time.monotonic()
    pair.alpha.start_daemon("agent")
    pair.beta.wait_streaming("db", seconds=5)
    say(f"  the primary was back after {time.monotonic() - began:.2f} s")
    for sock in silent:
        sock.close()
    say("1000 connections that come and go")
    for number in range(1000):
        with socket.create_connection(("127.0.0.1", pair.beta.port), timeout=5) as sock:
            if number % 3 == 0:
                sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # a ClientHello that stops
            if number % 3 == 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for("descriptors to be closed", lambda: descriptors(pid) <= before + 2, 15)
    pair.beta.wait_streaming("db", seconds=5)


def strangers(pair, source, uuid):
    say("the right certificate, and another's name or group")
    numbers = hello_numbers(os.path.join(source, "proto", "link.proto"))
    wrong = [
        (pair.alpha, hello(numbers, "gamma.example", uuid), "another node's name"),
        (pair.beta, hello(numbers, "beta.example", uuid), "the standby itself"),
        (pair.beta, hello(numbers, "alpha.example", uuid), "the standby as the primary"),
    ]
    texts = set()
    for site, data, what in wrong:
        said = answer(site, pair.beta.port, data)
        check(said and said[0] == "refuse", f"{what}: {said}")
        texts.add(said[1])
    check(len(texts) == 1, "refusals differ, which tells a stranger what exists")
    pair.beta.wait_streaming("db", seconds=5)


def sessions(pair, source, uuid, pid):
    say("150 sessions of the right peer, each in place of the one before")
    numbers = hello_numbers(os.path.join(source, "proto", "link.proto"))
    data = hello(numbers, "alpha.example", uuid)
    before = descriptors(pid)
    for _ in range(150):
        said = answer(pair.alpha, pair.beta.port, data)
        check(said is None or said[0] in ("refuse", "welcome", "bye"), f"answered by {said}")
    wait_for("descriptors to be closed", lambda: descriptors(pid) <= before + 2, 15)
    pair.beta.wait_streaming("db", seconds=10)


def closed_doors(pair):
    say("what changes state is not reachable over TCP; files are closed to others")
    for port, groups in ((pair.beta.metrics_port, "engine"), (pair.alpha.metrics_port, "agent")):
        for method, path, wanted in (
            ("GET", "/metrics", 200),
            ("GET", "/healthz", 200),
            ("GET", "/v1/status", 404),
            ("POST", "/v1/groups/db/promote", 404),
            ("POST", "/v1/groups/db/release", 404),
            ("POST", "/metrics", 405),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request(method, path, "{}" if method == "POST" else None)
            status = connection.getresponse().status
            connection.close()
            check(status == wanted, f"{groups}: {method} {path} over TCP: {status}, not {wanted}")
    silent = []
    for _ in range(100):
        sock = socket.socket()
        sock.bind(("127.0.0.2", 0))
        sock.connect(("127.0.0.1", pair.beta.metrics_port))
        silent.append(sock)
    connection = http.client.HTTPConnection("127.0.0.1", pair.beta.metrics_port, timeout=5)
    connection.request("GET", "/metrics")
    check(connection.getresponse().status == 200, "silent connections keep another host from the metrics")
    connection.close()
    for sock in silent:
        sock.close()
    for site in (pair.alpha, pair.beta):
        for name in os.listdir(site.run_dir):
            mode = os.lstat(os.path.join(site.run_dir, name)).st_mode
            check(stat.S_ISSOCK(mode) and mode & 0o007 == 0, f"{name} has mode {mode & 0o777:o}")
        for folder, _, names in os.walk(site.state_dir):
            check(os.stat(folder).st_mode & 0o077 == 0, f"{folder} is open to others")
            for name in names:
                mode = os.stat(os.path.join(folder, name)).st_mode
                check(mode & 0o077 == 0, f"{folder}/{name} has mode {mode & 0o777:o}")
        with open(site.tls["key"], encoding="ascii") as file:
            key = file.read().splitlines()[1]
        for daemon in ("agent", "engine"):
            check(key not in site.log_text(daemon), "a key is in a log")


def control_abuse(pair, pid):
    say("the control socket: requests that stop, lie, or are too large")
    path = os.path.join(pair.beta.run_dir, "engine.sock")
    before = descriptors(pid)
    socks = []
    for data in (
        b"",
        b"GET /v1/status HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/groups/db/promote HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{",
        b"POST /v1/groups/db/promote HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"\x00" * 100000,
        b"GET /" + b"a" * 200000,
    ):
        for _ in range(5):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(5)
            sock.connect(path)
            try:
                sock.sendall(data)
            except OSError:
                pass
            socks.append(sock)
    cases = {
        b"[1]": 400,
        b"{" * 50000: 400,
        b'{"force": 1}': 400,
        b'{"expect_epoch": -1}': 400,
        b'{"expect_epoch": 99999999999999999999}': 400,
        b'{"expect_epoch": 7}': 409,
        b'{"a": 1, "a": 2}': 400,
        b'"\xff\xfe"': 400,
        b" " * (1 << 21): 413,
    }
    for body, wanted in cases.items():
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        sock.connect(path)
        head = f"POST /v1/groups/db/promote HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        reply = sock.recv(100)
        sock.close()
        check(f" {wanted} ".encode() in reply, f"{body[:30]}: {reply[:40]}, not {wanted}")
    for sock in socks:
        sock.close()
    check(pair.beta.control("engine", "GET", "/v1/status")[0] == 200, "the control socket does not answer")
    wait_for("descriptors to be closed", lambda: descriptors(pid) <= before + 2, 15)


def test(lab):
    pair = Pair(lab, {"db": {"data": 8 * MIB}})
    pair.beta.top["engine"] = {"metrics_listen": f"127.0.0.1:{pair.beta.metrics_port}"}
    pair.alpha.top["agent"] = {"metrics_listen": f"127.0.0.1:{pair.alpha.metrics_port}"}
    pair.alpha.write_conf()
    pair.beta.write_conf()
    pair.start()
    source = os.environ.get("HOLDFAST_SOURCE", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    uuid = pair.alpha.group("db", "agent")["uuid"]
    pid = pair.beta.pid("engine")
    flood(pair, pid)
    memory = pair.beta.memory("engine")["VmRSS"]
    strangers(pair, source, uuid)
    sessions(pair, source, uuid, pid)
    closed_doors(pair)
    control_abuse(pair, pid)
    grown = pair.beta.memory("engine")["VmRSS"] - memory
    say(f"engine: {memory >> 20} MiB, and {grown / MIB:.1f} MiB more at the end")
    if not SANITIZED:  # these keep what was freed
        check(grown < 24 * MIB, f"the engine grew by {grown} bytes")
    check(pair.beta.processes["engine"].poll() is None, "the engine died")
    pair.stop_and_compare()


main(test, "61")
