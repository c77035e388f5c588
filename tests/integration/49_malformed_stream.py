#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Malformed input to the replication port: garbage, half frames, lies about lengths, silence.

The engine stays alive, keeps its memory bounded, and goes on serving the real primary. A HELLO is
recorded from the real agent by a listener with the standby's certificate, and then mutilated.
"""

import os
import random
import socket
import ssl
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, free_port, main, say, wait_for
from numbered import Plan, Writer
from sites import MIB, Pair

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "decoder"))
from hfdecode import FRAME_BYTES, crc32c, frame_decode

HELLO, START, SEGMENT, ACK, HEARTBEAT, SYNC_DATA = 1, 4, 5, 6, 7, 8


def record_hello(lab, pair):
    """What alpha's agent says first, heard by us with beta's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(pair.beta.tls["cert"], pair.beta.tls["key"])
    context.load_verify_locations(pair.beta.tls["ca"])
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["holdfast/1"])
    port = free_port()
    listener = socket.create_server(("127.0.0.1", port))
    listener.settimeout(10)
    pair.alpha.peers[pair.beta.node] = f"127.0.0.1:{port}"
    pair.alpha.write_conf()
    pair.alpha.start_daemon("agent")
    with context.wrap_socket(listener.accept()[0], server_side=True) as tls:
        data = b""
        while len(data) < FRAME_BYTES or len(data) < FRAME_BYTES + struct.unpack_from("<I", data, 8)[0]:
            part = tls.recv(65536)
            check(part, "the agent closed instead of saying HELLO")
            data += part
    listener.close()
    pair.alpha.stop_daemon("agent")
    frame, body = frame_decode(data, 0)
    check(frame["frame"] == "hello" and frame["body"] == len(body), f"the agent began with {frame}")
    return data


def frame(kind, body=b"", epoch=1, seq=0, arg1=0, arg2=0, flags=0, length=None, magic=b"HFFR"):
    crc = crc32c(body) if body and kind != SEGMENT else 0
    head = struct.pack("<4sHHIIQQQQ12s", magic, kind, flags, len(body) if length is None else length, crc,
                       epoch, seq, arg1, arg2, bytes(12))
    return head + struct.pack("<I", crc32c(head)) + body


class Client:
    def __init__(self, pair):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.set_alpn_protocols(["holdfast/1"])
        self.context.load_verify_locations(pair.alpha.tls["ca"])
        self.context.load_cert_chain(pair.alpha.tls["cert"], pair.alpha.tls["key"])
        self.port = pair.beta.port

    def connect(self):
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        return self.context.wrap_socket(sock)

    def answer(self, *parts, linger=3.0):
        """What comes back for these bytes until the engine closes; it must close."""
        with self.connect() as tls:
            try:
                for part in parts:
                    tls.sendall(part)
            except (ssl.SSLError, OSError):
                pass
            tls.settimeout(linger)
            data = b""
            try:
                while chunk := tls.recv(65536):
                    data += chunk
            except (ssl.SSLEOFError, ConnectionError):
                pass
            except TimeoutError:
                return None  # still open
            return data


def frames_of(data):
    found, at = [], 0
    while at + FRAME_BYTES <= len(data):
        document, body = frame_decode(data, at)
        found.append(document["frame"])
        at += FRAME_BYTES + len(body)
    return found


def before_hello(client, hello):
    say("garbage instead of a HELLO")
    dice = random.Random(49)
    body = hello[FRAME_BYTES:]
    cases = {
        "noise": dice.randbytes(5000),
        "wrong magic": frame(HELLO, body, magic=b"XXXX"),
        "broken header": bytes([hello[0]]) + bytes(b ^ 1 for b in hello[1:40]) + hello[40:],
        "broken body": hello[:-1] + bytes([hello[-1] ^ 0x40]),
        "a length of 4 GiB": frame(HELLO, length=0xFFFFFFFF),
        "a message of 65537 bytes": frame(HELLO, bytes(65537)),
        "an empty HELLO": frame(HELLO),
        "a HELLO of noise": frame(HELLO, dice.randbytes(300)),
        "an unknown type": frame(99, b"x"),
        "a segment first": frame(SEGMENT, bytes(4096), seq=1, arg1=1),
        "an acknowledgement first": frame(ACK, seq=1),
        "a web browser": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10,
    }
    for what, data in cases.items():
        check(client.answer(data) is not None, f"{what}: the connection stays open")
    for number in range(12):
        at = dice.randrange(len(body))
        changed = body[:at] + bytes([dice.randrange(256)]) + body[at + 1 :]
        data = client.answer(frame(HELLO, changed[: dice.randrange(1, len(body) + 1)]), linger=0.5)
        if data:  # what still is a HELLO may be welcomed; anything else is refused or dropped
            check(frames_of(data)[0] in ("refuse", "welcome"), f"mutation {number}: {frames_of(data)}")


def behind_hello(client, hello):
    say("a right HELLO, then garbage")
    dice = random.Random(50)
    start = frame(START, b"\x08\x01")
    cases = {
        "noise": [dice.randbytes(5000)],
        "a second HELLO": [hello],
        "half a frame, then the end": [frame(HEARTBEAT, bytes(40))[:50]],
        "a segment before START": [frame(SEGMENT, dice.randbytes(4096), seq=1, arg1=1)],
        "a segment of 1 GiB": [frame(SEGMENT, seq=1, arg1=1, length=1 << 30)],
        "START of noise": [frame(START, dice.randbytes(50))],
        "noise as a segment": [start, frame(SEGMENT, dice.randbytes(8192), seq=1, arg1=1)],
        "zeroes as a segment": [start, frame(SEGMENT, bytes(1 << 16), seq=1, arg1=3)],
        "content outside of the volume": [start, frame(SYNC_DATA, bytes(4096), seq=1, arg1=1 << 50, arg2=4096)],
        "a sequence from the future": [start, frame(SEGMENT, bytes(4096), seq=1 << 60, arg1=1 << 60)],
        "an unknown type": [frame(13)],
    }
    for what, parts in cases.items():
        with client.connect() as tls:
            tls.sendall(hello)
            tls.settimeout(5)
            first = tls.recv(65536)
            check(frames_of(first)[0] == "welcome", f"{what}: answered by {frames_of(first)}")
            try:
                for part in parts:
                    tls.sendall(part)
                if what.startswith("half"):
                    tls.unwrap()
                    continue
                while tls.recv(65536):
                    pass
            except (ssl.SSLError, ConnectionError):
                pass
            except TimeoutError:
                check(False, f"{what}: the session goes on")


def slow_loris(pair, client, hello):
    say("many connections that say little or nothing")
    silent = [socket.create_connection(("127.0.0.1", pair.beta.port), timeout=5) for _ in range(100)]
    slow = []
    for _ in range(20):
        try:
            slow.append(client.connect())
        except (OSError, ssl.SSLError):
            break
    for tls in slow:
        try:
            tls.sendall(hello[:20])
        except OSError:
            pass

    def let_go():
        """The engine ends them by itself, in its own time."""
        return sum(closed(sock) for sock in silent) == len(silent)

    def closed(sock):
        sock.setblocking(False)
        try:
            return sock.recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    wait_for("silent connections to be closed", let_go, 30, every=0.25)
    for sock in (*silent, *slow):
        sock.close()


def test(lab):
    pair = Pair(lab, {"db": {"data": 8 * MIB}})
    pair.init()
    hello = record_hello(lab, pair)
    pair.alpha.peers[pair.beta.node] = f"127.0.0.1:{pair.beta.port}"
    pair.alpha.write_conf()
    client = Client(pair)
    pair.beta.start()
    behind_hello(client, hello)

    pair.alpha.start()
    pair.beta.wait_streaming("db")
    writer = Writer(Plan(1, 2048, seed=49), [pair.alpha.uri("db", "data")], rate=200)
    writer.start()
    before = pair.beta.memory("engine")["VmRSS"]
    before_hello(client, hello)
    slow_loris(pair, client, hello)
    after = pair.beta.memory("engine")["VmRSS"]
    say(f"memory of the engine: {before >> 20} MiB before, {after >> 20} MiB after")
    check(after < before + 32 * MIB, f"the engine grew from {before} to {after} bytes")
    check(pair.beta.processes["engine"].poll() is None, "the engine died")
    pair.beta.wait_streaming("db")
    last = writer.stop()
    check(last > 500, f"only {last} writes")
    pair.stop_and_compare()


main(test, "49")
