# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that makes a link slow, late or dead: bytes per second, delay, pause, cut."""

import collections
import select
import socket
import threading
import time

from lab import free_port

_CHUNK = 16384


class _Half:
    """One direction of one connection."""

    def __init__(self, source, target):
        self.source, self.target = source, target
        self.queue = collections.deque()  # (time when it may leave, bytes)
        self.queued = 0
        self.ended = False


class Proxy(threading.Thread):
    def __init__(self, lab, target_port):
        super().__init__(daemon=True)
        self.target_port = target_port
        self.port = free_port()
        self.bytes_per_second = None  # to the target; None: no limit
        self.delay = 0.0  # seconds, each way
        self.paused = False  # nothing moves, nothing is closed
        self.refusing = False
        self.forwarded = 0
        self.connections = 0
        self._cut = False
        self._halt = False
        self._pairs = []
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=16)
        lab.later(self.stop)
        self.start()

    def address(self):
        return f"127.0.0.1:{self.port}"

    def cut(self):
        """Resets every connection; new ones are accepted unless `refusing`."""
        self._cut = True
        while self._cut and self.is_alive():
            time.sleep(0.005)

    def stop(self):
        self._halt = True
        self.join(5)

    def run(self):
        budget, last = 0.0, time.monotonic()
        while not self._halt:
            if self._cut:
                self._drop_all()
                self._cut = False
            now = time.monotonic()
            if self.bytes_per_second is None:
                budget = float("inf")
            else:
                budget = min(max(0.0, budget if budget != float("inf") else 0.0)
                             + (now - last) * self.bytes_per_second, self.bytes_per_second / 10 + _CHUNK)
            last = now
            budget = self._turn(now, budget)
        self._drop_all()
        self._listener.close()

    def _turn(self, now, budget):
        halves = [half for pair in self._pairs for half in pair]
        wanted = [] if self.paused else [h.source for h in halves if not h.ended and h.queued < 1 << 20]
        readable, _, _ = select.select([self._listener, *wanted], [], [], 0.002)
        if self._listener in readable:
            self._accept()
        for pair in list(self._pairs):
            try:
                for i, half in enumerate(pair):
                    if half.source in readable:
                        self._receive(half, now)
                    if not self.paused:
                        budget = self._send(half, now, budget, limited=i == 0)
                if all(half.ended and not half.queue for half in pair):
                    self._drop(pair)
            except OSError:
                self._drop(pair)
        return budget

    def _accept(self):
        client, _ = self._listener.accept()
        if self.refusing:
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.target_port), timeout=1)
        except OSError:
            client.close()
            return
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        self.connections += 1
        self._pairs.append((_Half(client, server), _Half(server, client)))

    def _receive(self, half, now):
        try:
            data = half.source.recv(_CHUNK)
        except BlockingIOError:
            return
        if not data:
            half.ended = True
            return
        half.queue.append((now + self.delay, data))
        half.queued += len(data)

    def _send(self, half, now, budget, limited):
        while half.queue and half.queue[0][0] <= now and (not limited or budget > 0):
            due, data = half.queue.popleft()
            part = data if not limited or budget >= len(data) else data[: int(budget) or 1]
            try:
                sent = half.target.send(part)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                half.queue.appendleft((due, data[sent:]))
            half.queued -= sent
            self.forwarded += sent if limited else 0
            budget -= sent if limited else 0
            if sent < len(part):
                break
        if half.ended and not half.queue:
            try:
                half.target.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        return budget

    def _drop(self, pair):
        self._pairs.remove(pair)
        for half in pair:
            half.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            half.source.close()

    def _drop_all(self):
        for pair in list(self._pairs):
            self._drop(pair)
