# SPDX-License-Identifier: Apache-2.0
"""What the formats are made of: checksums, LZ4 blocks, names, padding. Used by hfdecode.py."""

import struct

BLOCK = 4096
U64 = (1 << 64) - 1
VOLUME_BYTES_MAX = 1 << 62
DATA_MAX = 1 << 20


class FormatError(Exception):
    """Bytes that are not what the formats allow. `kind` is a short word, `where` an offset."""

    def __init__(self, kind, text):
        super().__init__(f"{kind}: {text}")
        self.kind = kind


# ---- CRC32C ------------------------------------------------------------------------------------


def _crc_tables():
    first = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        first.append(crc)
    tables = [first]
    for _ in range(7):
        before = tables[-1]
        tables.append([first[crc & 0xFF] ^ crc >> 8 for crc in before])
    return tables


_T = _crc_tables()


def crc32c(data, seed=0):
    """Eight bytes per turn; `seed` is 0 or the CRC of what came before."""
    crc = seed ^ 0xFFFFFFFF
    t0, t1, t2, t3, t4, t5, t6, t7 = _T
    whole = len(data) & ~7
    for (word,) in struct.iter_unpack("<Q", memoryview(data)[:whole]):
        word ^= crc
        crc = (
            t7[word & 0xFF]
            ^ t6[word >> 8 & 0xFF]
            ^ t5[word >> 16 & 0xFF]
            ^ t4[word >> 24 & 0xFF]
            ^ t3[word >> 32 & 0xFF]
            ^ t2[word >> 40 & 0xFF]
            ^ t1[word >> 48 & 0xFF]
            ^ t0[word >> 56]
        )
    for byte in memoryview(data)[whole:]:
        crc = t0[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


# ---- XXH3-64, for inputs of 17 to 128 bytes ------------------------------------------------------

_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
)
_PRIME64_1 = 0x9E3779B185EBCA87


def _mix16(data, at, secret_at):
    low, high = struct.unpack_from("<QQ", data, at)
    secret_low, secret_high = struct.unpack_from("<QQ", _SECRET, secret_at)
    product = (low ^ secret_low) * (high ^ secret_high)
    return (product ^ product >> 64) & U64


def xxh3_64(data):
    """Seed 0. Longer and shorter inputs do not occur in the formats."""
    length = len(data)
    if not 17 <= length <= 128:
        raise ValueError(f"xxh3_64 of {length} bytes")
    acc = length * _PRIME64_1
    for i in range((length - 1) // 32, -1, -1):
        acc += _mix16(data, 16 * i, 32 * i)
        acc += _mix16(data, length - 16 * (i + 1), 32 * i + 16)
    acc &= U64
    acc ^= acc >> 37
    acc = acc * 0x165667919E3779F9 & U64
    return acc ^ acc >> 32


# ---- LZ4 blocks ----------------------------------------------------------------------------------


def lz4_lengths_valid(packed, raw):
    return 1 <= packed < raw <= DATA_MAX and raw <= 255 * packed + 64


def _lz4_long(block, at, length):
    while True:
        byte = block[at]
        at += 1
        length += byte
        if byte != 255:
            return at, length


def _lz4_copy(out, distance, length):
    if not 1 <= distance <= len(out):
        raise FormatError("lz4", f"a match {distance} back in {len(out)} bytes")
    start = len(out) - distance
    if length <= distance:
        out += out[start : start + length]
    else:
        piece = bytes(out[start:])
        out += (piece * (length // distance + 1))[:length]


def lz4_unpack(block, raw):
    """The raw bytes, exactly `raw` of them."""
    if not lz4_lengths_valid(len(block), raw):
        raise FormatError("lz4", f"{len(block)} bytes cannot unpack to {raw}")
    out = bytearray()
    at = 0
    try:
        while True:
            token = block[at]
            at += 1
            literals = token >> 4
            if literals == 15:
                at, literals = _lz4_long(block, at, literals)
            if at + literals > len(block) or len(out) + literals > raw:
                raise FormatError("lz4", "literals beyond the end")
            out += block[at : at + literals]
            at += literals
            if at == len(block):
                break
            distance = block[at] | block[at + 1] << 8
            at += 2
            length = token & 15
            if length == 15:
                at, length = _lz4_long(block, at, length)
            length += 4
            if len(out) + length > raw:
                raise FormatError("lz4", "a match beyond the end")
            _lz4_copy(out, distance, length)
    except IndexError:
        raise FormatError("lz4", "the block ends early") from None
    if len(out) != raw:
        raise FormatError("lz4", f"unpacks to {len(out)} bytes, not {raw}")
    return bytes(out)


# ---- small things --------------------------------------------------------------------------------


def require(condition, kind, text):
    if not condition:
        raise FormatError(kind, text)


def zero(data):
    return not any(data)


def round_up(value):
    return (value + BLOCK - 1) // BLOCK * BLOCK


_NAME_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def name_valid(name):
    return 1 <= len(name) <= 63 and name[0] not in b".-" and all(c in _NAME_BYTES for c in name)


def node_valid(name):
    return 1 <= len(name) <= 127 and all(0x21 <= c <= 0x7E and c not in b'"\\' for c in name)


def text(field, what):
    end = field.find(b"\0")
    require(end >= 0 and zero(field[end:]), "field", f"{what} is not padded with zeroes")
    return field[:end]
