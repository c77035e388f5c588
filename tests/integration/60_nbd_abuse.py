#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""NBD clients that misbehave, against a real agent, while another client works.

They stop inside of a 64 MiB WRITE, ask for more than they ever read, leave in the middle of what
they asked for, connect and say nothing, come and go a thousand times. The agent lives, keeps its
memory and descriptors bounded, and serves the one who behaves within a bounded time.
"""

import os
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, free_port, main, say, wait_for
from sites import MIB, Pair

import nbd

OPTION, REQUEST = 0x49484156454F5054, 0x25609513
READ, WRITE, FLUSH = 0, 1, 3
VOLUME = 160 * MIB


class Raw:
    """A connection by hand: past the handshake, then whatever is wanted."""

    def __init__(self, address, name=b"data", go=True):
        self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.sock.settimeout(20)
        self.sock.connect(address)
        if go:
            self.exactly(18)
            self.sock.sendall(struct.pack(">IQII", 3, OPTION, 1, len(name)) + name)
            self.exactly(10)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            check(part, "the agent closed the connection during the handshake")
            data += part
        return data

    def request(self, command, offset, length, payload=b"", cookie=1):
        self.sock.sendall(struct.pack(">IHHQQI", REQUEST, 0, command, cookie, offset, length) + payload)

    def closed(self):
        self.sock.setblocking(False)
        try:
            while self.sock.recv(1 << 20):
                pass
            return True
        except BlockingIOError:
            return False
        except OSError:
            return True


class Worker(threading.Thread):
    """The client that behaves: writes, reads back, flushes; remembers how long the slowest took."""

    def __init__(self, uri):
        super().__init__(daemon=True)
        self.handle = nbd.NBD()
        self.handle.connect_uri(uri)
        self.halt = False
        self.rounds, self.slowest, self.error = 0, 0.0, None

    def run(self):
        try:
            while not self.halt:
                began = time.monotonic()
                data = struct.pack("<Q", self.rounds) * 512
                self.handle.pwrite(data, 4096 * (self.rounds % 64))
                check(self.handle.pread(4096, 4096 * (self.rounds % 64)) == data, "read back something else")
                self.handle.flush()
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.rounds += 1
                time.sleep(0.002)
        except Exception as error:
            self.error = error

    def good(self, what, limit):
        """It went on since the last call, no round slower than `limit` seconds."""
        check(self.error is None, f"{what}: the client that behaves failed: {self.error}")
        rounds = self.rounds
        wait_for(f"{what}: the client that behaves to go on", lambda: self.rounds > rounds or self.error, limit)
        check(self.error is None, f"{what}: the client that behaves failed: {self.error}")
        check(self.slowest < limit, f"{what}: a round took {self.slowest:.1f} s")
        say(f"  {what}: {self.rounds} rounds, slowest {self.slowest:.2f} s")
        self.slowest = 0.0


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def stop_inside_writes(address, worker):
    say("clients that stop inside of WRITEs of 64 MiB")
    clients = [Raw(address) for _ in range(3)]
    for client in clients:
        client.sock.settimeout(1)  # what the agent has no memory for it does not take
        try:
            client.request(WRITE, 64 * MIB, 64 * MIB, bytes(MIB))
        except TimeoutError:
            pass
    time.sleep(1)
    worker.good("three stopped writers", 5)
    for client in clients:
        client.sock.close()


def never_read(address, worker):
    say("clients that never read what they asked for")
    clients = [Raw(address) for _ in range(4)]
    for number, client in enumerate(clients):
        client.sock.settimeout(1)
        try:
            for cookie in range(1000):
                client.request(READ, 32 * MIB, (1 << 20) >> (number * 4), cookie=cookie)
        except TimeoutError:
            pass
    time.sleep(1)
    worker.good("four that do not read", 5)
    for client in clients:
        client.sock.close()


def leave_in_between(address, worker):
    say("clients that leave in the middle")
    for cut in (1, 4, 27, 28, 29, 4000, 100000):
        for _ in range(10):
            client = Raw(address)
            message = struct.pack(">IHHQQI", REQUEST, 0, WRITE, 1, 40 * MIB, 128 * 1024) + bytes(128 * 1024)
            client.sock.sendall(message[:cut])
            if cut % 2:  # a reset instead of an end
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sock.close()
    for _ in range(50):
        client = Raw(address)
        for cookie in range(64):
            client.request(READ, 8 * MIB, MIB, cookie=cookie)
            client.request(FLUSH, 0, 0, cookie=cookie)
        client.sock.close()
    worker.good("after the leavers", 5)


def come_and_go(address, worker):
    say("a thousand connections, one after the other")
    for number in range(1000):
        Raw(address, go=number % 4 != 0).sock.close()
    worker.good("after a thousand visitors", 5)


def half_open(port, address, worker):
    say("500 connections over TCP that say nothing")
    silent = []
    for _ in range(500):
        sock = socket.socket()
        sock.settimeout(5)
        sock.connect(("127.0.0.1", port))
        silent.append(sock)
    began = time.monotonic()
    guest = Raw(("127.0.0.1", port), name=b"db/data")
    guest.request(READ, 0, 4096)
    guest.exactly(16 + 4096)
    took = time.monotonic() - began
    say(f"  a client among them was served after {took:.2f} s")
    check(took < 5, "a client that behaves has to wait behind silent ones")
    worker.good("500 silent connections", 5)
    for sock in silent:
        sock.close()
    guest.sock.close()


def test(lab):
    pair = Pair(lab, {"db": {"data": VOLUME}})
    port = free_port()
    pair.alpha.top["agent"] = {"nbd_listen": f"127.0.0.1:{port}", "nbd_tls": "off"}
    pair.alpha.write_conf()
    pair.start()
    address = pair.alpha.nbd_socket("db")
    worker = Worker(pair.alpha.uri("db", "data"))
    worker.start()
    Raw(address).sock.close()
    worker.good("alone", 5)
    pid = pair.alpha.pid("agent")
    before = descriptors(pid)
    come_and_go(address, worker)
    half_open(port, address, worker)
    leave_in_between(address, worker)
    stop_inside_writes(address, worker)
    never_read(address, worker)
    memory = pair.alpha.memory("agent")
    say(f"agent: {memory['VmRSS'] >> 20} MiB, at most {memory['VmHWM'] >> 20} MiB")
    # Its fixed parts, 128 MiB of request buffers at most, and 16 MiB for the group.
    if "asan" not in os.environ.get("HOLDFAST_BUILD", "") and "tsan" not in os.environ.get("HOLDFAST_BUILD", ""):
        check(memory["VmHWM"] < 256 * MIB, "the agent's memory is not bounded")
    wait_for("descriptors to be closed", lambda: descriptors(pid) <= before, 10)
    worker.halt = True
    worker.join(10)
    check(worker.error is None, f"the client that behaves failed: {worker.error}")
    check(worker.rounds > 200, f"only {worker.rounds} rounds")
    check(pair.alpha.processes["agent"].poll() is None, "the agent died")
    pair.stop_and_compare()


main(test, "60")
