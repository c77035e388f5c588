#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whoever knocks at the engine's port: strangers, garbage, wrong frames, groups that are not theirs.

Each is refused, in the same words where the words would tell something, and the engine goes on.
"""
import json
import os
import random
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.environ["HOLDFAST_SOURCE"], "tests", "decoder"))
from hfdecode import crc32c  # noqa: E402

BUILD = os.environ["HOLDFAST_BUILD"]
HELLO, WELCOME, REFUSE, SEGMENT = 1, 2, 3, 5
VERSION, UNKNOWN_GROUP = 1, 2


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def holdfast(*args):
    return subprocess.run([os.path.join(BUILD, "holdfast"), *args], check=True,
                          capture_output=True, text=True).stdout


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value)


def data(field, value):
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def hello(group="db", low=1, high=1, required=0, node="alpha.example"):
    volume = number(1, 0) + data(2, bytes([5] * 16)) + data(3, "data") + number(4, 4 << 20)
    position = number(1, 1) + number(2, 0) + number(3, 0) + number(4, 0)
    return (number(1, low) + number(2, high) + number(3, required) + number(4, 0)
            + data(5, "test") + data(6, node) + data(7, group)
            + data(8, bytes([7] * 16)) + number(9, 1) + data(10, number(1, 1) + number(2, 1))
            + data(11, volume) + data(12, position) + number(13, 1) + number(14, 1)
            + number(15, random.getrandbits(60)))


def frame(kind, body, crc=None, length=None):
    head = struct.pack("<4sHHIIQQQQ12x", b"HFFR", kind, 0, len(body) if length is None else length,
                       crc32c(body) if crc is None else crc, 1, 0, 0, 0)
    return head + struct.pack("<I", crc32c(head)) + body


def read_exactly(stream, length):
    out = b""
    while len(out) < length:
        piece = stream.recv(length - len(out))
        if not piece:
            return None
        out += piece
    return out


def read_frame(stream):
    """(type, fields of the message), or None when the engine hung up."""
    head = read_exactly(stream, 64)
    if head is None:
        return None
    check(struct.unpack_from("<I", head, 60)[0] == crc32c(head[:60]), "header checksum")
    kind, _, length, crc = struct.unpack_from("<HHII", head, 4)
    body = read_exactly(stream, length) or b""
    check(crc32c(body) == crc, "body checksum")
    fields, at = {}, 0
    while at < len(body):
        key, at = read_varint(body, at)
        if key & 7 == 0:
            fields[key >> 3], at = read_varint(body, at)
        else:
            size, at = read_varint(body, at)
            fields[key >> 3] = body[at:at + size]
            at += size
    return kind, fields


def read_varint(body, at):
    value = shift = 0
    while True:
        value |= (body[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not body[at - 1] & 0x80:
            return value, at


class Site:
    def __init__(self, work):
        self.work = work
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.conf = os.path.join(work, "holdfast.conf")
        holdfast("pki", "init", "--dir", f"{work}/pki")
        for node in ("alpha.example", "beta.example", "gamma.example", "stranger.example"):
            holdfast("pki", "issue", node, "--dir", f"{work}/pki", "--out", work)
        with open(f"{work}/data.img", "wb") as image:
            image.truncate(4 << 20)
        with open(self.conf, "w", encoding="ascii") as conf:
            conf.write(f"""
node = "beta.example"
state_dir = "{work}/state"
run_dir = "{work}/run"
tls {{ ca = "{work}/pki/ca.pem" cert = "{work}/beta.example.pem" key = "{work}/beta.example.key" }}
engine {{ listen = "127.0.0.1:{self.port}" }}
group "db" {{
    journal_size = 16MiB journal_file_size = 4MiB memory = 16MiB
    volume "data" {{ path = "{work}/data.img" }}
    peer "alpha.example" {{ address = "127.0.0.1:1" }}
    peer "gamma.example" {{ address = "127.0.0.1:1" role = standby }}
}}
""")
        holdfast("init", "db", "--role", "standby", "-c", self.conf)
        self.log = open(f"{work}/engine.log", "w", encoding="utf-8")
        self.engine = subprocess.Popen([os.path.join(BUILD, "holdfast-engine"), "-c", self.conf],
                                       stderr=self.log)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                check(time.monotonic() < deadline, "the engine does not listen")
                time.sleep(0.05)

    def plain(self):
        return socket.create_connection(("127.0.0.1", self.port), 15)

    def tls(self, node="alpha.example"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(f"{self.work}/pki/ca.pem")
        context.load_cert_chain(f"{self.work}/{node}.pem", f"{self.work}/{node}.key")
        context.set_alpn_protocols(["holdfast/1"])
        return context.wrap_socket(self.plain())

    def say(self, message, node="alpha.example"):
        """The engine's answer to some bytes; None when it hangs up."""
        with self.tls(node) as stream:
            try:
                stream.sendall(message)
                return read_frame(stream)
            except (ConnectionError, ssl.SSLError):
                return None

    def alive(self):
        check(self.engine.poll() is None, f"the engine died: {self.engine.returncode}")
        status = json.loads(holdfast("status", "-c", self.conf, "-o", "json", "db"))
        check(status["daemons"]["engine"], "the engine does not answer")
        return status["groups"][0]

    def stop(self):
        self.engine.send_signal(signal.SIGTERM)
        check(self.engine.wait(20) == 0, f"the engine left with {self.engine.returncode}")
        self.log.close()


def wrong_streams(site):
    for message in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(4000), b"\x16\x03\x01\xff\xff"):
        with site.plain() as stream:
            stream.sendall(message)
            stream.shutdown(socket.SHUT_WR)
            try:
                while stream.recv(4096):
                    pass
            except ConnectionError:
                pass
    body = hello()
    check(site.say(os.urandom(64)) is None, "random bytes got an answer")
    check(site.say(frame(HELLO, body, crc=1)) is None, "a wrong checksum got an answer")
    check(site.say(frame(SEGMENT, body)) is None, "another frame first got an answer")
    check(site.say(frame(HELLO, b"")) is None, "an empty hello got an answer")
    check(site.say(frame(HELLO, body, length=1 << 30)) is None, "a huge hello got an answer")
    site.alive()


def wrong_groups(site):
    kind, unknown = site.say(frame(HELLO, hello("nothing")))
    check(kind == REFUSE and unknown[1] == UNKNOWN_GROUP, f"unknown group: {unknown}")
    for node in ("gamma.example", "stranger.example"):
        kind, forbidden = site.say(frame(HELLO, hello("db", node=node)), node)
        check(kind == REFUSE, "a peer without the right was let in")
        check(forbidden == unknown, f"the answer tells that the group is there: {forbidden}")
    kind, fields = site.say(frame(HELLO, hello(low=2, high=9)))
    check(kind == REFUSE and fields[1] == VERSION, f"version: {fields}")
    kind, fields = site.say(frame(HELLO, hello(required=1)))
    check(kind == REFUSE and fields[1] == VERSION, f"feature: {fields}")
    kind, fields = site.say(frame(HELLO, b"\xff\xff\xff\xff"))
    check(kind == REFUSE, f"no message: {fields}")
    kind, fields = site.say(frame(HELLO, hello()))
    check(kind == WELCOME, f"the right primary was not welcomed: {fields}")
    site.alive()


def mutated_hellos(site):
    random.seed(20261121)
    for _ in range(150):
        body = bytearray(hello())
        for _ in range(random.randint(1, 4)):
            place = random.randrange(len(body))
            choice = random.random()
            if choice < 0.5:
                body[place] ^= 1 << random.randrange(8)
            elif choice < 0.75:
                del body[place:place + random.randint(1, 8)]
            else:
                body[place:place] = os.urandom(random.randint(1, 8))
        site.say(frame(HELLO, bytes(body)))
    site.alive()


def silent_crowd(site):
    """More connections than there are guests, all silent: others wait, but not for ever."""
    crowd = [site.plain() for _ in range(70)]
    begin = time.monotonic()
    kind, fields = site.say(frame(HELLO, hello()))
    check(kind == WELCOME, f"not welcomed after the crowd: {fields}")
    check(time.monotonic() - begin < 25, "the crowd held the door too long")
    for stream in crowd:
        stream.close()
    site.alive()


def main():
    work = tempfile.mkdtemp(prefix="holdfast-lobby-")
    site = None
    try:
        site = Site(work)
        for step in (wrong_streams, wrong_groups, mutated_hellos, silent_crowd):
            print(f"--- {step.__name__}", flush=True)
            step(site)
        site.stop()
        print("everybody got what was due")
    finally:
        if site and site.engine.poll() is None:
            site.engine.kill()
            site.engine.wait()
        if sys.exc_info()[0] and os.path.exists(f"{work}/engine.log"):
            with open(f"{work}/engine.log", encoding="utf-8") as log:
                sys.stderr.write(log.read()[-4000:])
        shutil.rmtree(work)


main()
