#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What no well-behaved client sends: libnbd with its checks off, and sessions by hand."""

import errno
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

try:
    import nbd
except ImportError:
    print("skipped: Debian's python3-libnbd is not installed")
    sys.exit(77)

MIB = 1 << 20
BUILD = os.environ.get("HOLDFAST_BUILD", "build")


class Server:
    def __init__(self, folder, *args):
        self.path = os.path.join(folder, "sock")
        self.process = subprocess.Popen(
            [BUILD + "/nbdserve", "--listen", "unix:" + self.path, *args], stdout=subprocess.PIPE
        )
        assert self.process.stdout.readline() == b"ready\n", "nbdserve did not start"

    def connect(self, name, strict=0, structured=True, allocation=True):
        handle = nbd.NBD()
        handle.set_export_name(name)
        handle.set_strict_mode(strict)
        handle.set_request_structured_replies(structured)
        if allocation:
            handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        handle.connect_unix(self.path)
        return handle

    def raw(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(self.path)
        return connection

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=30)
        assert status == 0, f"nbdserve ended with status {status}"


def fails(wanted, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except nbd.Error as error:
        assert error.errnum == wanted, f"{error.string}: errno {error.errnum}, not {wanted}"
        return
    raise AssertionError(f"{function.__name__}{args} did not fail")


def check_refusals(server):
    size = 8 * MIB
    for structured in (True, False):
        h = server.connect("file", structured=structured)
        fails(errno.EINVAL, h.pread, 512, 1)
        fails(errno.EINVAL, h.pread, 1, 0)
        fails(errno.EINVAL, h.pread, 512, size)
        fails(errno.EINVAL, h.pread, 1024, size - 512)
        fails(errno.EINVAL, h.pread, 512, 2**64 - 512)
        fails(errno.ENOSPC, h.pwrite, bytes(512), size)
        fails(errno.ENOSPC, h.pwrite, bytes(4096), 2**64 - 512)
        fails(errno.EINVAL, h.pwrite, bytes(513), 0)
        fails(errno.EINVAL, h.pwrite, b"", 0)
        fails(errno.EINVAL, h.trim, 512, size)
        fails(errno.ENOSPC, h.zero, 512, size)
        fails(errno.EINVAL, h.cache, 512, size)
        fails(errno.EINVAL, h.trim, 0, 0)
        fails(errno.EINVAL, h.pwrite, bytes(512), 0, 1 << 9)
        # The connection is as good as before.
        h.pwrite(b"a" * 512, 512)
        assert h.pread(512, 512) == b"a" * 512
        if structured:
            fails(errno.EINVAL, h.block_status, 512, size, lambda *a: 0)
            h.pread_structured(512, 512, lambda *a: 0, nbd.CMD_FLAG_DF)
        h.shutdown()
    h = server.connect("frozen")
    fails(errno.EPERM, h.pwrite, bytes(512), 0)
    fails(errno.EPERM, h.trim, 512, 0)
    fails(errno.EPERM, h.zero, 512, 0)
    assert h.pread(512, 0) == bytes(512)
    h.flush()
    h.shutdown()


def check_text(server):
    h = server.connect("ram")
    try:
        h.pread(2 * MIB, 15 * MIB)
    except nbd.Error:
        pass
    h.shutdown()
    # libnbd drops the text of error chunks: read it by hand.
    c = session(server, b"ram")
    c.sendall(request(0, 15 * MIB, 2 * MIB, cookie=3))
    magic, flags, kind, cookie, length = struct.unpack(">IHHQI", exactly(c, 20))
    assert (magic, flags, kind, cookie) == (0x668E33EF, 1, 0x8001, 3)
    error, text_length = struct.unpack(">IH", exactly(c, 6))
    text = exactly(c, text_length)
    assert error == 22 and b"past the end" in text and length == 6 + len(text), text
    c.close()


def check_large(server):
    """64 MiB in one request; more is refused and the stream stays in step."""
    h = server.connect("big")
    data = random.Random(1).randbytes(64 * MIB)
    h.pwrite(data, 0, nbd.CMD_FLAG_FUA)
    assert h.pread(64 * MIB, 0) == data
    h.shutdown()
    c = session(server, b"big")
    c.sendall(request(1, 0, 64 * MIB + 4096, cookie=9))
    for _ in range(64):
        c.sendall(bytes(MIB))
    c.sendall(bytes(4096) + request(3, cookie=10))
    assert error_of(c, 9) == 22
    assert error_of(c, 10) == 0
    c.close()


def check_extents(server):
    h = server.connect("ram")
    h.zero(16 * MIB, 0)
    for block in range(0, 4000, 2):
        h.pwrite(b"x" * 4096, block * 4096)
    got = []

    def extent(context, offset, entries, error):
        assert context == "base:allocation"
        got.append((offset, list(entries)))
        return 0

    h.block_status(16 * MIB, 0, extent)
    entries = got[0][1]
    assert len(entries) == 2 * 512, len(entries)
    assert entries == [4096, 0, 4096, 3] * 256
    got.clear()
    h.block_status(8 * MIB, 4096, extent, nbd.CMD_FLAG_REQ_ONE)
    assert got[0][1] == [4096, 3], got
    got.clear()
    h.block_status(4096, 4000 * 4096, extent)
    assert got[0][1] == [4096, 3], got
    chunks = []

    def chunk(buf, offset, status, error):
        chunks.append((status, offset, len(buf)))
        return 0

    h.pread_structured(4096, 4096, chunk)
    assert chunks == [(nbd.READ_HOLE, 4096, 4096)], chunks
    h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO)
    got.clear()
    h.block_status(12288, 0, extent)
    assert got[0][1] == [12288, 0], got
    h.trim(16 * MIB, 0, nbd.CMD_FLAG_FUA)
    h.shutdown()


def check_pipeline(server):
    """Many requests in flight on several connections, replies in any order, against a model."""
    rng = random.Random(5)
    model = bytearray(16 * MIB)
    handles = [server.connect("slow") for _ in range(4)]
    for _ in range(12):
        offsets = [n * 65536 for n in range(256)]
        rng.shuffle(offsets)
        reads = []
        for n, offset in enumerate(offsets[:200]):
            handle = handles[n % 4]
            length = rng.randrange(1, 129) * 512
            if n % 3 == 0:
                buffer = nbd.Buffer(length)
                reads.append((buffer, offset, length))
                handle.aio_pread(buffer, offset, completion=lambda *a: 1)
            else:
                data = rng.randbytes(length)
                model[offset : offset + length] = data
                handle.aio_pwrite(
                    nbd.Buffer.from_bytearray(bytearray(data)), offset, completion=lambda *a: 1
                )
        for handle in handles:
            while handle.aio_in_flight() > 0:
                handle.poll(1000)
        for buffer, offset, length in reads:
            assert buffer.to_bytearray() == model[offset : offset + length]
        handles[0].flush()
    # 8 MiB of buffers: no request above 4 MiB.
    assert handles[0].get_block_size(nbd.SIZE_MAXIMUM) == 4 * MIB
    fails(errno.EINVAL, handles[0].pread, 8 * MIB, 0)
    for offset in range(0, 16 * MIB, 4 * MIB):
        assert handles[0].pread(4 * MIB, offset) == model[offset : offset + 4 * MIB]
    for handle in handles:
        handle.shutdown()


# ---- sessions by hand ----------------------------------------------------------------------------


def exactly(connection, length):
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            raise EOFError(f"closed after {len(data)} of {length} bytes")
        data += piece
    return data


def option(number, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def go(name):
    return option(7, struct.pack(">I", len(name)) + name + b"\0\0")


def option_reply(connection):
    magic, number, kind, length = struct.unpack(">QIII", exactly(connection, 20))
    assert magic == 0x3E889045565A9
    return number, kind, exactly(connection, length)


def request(command, offset=0, length=0, flags=0, cookie=1, magic=0x25609513):
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length)


def session(server, name, structured=True):
    c = server.raw()
    assert exactly(c, 18) == b"NBDMAGICIHAVEOPT\0\3"
    c.sendall(struct.pack(">I", 3))
    if structured:
        c.sendall(option(8))
        assert option_reply(c)[1] == 1
    c.sendall(go(name))
    while True:
        kind = option_reply(c)[1]
        assert kind in (1, 3), hex(kind)
        if kind == 1:
            return c


def error_of(connection, cookie):
    """The error of the next reply, which is that of `cookie` and carries no data."""
    head = exactly(connection, 16)
    if head[:4] == b"\x67\x44\x66\x98":
        error, got = struct.unpack(">IQ", head[4:])
    else:
        kind, got = struct.unpack(">HQ", head[6:16])
        length = struct.unpack(">I", exactly(connection, 4))[0]
        assert kind == 0x8001
        error = struct.unpack(">I", exactly(connection, length)[:4])[0]
    assert got == cookie
    return error


def closed(connection):
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    connection.close()


def check_nonsense(server):
    rng = random.Random(9)
    flags = struct.pack(">I", 3)
    sessions = [
        b"",
        b"\xff\xff\xff\xff",
        struct.pack(">I", 1 << 5),
        flags + b"GET / HTTP/1.1\r\n\r\n" * 4,
        flags + option(1, b"missing"),
        flags + b"IHAVEOPT" + struct.pack(">II", 7, 0xFFFFFFFF),
        flags + b"IHAVEOPT" + struct.pack(">II", 1, 60000) + b"x" * 60000,
        flags + go(b"ram") + request(0, 0, 512, magic=0x12345678),
        flags + go(b"ram") + request(1, 0, 1 << 31) + b"z" * 100000,
        flags + go(b"ram") + request(1, 0, MIB)[:13],
        struct.pack(">I", 0) + option(3),
    ]
    sessions += [flags + rng.randbytes(rng.randrange(1, 4000)) for _ in range(50)]
    sessions += [flags + go(b"ram") + rng.randbytes(rng.randrange(1, 4000)) for _ in range(50)]
    for data in sessions:
        c = server.raw()
        try:
            c.sendall(data)
            c.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        closed(c)
    # Unknown options are skipped, also long ones; the session goes on.
    c = server.raw()
    exactly(c, 18)
    c.sendall(flags)
    for number, length in ((4, 0), (11, 0), (99, 70000), (5, 0), (8, 3)):
        c.sendall(option(number, bytes(length)))
        assert option_reply(c)[1] >= 1 << 31
    c.sendall(go(b"missing"))
    number, kind, text = option_reply(c)
    assert kind == 0x80000006 and text == b"there is no export of that name"
    c.sendall(option(2))
    assert option_reply(c)[:2] == (2, 1)
    closed(c)


def check_byte_by_byte(server):
    c = server.raw()
    data = struct.pack(">I", 3) + go(b"ram") + request(1, 0, 512) + b"q" * 512 + request(2)
    for byte in data:
        c.send(bytes([byte]))
    closed(c)
    h = server.connect("ram")
    assert h.pread(512, 0) == b"q" * 512
    h.shutdown()


def check_memory_is_bounded(server):
    """Many connections ask for far more than the server's buffers hold: all are served."""
    results = []

    def work(seed):
        h = server.connect("big")
        data = random.Random(seed).randbytes(8 * MIB)
        for _ in range(3):
            h.pwrite(data, seed * 8 * MIB)
            assert h.pread(8 * MIB, seed * 8 * MIB) == data
        h.shutdown()
        results.append(seed)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 16
    with open(f"/proc/{server.process.pid}/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    # Exports 128+16+16+1 MiB, buffers 128 MiB, 64 connections: nothing that grows with requests.
    assert peak < 400 * 1024, f"peak memory {peak} KiB"


def check_limits(server):
    # Who has chosen no export makes room, the oldest first.
    held = [server.raw() for _ in range(64)]
    for c in held:
        exactly(c, 18)
    c = server.raw()
    exactly(c, 18)
    closed(held[0])
    for c in (c, *held):
        c.close()
    # Who is served does not.
    held = [session(server, b"file") for _ in range(64)]
    c = server.raw()
    assert c.recv(1) == b"", "a connection above the limit was served"
    for c in held:
        c.close()
    for _ in range(100):
        c = server.raw()
        if c.recv(1):
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the server did not recover from its limit")
    # This one says nothing: the handshake has a deadline.
    before = time.monotonic()
    closed(c)
    assert 1 < time.monotonic() - before < 8


def check_killed_clients(server):
    for n in range(20):
        c = session(server, b"slow")
        c.sendall(request(1, 0, 65536) + bytes(65536) + request(0, 0, MIB) * 4)
        if n % 2:
            c.sendall(request(1, 0, MIB) + bytes(300000))
        c.close()


def main():
    checks = [
        check_refusals,
        check_text,
        check_large,
        check_extents,
        check_pipeline,
        check_nonsense,
        check_byte_by_byte,
        check_killed_clients,
        check_memory_is_bounded,
        check_limits,
    ]
    with tempfile.TemporaryDirectory(prefix="nbdserve.") as folder:
        with open(os.path.join(folder, "disk"), "wb") as disk:
            disk.truncate(8 * MIB)
        server = Server(
            folder,
            "--handshake",
            "3s",
            "ram:ram=16MiB",
            f"file:file={folder}/disk",
            "ro:ram:frozen=1MiB",
            "ram:big=128MiB",
        )
        slow_folder = os.path.join(folder, "slow")
        os.mkdir(slow_folder)
        slow = Server(slow_folder, "--delay", "2ms", "--buffers", "8MiB", "ram:slow=16MiB")
        try:
            for check in checks:
                begin = time.monotonic()
                target = slow if check in (check_pipeline, check_killed_clients) else server
                check(target)
                print(f"{check.__name__}: {time.monotonic() - begin:.2f} s", flush=True)
            server.stop()
            slow.stop()
        finally:
            server.process.kill()
            slow.process.kill()


main()
