#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second implementation of Holdfast's formats, written from docs/formats.md.

It shares no code with the programs, so the tests can hold one against the other. Standard library
only. As a program it prints JSON, one document per line, and exits 0 when everything it saw was
right, 1 when something was not, 2 on wrong usage:

    hfdecode.py superblock FILE           both slots, and the one that rules
    hfdecode.py segments FILE             segments that lie one behind the other from offset 0
    hfdecode.py journal GROUPDIR          the live journal from the applied place
    hfdecode.py replay GROUPDIR [--from applied|oldest] [--to SEQ] --volume ID=FILE ...
    hfdecode.py frames FILE               a capture of one direction of a stream
"""

import argparse
import json
import mmap
import os
import struct
import sys
import uuid

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


def _require(condition, kind, text):
    if not condition:
        raise FormatError(kind, text)


def _zero(data):
    return not any(data)


def _round_up(value):
    return (value + BLOCK - 1) // BLOCK * BLOCK


_NAME_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def name_valid(name):
    return 1 <= len(name) <= 63 and name[0] not in b".-" and all(c in _NAME_BYTES for c in name)


def node_valid(name):
    return 1 <= len(name) <= 127 and all(0x21 <= c <= 0x7E and c not in b'"\\' for c in name)


def _text(field, what):
    end = field.find(b"\0")
    _require(end >= 0 and _zero(field[end:]), "field", f"{what} is not padded with zeroes")
    return field[:end]


# ---- segments ------------------------------------------------------------------------------------

_HEADER = struct.Struct("<4sIII16sQQQQQQQQIIIII8sI")
_RECORD = struct.Struct("<BBHIQIII4s")
HEADER_BYTES = 128
RECORD_BYTES = 32
RECORDS_MAX = 508
TOTAL_MAX = 16384 + DATA_MAX
LZ4, EPOCH_FIRST = 1, 2
WRITE, DISCARD, WRITE_ZEROES, MARK = 1, 2, 3, 4
NO_HOLE, FUA = 1, 2
TYPE_NAMES = {WRITE: "write", DISCARD: "discard", WRITE_ZEROES: "write-zeroes", MARK: "mark"}
assert _HEADER.size == HEADER_BYTES and _RECORD.size == RECORD_BYTES


class Record:
    __slots__ = ("seq", "type", "flags", "volume", "length", "offset", "data_off", "data_crc",
                 "delta_us", "data")

    def document(self):
        doc = {"seq": self.seq, "type": TYPE_NAMES[self.type], "flags": self.flags}
        if self.type == MARK:
            doc["name"] = self.data.decode("utf-8", "replace")
        else:
            doc.update(volume=self.volume, offset=self.offset)
        doc.update(length=self.length, data_crc=self.data_crc, delta_us=self.delta_us)
        return doc


class Segment:
    """One decoded and wholly checked segment."""

    def __init__(self, data, at=0):
        head = bytes(data[at : at + HEADER_BYTES])
        _require(len(head) == HEADER_BYTES, "short", "fewer than 128 bytes")
        (magic, version, self.flags, self.record_count, group, self.epoch, self.first_seq,
         self.first_time_ns, self.last_time_ns, self.durable_seq, self.bytes_end, self.chain,
         self.writer, self.data_off, self.data_stored, self.data_raw, self.total,
         self.payload_crc, reserved, header_crc) = _HEADER.unpack(head)
        _require(magic == b"HFSG", "magic", "not a segment")
        _require(crc32c(head[:124]) == header_crc, "header-crc", "checksum of the header")
        _require(version == 1, "version", f"version {version}")
        self.group = uuid.UUID(bytes=group)
        self.last_seq = self.first_seq + self.record_count - 1
        _require(_zero(reserved), "field", "reserved bytes of the header")
        self._check_header()
        self.chain_behind = xxh3_64(head)
        stored = bytes(data[at : at + self.total])
        _require(len(stored) == self.total, "short", f"fewer than {self.total} bytes")
        self._check_payload(stored)

    def _check_header(self):
        table_end = HEADER_BYTES + RECORD_BYTES * self.record_count
        _require(self.flags & ~3 == 0, "field", f"flags {self.flags:#x}")
        _require(1 <= self.record_count <= RECORDS_MAX, "field", f"{self.record_count} records")
        _require(self.epoch >= 1, "field", "epoch 0")
        _require(1 <= self.first_seq <= U64 - self.record_count, "field", "first_seq")
        _require(self.durable_seq < self.first_seq, "field", "durable_seq")
        _require(self.data_raw <= DATA_MAX, "field", f"data_raw {self.data_raw}")
        if self.flags & LZ4:
            _require(lz4_lengths_valid(self.data_stored, self.data_raw), "field", "data lengths")
            _require(self.data_off == table_end, "field", f"data_off {self.data_off}")
        else:
            _require(self.data_stored == self.data_raw, "field", "data lengths")
            _require(self.data_off == _round_up(table_end), "field", f"data_off {self.data_off}")
        _require(self.total == _round_up(self.data_off + self.data_stored), "field",
                 f"total {self.total}")

    def _check_payload(self, stored):
        table_end = HEADER_BYTES + RECORD_BYTES * self.record_count
        data_end = self.data_off + self.data_stored
        packed = stored[self.data_off : data_end]
        crc = crc32c(stored[HEADER_BYTES:table_end], self.chain & 0xFFFFFFFF)
        _require(crc32c(packed, crc) == self.payload_crc, "payload-crc", "checksum of the payload")
        _require(_zero(stored[table_end : self.data_off]) and _zero(stored[data_end:]), "field",
                 "padding")
        data = lz4_unpack(packed, self.data_raw) if self.flags & LZ4 else packed
        self.records = []
        end = lengths = 0
        for i in range(self.record_count):
            record = self._record(stored, i, data)
            lengths += record.length
            if record.data is not None:
                _require(record.data_off == end, "record", f"data of record {i} is not next")
                end += record.length
            self.records.append(record)
        _require(end == self.data_raw, "record", "data that belongs to no record")
        _require(self.bytes_end >= lengths, "record", "bytes_end is too small")

    def _record(self, stored, index, data):
        r = Record()
        (r.type, r.flags, r.volume, r.length, r.offset, r.data_off, r.data_crc, r.delta_us,
         reserved) = _RECORD.unpack_from(stored, HEADER_BYTES + RECORD_BYTES * index)
        r.seq = self.first_seq + index
        what = f"record {index}"
        _require(r.type in TYPE_NAMES and _zero(reserved), "record", what)
        allowed = {WRITE: FUA, DISCARD: FUA, WRITE_ZEROES: FUA | NO_HOLE, MARK: 0}[r.type]
        _require(r.flags & ~allowed == 0, "record", f"flags of {what}")
        _require(r.length >= 1, "record", f"length of {what}")
        _require(r.offset + r.length <= VOLUME_BYTES_MAX, "record", f"range of {what}")
        if r.type == MARK:
            _require(r.volume == 0 and r.offset == 0 and r.length <= 255, "record", what)
        if r.type in (WRITE, MARK):
            _require(r.data_off + r.length <= self.data_raw, "record", f"data of {what}")
            r.data = data[r.data_off : r.data_off + r.length]
            _require(crc32c(r.data) == r.data_crc, "data-crc", f"checksum of {what}'s data")
        else:
            _require(r.data_off == 0 and r.data_crc == 0, "record", f"{what} has no data")
            r.data = None
        return r

    def document(self):
        return {
            "group": str(self.group), "epoch": self.epoch, "first_seq": self.first_seq,
            "last_seq": self.last_seq, "flags": self.flags, "lz4": bool(self.flags & LZ4),
            "epoch_first": bool(self.flags & EPOCH_FIRST), "records": self.record_count,
            "first_time_ns": self.first_time_ns, "last_time_ns": self.last_time_ns,
            "durable_seq": self.durable_seq, "bytes_end": self.bytes_end, "chain": self.chain,
            "chain_behind": self.chain_behind, "writer": self.writer, "data_off": self.data_off,
            "data_stored": self.data_stored, "data_raw": self.data_raw, "total": self.total,
            "payload_crc": self.payload_crc,
        }


def chain_root(group):
    return xxh3_64(b"holdfast.root.v1" + group.bytes)


# ---- superblock ----------------------------------------------------------------------------------

SLOT_BYTES = 32768
_SB = struct.Struct("<4sIQQQQ16sB3sI64sQQ128sQIIQQQQQQQQQQIII644s")
_PEER = struct.Struct("<128sQQI108s")
_VOLUME = struct.Struct("<H6sQ16s64s")
_SB_FIELDS = ("applied_seq", "applied_bytes", "applied_chain", "applied_off", "durable_seq",
              "sync_end_seq", "heard_head_seq", "heard_head_bytes", "heard_time_ns",
              "promoted_time_ns", "volume_count", "history_count", "peer_count")
assert _SB.size == 1024 and _PEER.size == 256 and _VOLUME.size == 96


def _entries(slot, at, size, count, limit, what):
    _require(count <= limit, "field", f"{count} {what}")
    _require(_zero(slot[at + size * count : at + size * limit]), "field", f"{what} behind the end")
    return [slot[at + size * i : at + size * (i + 1)] for i in range(count)]


def _distinct(values, what):
    _require(len(set(values)) == len(values), "field", f"{what} twice")


def _superblock_lists(slot, sb):
    sb["history"] = []
    for entry in _entries(slot, 1024, 16, sb["history_count"], 128, "history entries"):
        epoch, first_seq = struct.unpack("<QQ", entry)
        before = sb["history"][-1] if sb["history"] else {"epoch": 0, "first_seq": 1}
        _require(epoch > before["epoch"] and first_seq >= before["first_seq"], "field", "history")
        sb["history"].append({"epoch": epoch, "first_seq": first_seq})
    _require(not sb["history"] or sb["history"][-1]["epoch"] <= sb["epoch"], "field", "epoch")
    sb["peers"] = []
    for entry in _entries(slot, 4096, 256, sb["peer_count"], 8, "peers"):
        node, durable_seq, released_seq, flags, reserved = _PEER.unpack(entry)
        node = _text(node, "peer")
        _require(node_valid(node) and flags & ~1 == 0 and _zero(reserved), "field", "peer")
        sb["peers"].append({"node": node.decode(), "durable_seq": durable_seq,
                            "released_seq": released_seq, "needs_sync": bool(flags & 1)})
    _distinct([peer["node"] for peer in sb["peers"]], "peer")
    sb["volumes"] = []
    for entry in _entries(slot, 8192, 96, sb["volume_count"], 128, "volumes"):
        number, reserved, size, ident, name = _VOLUME.unpack(entry)
        name = _text(name, "volume")
        _require(name_valid(name) and _zero(reserved) and size <= VOLUME_BYTES_MAX
                 and not _zero(ident), "field", "volume")
        sb["volumes"].append({"id": number, "name": name.decode(), "size": size,
                              "uuid": str(uuid.UUID(bytes=ident))})
    for key in ("id", "name", "uuid"):
        _distinct([volume[key] for volume in sb["volumes"]], f"volume {key}")


def superblock_decode(slot):
    """One slot as a dictionary."""
    _require(len(slot) == SLOT_BYTES, "short", "fewer than 32768 bytes")
    (magic, version, compat, ro_compat, incompat, generation, group, role, reserved0, flags, name,
     epoch, fenced_by_epoch, fenced_by, slot_bytes, slots, applied_slot,
     *numbers, reserved1) = _SB.unpack_from(slot)
    _require(magic == b"HFSB", "none", "not a superblock")
    _require(crc32c(slot[:-4]) == struct.unpack("<I", slot[-4:])[0], "none", "checksum")
    _require(version == 1 and ro_compat == 0 and incompat == 0, "version", "a newer program's")
    sb = {"generation": generation, "features_compat": compat,
          "group": str(uuid.UUID(bytes=group)), "role": role, "flags": flags,
          "name": _text(name, "name").decode("latin-1"), "epoch": epoch,
          "fenced_by_epoch": fenced_by_epoch,
          "fenced_by": _text(fenced_by, "fenced_by").decode("latin-1"), "slot_bytes": slot_bytes,
          "slots": slots, "applied_slot": applied_slot}
    sb.update(zip(_SB_FIELDS, numbers))
    _require(1 <= role <= 3 and flags & ~15 == 0, "field", "role or flags")
    _require(name_valid(sb["name"].encode("latin-1")), "field", "name")
    _require(not sb["fenced_by"] or node_valid(sb["fenced_by"].encode("latin-1")), "field",
             "fenced_by")
    for part in (reserved0, reserved1, slot[3072:4096], slot[6144:8192], slot[20480:32764]):
        _require(_zero(part), "field", "reserved bytes")
    if slots == 0:
        _require(applied_slot == 0 and sb["applied_off"] == 0, "field", "applied place")
    else:
        _require(BLOCK <= slot_bytes <= VOLUME_BYTES_MAX and slot_bytes % BLOCK == 0, "field",
                 "slot_bytes")
        _require(applied_slot < slots and sb["applied_off"] <= slot_bytes
                 and sb["applied_off"] % BLOCK == 0, "field", "applied place")
    _superblock_lists(slot, sb)
    return sb


def superblock_choose(data):
    """(superblock, index of its slot) that rules in a whole file."""
    _require(len(data) == 2 * SLOT_BYTES, "short", "a superblock file has 65536 bytes")
    slots = [data[:SLOT_BYTES], data[SLOT_BYTES:]]
    found = [None, None]
    worst = None
    for i in range(2):
        try:
            found[i] = superblock_decode(slots[i])
        except FormatError as error:
            if error.kind == "version" or (error.kind == "field" and worst is None):
                worst = error
    if worst is not None:
        raise worst
    if found[0] and found[1]:
        same = found[0]["generation"] == found[1]["generation"]
        _require(not same or slots[0] == slots[1], "field", "two superblocks of one generation")
        chosen = int(found[1]["generation"] > found[0]["generation"])
    else:
        _require(found[0] or found[1], "none", "neither slot holds a superblock")
        chosen = int(found[0] is None)
    return found[chosen], chosen


# ---- journal -------------------------------------------------------------------------------------


class Journal:
    """The slots of a group directory, read-only."""

    def __init__(self, group_dir):
        self.dir = group_dir
        with open(os.path.join(group_dir, "superblock"), "rb") as file:
            self.sb, self.sb_slot = superblock_choose(file.read())
        self.group = uuid.UUID(self.sb["group"])
        self.maps = {}
        self.segments = {}

    def _load(self, slot):
        if slot not in self.maps:
            with open(os.path.join(self.dir, "journal", f"{slot:08d}"), "rb") as file:
                self.maps[slot] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            _require(len(self.maps[slot]) == self.sb["slot_bytes"], "journal",
                     f"slot {slot} has {len(self.maps[slot])} bytes")
        return self.maps[slot]

    def at(self, slot, off):
        """The segment of this group at a place, or None."""
        if (slot, off) not in self.segments:
            self.segments[slot, off] = self._decode(slot, off)
        return self.segments[slot, off]

    def _decode(self, slot, off):
        data = self._load(slot)
        if data[off : off + 4] != b"HFSG" or off + HEADER_BYTES > len(data):
            return None
        try:
            segment = Segment(data, off)
        except FormatError:
            return None
        return segment if segment.group == self.group else None

    def applied(self):
        sb = self.sb
        return sb["applied_slot"], sb["applied_off"], sb["applied_seq"] + 1, sb["applied_chain"]

    def oldest(self):
        """The oldest place from which the journal reads on to the applied place."""
        place = self.applied()
        for back in range(self.sb["slots"]):
            number = (self.sb["applied_slot"] - back) % self.sb["slots"]
            first = self.at(number, 0)
            if first is not None:
                candidate = (number, 0, first.first_seq, first.chain)
                joins = {(s.first_seq, s.chain) for _, _, s in self.read(candidate)}
                if place[2:] in joins or place[2:] == self.end[2:]:
                    place = candidate
                    continue
            if back > 0:
                break
        return place

    def _epoch_rules(self, segment):
        """Whether the history allows the segment's epoch at its seq."""
        allowed = 0
        for entry in self.sb["history"]:
            if entry["first_seq"] <= segment.first_seq:
                allowed = entry["epoch"]
        return segment.epoch >= allowed

    def _run(self, place, epoch):
        """[(slot, offset, segment)] that follow each other from a place on."""
        slot, off, seq, chain = place
        run = []
        while True:
            segment = self.at(slot, off)
            if (segment is None or (segment.first_seq, segment.chain) != (seq, chain)
                    or segment.epoch < epoch or not self._epoch_rules(segment)):
                return run
            run.append((slot, off, segment))
            off += segment.total
            seq, chain, epoch = segment.last_seq + 1, segment.chain_behind, segment.epoch

    def read(self, place):
        """[(slot, offset, segment)] from a place to the end of the journal; sets self.end."""
        firsts = {slot: self.at(slot, 0) for slot in range(self.sb["slots"])}
        ways = {}  # slot not read yet: the segments that lead there

        def reach(way, seq, chain):
            for slot, first in list(firsts.items()):
                if first is not None and (first.first_seq, first.chain) == (seq, chain):
                    ways[slot] = way
                    del firsts[slot]

        def follow(way, start):
            epoch = way[-1][2].epoch if way else 0
            end = start
            reach(way, *end[2:])
            for slot, off, segment in self._run(start, epoch):
                way = way + [(slot, off, segment)]
                end = (slot, off + segment.total, segment.last_seq + 1, segment.chain_behind)
                reach(way, *end[2:])
            return way, end

        # At the start of a slot the place itself is one of the slots that are reached.
        if place[1] > 0:
            best, self.end = follow([], place)
        else:
            best, self.end = [], place
            reach([], *place[2:])
        while ways:
            slot = min(ways)
            way = ways.pop(slot)
            seq, chain = (way[-1][2].last_seq + 1, way[-1][2].chain_behind) if way else place[2:]
            way, end = follow(way, (slot, 0, seq, chain))
            if end[2] > self.end[2] or (end[2] == self.end[2] and end[1] > 0):
                best, self.end = way, end
        return best

    def check_end(self, found):
        """Raises when something shows that more had been durable than read() found."""
        slot, off, seq, _ = self.end
        what = f"the journal ends before seq {seq} at slot {slot} offset {off}, but "
        _require(self.sb["durable_seq"] < seq, "damage",
                 f"{what}the superblock knows seq {self.sb['durable_seq']} as durable")
        last_epoch = found[-1][2].epoch if found else 0
        count = self.sb["slots"]
        path = {s for s, _, _ in found}
        places = [(other, 0) for other in range(count)]
        behind = [(slot, at) for at in range(off, self.sb["slot_bytes"], BLOCK)]
        for step in range(1, min(2, count - 1) + 1):
            other = (slot + step) % count
            if other not in path:
                behind += [(other, at) for at in range(0, self.sb["slot_bytes"], BLOCK)]
        linked, chain = 0, None
        for other, at in places + behind:
            later = self.at(other, at)
            if (later is None or later.first_seq <= seq or later.epoch < last_epoch
                    or not self._epoch_rules(later)):
                continue
            where = f"{what}the segment in slot {other} at offset {at} was written "
            if self.sb["role"] != 2 and later.epoch == self.sb["epoch"]:
                _require(later.durable_seq < seq, "damage", where + "when more was durable")
            elif (other, at) not in places:
                linked = linked + 1 if later.chain == chain else 1
                chain = later.chain_behind
                _require(linked < 16, "damage", where + "far behind")


def apply_record(record, files):
    """One record onto volume images; volumes that nobody asked for are passed over."""
    file = files.get(record.volume)
    if record.type == MARK or file is None:
        return
    if record.type == WRITE:
        os.pwrite(file, record.data, record.offset)
        return
    size = os.fstat(file).st_size
    end = min(record.offset + record.length, size)
    for at in range(record.offset, end, DATA_MAX):
        os.pwrite(file, bytes(min(DATA_MAX, end - at)), at)


# ---- frames --------------------------------------------------------------------------------------

_FRAME = struct.Struct("<4sHHIIQQQQ12sI")
FRAME_BYTES = 64
FRAME_NAMES = ("", "hello", "welcome", "refuse", "start", "segment", "ack", "heartbeat",
               "sync-data", "sync-zero", "sync-end", "sync-ack", "bye")
_MESSAGES = (1, 2, 3, 4, 7, 12)
assert _FRAME.size == FRAME_BYTES


def frame_decode(data, at):
    """(document, body) of the frame at an offset; the body is checked, too."""
    head = bytes(data[at : at + FRAME_BYTES])
    _require(len(head) == FRAME_BYTES, "short", "fewer than 64 bytes")
    (magic, kind, flags, length, body_crc, epoch, seq, arg1, arg2, reserved,
     header_crc) = _FRAME.unpack(head)
    _require(magic == b"HFFR", "magic", "not a frame")
    _require(crc32c(head[:60]) == header_crc, "crc", "checksum of the header")
    _require(1 <= kind <= 12 and _zero(reserved), "type", f"type {kind} or reserved bytes")
    _require(flags & ~(1 if kind == 8 else 0) == 0, "type", f"flags {flags:#x}")
    body = bytes(data[at + FRAME_BYTES : at + FRAME_BYTES + length])
    if kind in _MESSAGES:
        _require(length <= 65536, "length", f"{length} bytes")
        _require(seq == arg1 == arg2 == 0, "field", "arguments of a message")
    elif kind == 5:
        _require(BLOCK <= length <= TOTAL_MAX and length % BLOCK == 0, "length", f"{length} bytes")
        _require(1 <= seq <= arg1 < seq + RECORDS_MAX and arg2 == 0 and body_crc == 0, "field",
                 "arguments of a segment")
    elif kind == 8:
        _frame_content(flags, length, arg1, arg2)
    else:
        _frame_bodyless(kind, length, body_crc, seq, arg1, arg2)
    _require(len(body) == length, "short", f"fewer than {length} bytes of body")
    if kind != 5:
        _require((crc32c(body) if length else 0) == body_crc, "crc", "checksum of the body")
    return {"frame": FRAME_NAMES[kind], "flags": flags, "body": length, "epoch": epoch, "seq": seq,
            "arg1": arg1, "arg2": arg2}, body


def _frame_content(flags, length, arg1, arg2):
    raw = arg2 & 0xFFFFFFFF
    _require(1 <= length and raw <= DATA_MAX, "length", "content")
    _require(lz4_lengths_valid(length, raw) if flags else length == raw, "length", "content")
    _require(arg2 >> 32 <= 65535 and arg1 + raw <= VOLUME_BYTES_MAX, "field", "range")


def _frame_bodyless(kind, length, body_crc, seq, arg1, arg2):
    _require(length == 0, "length", "a body where there is none")
    _require(body_crc == 0, "field", "checksum of no body")
    if kind == 6:
        _require(arg1 <= seq <= arg2, "field", "acknowledgement")
    elif kind == 9:
        sectors = arg2 & 0xFFFFFFFF
        _require(sectors >= 1 and arg2 >> 32 <= 65535
                 and arg1 + 512 * sectors <= VOLUME_BYTES_MAX, "field", "range")
    else:
        _require(arg1 == 0 and arg2 == 0, "field", "arguments")


def frame_content(document, body):
    """What a frame carries beyond its header, checked: a segment, or the unpacked content."""
    if document["frame"] == "segment":
        segment = Segment(body)
        _require(segment.total == len(body) and segment.first_seq == document["seq"]
                 and segment.last_seq == document["arg1"], "field", "frame and segment differ")
        return segment
    if document["frame"] == "sync-data":
        raw = document["arg2"] & 0xFFFFFFFF
        return lz4_unpack(body, raw) if document["flags"] else body
    return None


# ---- the program ---------------------------------------------------------------------------------


def emit(document):
    print(json.dumps(document, separators=(",", ":")))


def emit_segment(segment, records, **place):
    document = {**place, **segment.document()}
    if records:
        document["table"] = [record.document() for record in segment.records]
    emit(document)


def command_superblock(args):
    with open(args.file, "rb") as file:
        data = file.read()
    sb, slot = superblock_choose(data)
    emit({"slot": slot, **sb})


def command_segments(args):
    with open(args.file, "rb") as file:
        data = file.read()
    at = 0
    while at < len(data):
        segment = Segment(data, at)
        emit_segment(segment, args.records, offset=at)
        at += segment.total


def live_segments(journal, start):
    found = journal.read(journal.applied() if start == "applied" else journal.oldest())
    journal.check_end(found)
    return found


def command_journal(args):
    journal = Journal(args.group_dir)
    for slot, off, segment in live_segments(journal, args.start):
        emit_segment(segment, args.records, slot=slot, offset=off)
    slot, off, seq, chain = journal.end
    emit({"end": {"slot": slot, "offset": off, "seq": seq, "chain": chain}})


def command_replay(args):
    files = {}
    for spec in args.volume:
        number, equals, path = spec.partition("=")
        if not equals or not number.isdigit():
            print(f"hfdecode: --volume {spec}: ID=FILE is wanted", file=sys.stderr)
            sys.exit(2)
        files[int(number)] = os.open(path, os.O_RDWR)
    journal = Journal(args.group_dir)
    last = applied = 0
    for _, _, segment in live_segments(journal, args.start):
        for record in segment.records:
            last = record.seq
            if args.to is None or record.seq <= args.to:
                apply_record(record, files)
                applied += 1
    for file in files.values():
        os.close(file)
    emit({"applied": applied, "last_seq": last})


def command_frames(args):
    with open(args.file, "rb") as file:
        data = file.read()
    at = 0
    while at < len(data):
        document, body = frame_decode(data, at)
        content = frame_content(document, body)
        if isinstance(content, Segment):
            document["segment"] = content.document()
        elif content is not None:
            document["content_crc"] = crc32c(content)
        emit({"offset": at, **document})
        at += FRAME_BYTES + len(body)


def main():
    parser = argparse.ArgumentParser(description="decode and check Holdfast's formats")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in (("superblock", command_superblock), ("segments", command_segments),
                      ("frames", command_frames)):
        command = commands.add_parser(name)
        command.add_argument("file")
        command.set_defaults(run=run)
        if name == "segments":
            command.add_argument("--records", action="store_true", help="print each record, too")
    for name, run in (("journal", command_journal), ("replay", command_replay)):
        command = commands.add_parser(name)
        command.add_argument("group_dir")
        command.add_argument("--from", dest="start", choices=("applied", "oldest"),
                             default="applied")
        command.set_defaults(run=run)
        if name == "journal":
            command.add_argument("--records", action="store_true", help="print each record, too")
        else:
            command.add_argument("--volume", action="append", default=[], metavar="ID=FILE")
            command.add_argument("--to", type=int, metavar="SEQ")
    args = parser.parse_args()
    try:
        args.run(args)
    except (FormatError, OSError) as error:
        print(f"hfdecode: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
