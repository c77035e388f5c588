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
    hfdecode.py verdicts KIND FILE        superblock slots or frame headers, one behind the other:
                                          each with a verdict, exit 0 in any case
"""

import argparse
import json
import mmap
import os
import struct
import sys
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from hfbytes import (  # noqa: E402  (the isolated mode in which it runs has no path to it)
    BLOCK, DATA_MAX, U64, VOLUME_BYTES_MAX, FormatError, crc32c, lz4_lengths_valid, lz4_unpack,
    name_valid, node_valid, require, round_up, text, xxh3_64, zero)

# ---- segments ------------------------------------------------------------------------------------

_HEADER = struct.Struct("<4sIII16sQQQQQQQQIIIII8sI")
_RECORD = struct.Struct("<BBHIQIII4s")
HEADER_BYTES = 128
RECORD_BYTES = 32
RECORDS_MAX = 508
TOTAL_MAX = 16384 + DATA_MAX
LZ4, EPOCH_FIRST = 1, 2
WRITE, DISCARD, WRITE_ZEROES, MARK, VOLUME = 1, 2, 3, 4, 5
NO_HOLE, FUA, GONE = 1, 2, 4
TYPE_NAMES = {WRITE: "write", DISCARD: "discard", WRITE_ZEROES: "write-zeroes", MARK: "mark",
              VOLUME: "volume"}
TYPE_FLAGS = {WRITE: FUA, DISCARD: FUA, WRITE_ZEROES: FUA | NO_HOLE, MARK: 0, VOLUME: GONE}
_VOLUME = struct.Struct("<H6sQ16s64s")
assert _HEADER.size == HEADER_BYTES and _RECORD.size == RECORD_BYTES and _VOLUME.size == 96


def volume_entry(entry, kind):
    """One volume, as the superblock and VOLUME records have it."""
    number, reserved, size, ident, name = _VOLUME.unpack(entry)
    name = text(name, "volume")
    require(name_valid(name) and zero(reserved) and size <= VOLUME_BYTES_MAX
             and not zero(ident), kind, "volume")
    return {"id": number, "name": name.decode(), "size": size, "uuid": str(uuid.UUID(bytes=ident))}


class Record:
    __slots__ = ("seq", "type", "flags", "volume", "length", "offset", "data_off", "data_crc",
                 "delta_us", "data")

    def document(self):
        doc = {"seq": self.seq, "type": TYPE_NAMES[self.type], "flags": self.flags}
        if self.type == MARK:
            doc["name"] = self.data.decode("utf-8", "replace")
        elif self.type == VOLUME:
            doc["entry"] = volume_entry(self.data, "record")
        else:
            doc.update(volume=self.volume, offset=self.offset)
        doc.update(length=self.length, data_crc=self.data_crc, delta_us=self.delta_us)
        return doc


class Segment:
    """One decoded and wholly checked segment."""

    def __init__(self, data, at=0):
        head = bytes(data[at : at + HEADER_BYTES])
        require(len(head) == HEADER_BYTES, "short", "fewer than 128 bytes")
        (magic, version, self.flags, self.record_count, group, self.epoch, self.first_seq,
         self.first_time_ns, self.last_time_ns, self.durable_seq, self.bytes_end, self.chain,
         self.writer, self.data_off, self.data_stored, self.data_raw, self.total,
         self.payload_crc, reserved, header_crc) = _HEADER.unpack(head)
        require(magic == b"HFSG", "magic", "not a segment")
        require(crc32c(head[:124]) == header_crc, "header-crc", "checksum of the header")
        require(version == 1, "version", f"version {version}")
        self.group = uuid.UUID(bytes=group)
        self.last_seq = self.first_seq + self.record_count - 1
        require(zero(reserved), "field", "reserved bytes of the header")
        self._check_header()
        self.chain_behind = xxh3_64(head)
        stored = bytes(data[at : at + self.total])
        require(len(stored) == self.total, "short", f"fewer than {self.total} bytes")
        self._check_payload(stored)

    def _check_header(self):
        table_end = HEADER_BYTES + RECORD_BYTES * self.record_count
        require(self.flags & ~3 == 0, "field", f"flags {self.flags:#x}")
        require(1 <= self.record_count <= RECORDS_MAX, "field", f"{self.record_count} records")
        require(self.epoch >= 1, "field", "epoch 0")
        require(1 <= self.first_seq <= U64 - self.record_count, "field", "first_seq")
        require(self.durable_seq < self.first_seq, "field", "durable_seq")
        require(self.data_raw <= DATA_MAX, "field", f"data_raw {self.data_raw}")
        if self.flags & LZ4:
            require(lz4_lengths_valid(self.data_stored, self.data_raw), "field", "data lengths")
            require(self.data_off == table_end, "field", f"data_off {self.data_off}")
        else:
            require(self.data_stored == self.data_raw, "field", "data lengths")
            require(self.data_off == round_up(table_end), "field", f"data_off {self.data_off}")
        require(self.total == round_up(self.data_off + self.data_stored), "field",
                 f"total {self.total}")

    def _check_payload(self, stored):
        table_end = HEADER_BYTES + RECORD_BYTES * self.record_count
        data_end = self.data_off + self.data_stored
        packed = stored[self.data_off : data_end]
        crc = crc32c(stored[HEADER_BYTES:table_end], self.chain & 0xFFFFFFFF)
        require(crc32c(packed, crc) == self.payload_crc, "payload-crc", "checksum of the payload")
        require(zero(stored[table_end : self.data_off]) and zero(stored[data_end:]), "field",
                 "padding")
        data = lz4_unpack(packed, self.data_raw) if self.flags & LZ4 else packed
        self.records = []
        end = lengths = 0
        for i in range(self.record_count):
            record = self._record(stored, i, data)
            lengths += record.length
            if record.data is not None:
                require(record.data_off == end, "record", f"data of record {i} is not next")
                end += record.length
            self.records.append(record)
        require(end == self.data_raw, "record", "data that belongs to no record")
        require(self.bytes_end >= lengths, "record", "bytes_end is too small")

    def _record(self, stored, index, data):
        r = Record()
        (r.type, r.flags, r.volume, r.length, r.offset, r.data_off, r.data_crc, r.delta_us,
         reserved) = _RECORD.unpack_from(stored, HEADER_BYTES + RECORD_BYTES * index)
        r.seq = self.first_seq + index
        what = f"record {index}"
        require(r.type in TYPE_NAMES and zero(reserved), "record", what)
        require(r.flags & ~TYPE_FLAGS[r.type] == 0, "record", f"flags of {what}")
        require(r.length >= 1, "record", f"length of {what}")
        require(r.offset + r.length <= VOLUME_BYTES_MAX, "record", f"range of {what}")
        if r.type == MARK:
            require(r.volume == 0 and r.offset == 0 and r.length <= 255, "record", what)
        if r.type == VOLUME:
            require(r.offset == 0 and r.length == 96 and self.record_count == 1, "record", what)
        if r.type in (WRITE, MARK, VOLUME):
            require(r.data_off + r.length <= self.data_raw, "record", f"data of {what}")
            r.data = data[r.data_off : r.data_off + r.length]
            require(crc32c(r.data) == r.data_crc, "data-crc", f"checksum of {what}'s data")
            if r.type == VOLUME:
                require(volume_entry(r.data, "record")["id"] == r.volume, "record", what)
        else:
            require(r.data_off == 0 and r.data_crc == 0, "record", f"{what} has no data")
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
_SB = struct.Struct("<4sIQQQQ16sB3sI64sQQ128sQIIQQQQQQQQQQIIIIQQQQQQQQ128sQQQQQQQQ384s")
_PEER = struct.Struct("<128sQQI4sQQQQQQQ48s")
ROLLBACK, HANDOVER, FLAGS = 256, 32, 4095
_SB_FIELDS = ("applied_seq", "applied_bytes", "applied_chain", "applied_off", "durable_seq",
              "sync_end_seq", "heard_head_seq", "heard_head_bytes", "heard_time_ns",
              "promoted_time_ns", "volume_count", "history_count", "peer_count",
              "kept_history_count", "undo_id", "undo_bytes", "kept_seq", "kept_chain", "kept_bytes",
              "kept_epoch", "kept_time_ns", "handover_seq", "handover_node", "verified_seq",
              "verified_time_ns", "lost_writes", "lost_bytes", "lost_ns",
              "differing_ranges", "durable_time_ns", "copy_id")
assert _SB.size == 1024 and _PEER.size == 256


def _entries(slot, at, size, count, limit, what):
    require(count <= limit, "field", f"{count} {what}")
    require(zero(slot[at + size * count : at + size * limit]), "field", f"{what} behind the end")
    return [slot[at + size * i : at + size * (i + 1)] for i in range(count)]


def _distinct(values, what):
    require(len(set(values)) == len(values), "field", f"{what} twice")


def _history(slot, at, count, epoch):
    history = []
    for entry in _entries(slot, at, 16, count, 128, "history entries"):
        number, first_seq = struct.unpack("<QQ", entry)
        before = history[-1] if history else {"epoch": 0, "first_seq": 1}
        require(number > before["epoch"] and first_seq >= before["first_seq"], "field", "history")
        history.append({"epoch": number, "first_seq": first_seq})
    require(not history or history[-1]["epoch"] <= epoch, "field", "epoch")
    return history


def _superblock_lists(slot, sb):
    sb["history"] = _history(slot, 1024, sb["history_count"], sb["epoch"])
    sb["peers"] = []
    for entry in _entries(slot, 4096, 256, sb["peer_count"], 8, "peers"):
        (node, durable_seq, released_seq, flags, reserved0, verified_seq, verified_time_ns, copy_seq,
         copy_time_ns, differing_ranges, differing_bytes, copy_id, reserved) = _PEER.unpack(entry)
        node = text(node, "peer")
        require(node_valid(node) and flags & ~3 == 0 and zero(reserved0) and zero(reserved),
                 "field", "peer")
        sb["peers"].append({"node": node.decode(), "durable_seq": durable_seq,
                            "released_seq": released_seq, "needs_sync": bool(flags & 1),
                            "needs_compare": bool(flags & 2), "verified_seq": verified_seq,
                            "verified_time_ns": verified_time_ns, "copy_seq": copy_seq,
                            "copy_time_ns": copy_time_ns, "differing_ranges": differing_ranges,
                            "differing_bytes": differing_bytes, "copy_id": copy_id})
    _distinct([peer["node"] for peer in sb["peers"]], "peer")
    sb["volumes"] = [volume_entry(entry, "field") for entry in
                     _entries(slot, 8192, 96, sb["volume_count"], 128, "volumes")]
    for key in ("id", "name", "uuid"):
        _distinct([volume[key] for volume in sb["volumes"]], f"volume {key}")
    stamps = _entries(slot, 20480, 16, sb["volume_count"], 128, "stamps")
    for volume, stamp in zip(sb["volumes"], stamps):
        volume["mtime_ns"], volume["sample"] = struct.unpack("<QQ", stamp)
    count = struct.unpack_from("<I", slot, 23552)[0]
    require(count <= 64, "field", "more openings than there is room for")
    openings = [struct.unpack("<QQ", entry)
                for entry in _entries(slot, 22528, 16, count, 64, "openings")]
    sb["openings"] = [{"writer": writer, "first_seq": first_seq} for writer, first_seq in openings]
    for i, (_, first_seq) in enumerate(openings):
        require(first_seq >= 1 and (i == 0 or first_seq > openings[i - 1][1]), "field",
                "openings are not in order")


def _superblock_kept(slot, sb):
    count = sb["kept_history_count"]
    if sb["undo_id"] == 0:
        require(sb["undo_bytes"] == 0 and sb["kept_seq"] == 0 and count == 0
                 and sb["flags"] & ROLLBACK == 0, "field", "a kept position without an undo log")
    sb["kept_history"] = _history(slot, 6144, count, sb["kept_epoch"])
    node = sb["handover_node"]
    require(node_valid(node) or (node == b"" and sb["flags"] & HANDOVER == 0), "field",
             "handover_node")
    sb["handover_node"] = node.decode()


def superblock_decode(slot):
    """One slot as a dictionary."""
    require(len(slot) == SLOT_BYTES, "short", "fewer than 32768 bytes")
    (magic, version, compat, ro_compat, incompat, generation, group, role, reserved0, flags, name,
     epoch, fenced_by_epoch, fenced_by, slot_bytes, slots, applied_slot,
     *numbers, reserved1) = _SB.unpack_from(slot)
    require(magic == b"HFSB", "none", "not a superblock")
    require(crc32c(slot[:-4]) == struct.unpack("<I", slot[-4:])[0], "none", "checksum")
    require(version == 1 and ro_compat == 0 and incompat == 0, "version", "a newer program's")
    sb = {"generation": generation, "features_compat": compat,
          "group": str(uuid.UUID(bytes=group)), "role": role, "flags": flags,
          "name": text(name, "name").decode("latin-1"), "epoch": epoch,
          "fenced_by_epoch": fenced_by_epoch,
          "fenced_by": text(fenced_by, "fenced_by").decode("latin-1"), "slot_bytes": slot_bytes,
          "slots": slots, "applied_slot": applied_slot}
    sb.update(zip(_SB_FIELDS, numbers))
    sb["handover_node"] = text(sb["handover_node"], "handover_node")
    require(1 <= role <= 3 and flags & ~FLAGS == 0, "field", "role or flags")
    require(name_valid(sb["name"].encode("latin-1")), "field", "name")
    require(not sb["fenced_by"] or node_valid(sb["fenced_by"].encode("latin-1")), "field",
             "fenced_by")
    for part in (reserved0, reserved1, slot[3072:4096], slot[23556:32764]):
        require(zero(part), "field", "reserved bytes")
    if slots == 0:
        require(applied_slot == 0 and sb["applied_off"] == 0, "field", "applied place")
    else:
        require(BLOCK <= slot_bytes <= VOLUME_BYTES_MAX and slot_bytes % BLOCK == 0, "field",
                 "slot_bytes")
        require(applied_slot < slots and sb["applied_off"] <= slot_bytes
                 and sb["applied_off"] % BLOCK == 0, "field", "applied place")
    _superblock_lists(slot, sb)
    _superblock_kept(slot, sb)
    return sb


def superblock_choose(data):
    """(superblock, index of its slot) that rules in a whole file."""
    require(len(data) == 2 * SLOT_BYTES, "short", "a superblock file has 65536 bytes")
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
        require(not same or slots[0] == slots[1], "field", "two superblocks of one generation")
        chosen = int(found[1]["generation"] > found[0]["generation"])
    else:
        require(found[0] or found[1], "none", "neither slot holds a superblock")
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
            require(len(self.maps[slot]) == self.sb["slot_bytes"], "journal",
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
        require(self.sb["durable_seq"] < seq, "damage",
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
                require(later.durable_seq < seq, "damage", where + "when more was durable")
            elif (other, at) not in places:
                linked = linked + 1 if later.chain == chain else 1
                chain = later.chain_behind
                require(linked < 16, "damage", where + "far behind")


def apply_record(record, files):
    """One record onto volume images; volumes that nobody asked for are passed over."""
    file = files.get(record.volume)
    if record.type in (MARK, VOLUME) or file is None:
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
               "sync-data", "sync-zero", "sync-end", "sync-ack", "bye", "sync-hash", "hash-result",
               "ranges", "handover", "handed", "verified")
_MESSAGES = (1, 2, 3, 4, 7, 12)
_RANGE = struct.Struct("<QIHH")
assert _FRAME.size == FRAME_BYTES and _RANGE.size == 16


def frame_head(head):
    """The document of a frame's 64 bytes, the length of its body and the body's checksum."""
    require(len(head) == FRAME_BYTES, "short", "fewer than 64 bytes")
    (magic, kind, flags, length, body_crc, epoch, seq, arg1, arg2, reserved,
     header_crc) = _FRAME.unpack(head)
    require(magic == b"HFFR", "magic", "not a frame")
    require(crc32c(head[:60]) == header_crc, "crc", "checksum of the header")
    require(1 <= kind < len(FRAME_NAMES) and zero(reserved), "type",
             f"type {kind} or reserved bytes")
    require(flags & ~(1 if kind == 8 else 0) == 0, "type", f"flags {flags:#x}")
    if kind in _MESSAGES:
        require(length <= 65536, "length", f"{length} bytes")
        require(seq == arg1 == arg2 == 0, "field", "arguments of a message")
    elif kind == 5:
        require(BLOCK <= length <= TOTAL_MAX and length % BLOCK == 0, "length", f"{length} bytes")
        require(1 <= seq <= arg1 < seq + RECORDS_MAX and arg2 == 0 and body_crc == 0, "field",
                 "arguments of a segment")
    elif kind == 8:
        _frame_content(flags, length, arg1, arg2)
    elif kind == 13:
        require(length == 16, "length", f"{length} bytes")
        require((arg2 & 0xFFFFFFFF) * 512 <= DATA_MAX, "field", "range")
        _frame_range(arg1, arg2)
    elif kind == 15:
        require(length <= 65536 and length % 16 == 0, "length", f"{length} bytes")
        require(seq <= 1 and arg1 == arg2 == 0, "field", "arguments")
    elif kind == 17:
        require(length <= 65536, "length", f"{length} bytes")
        require(arg1 == arg2 == 0, "field", "arguments")
    else:
        _frame_bodyless(kind, length, body_crc, seq, arg1, arg2)
    return {"frame": FRAME_NAMES[kind], "flags": flags, "body": length, "epoch": epoch, "seq": seq,
            "arg1": arg1, "arg2": arg2}, length, body_crc


def frame_decode(data, at):
    """(document, body) of the frame at an offset; the body is checked, too."""
    document, length, body_crc = frame_head(bytes(data[at : at + FRAME_BYTES]))
    body = bytes(data[at + FRAME_BYTES : at + FRAME_BYTES + length])
    require(len(body) == length, "short", f"fewer than {length} bytes of body")
    if document["frame"] != "segment":
        require((crc32c(body) if length else 0) == body_crc, "crc", "checksum of the body")
    return document, body


def _frame_content(flags, length, arg1, arg2):
    raw = arg2 & 0xFFFFFFFF
    require(1 <= length and raw <= DATA_MAX, "length", "content")
    require(lz4_lengths_valid(length, raw) if flags else length == raw, "length", "content")
    require(arg2 >> 32 <= 65535 and arg1 + raw <= VOLUME_BYTES_MAX, "field", "range")


def _frame_range(arg1, arg2):
    sectors = arg2 & 0xFFFFFFFF
    require(sectors >= 1 and arg2 >> 32 <= 65535
             and arg1 + 512 * sectors <= VOLUME_BYTES_MAX, "field", "range")


def _frame_bodyless(kind, length, body_crc, seq, arg1, arg2):
    require(length == 0, "length", "a body where there is none")
    require(body_crc == 0, "field", "checksum of no body")
    if kind == 6:
        require(arg1 <= seq <= arg2, "field", "acknowledgement")
    elif kind == 9:
        _frame_range(arg1, arg2)
    elif kind == 14:
        require(seq >= 1 and arg1 <= 1 and arg2 == 0, "field", "result")
    elif kind == 16:
        require(arg2 == 0, "field", "arguments")
    elif kind != 18:
        require(arg1 == 0 and arg2 == 0, "field", "arguments")


def ranges_decode(body):
    """What a RANGES frame names."""
    ranges = []
    for offset, sectors, volume, reserved in _RANGE.iter_unpack(body):
        require(reserved == 0 and sectors >= 1 and offset + 512 * sectors <= VOLUME_BYTES_MAX,
                 "field", "range")
        ranges.append({"volume": volume, "offset": offset, "length": 512 * sectors})
    return ranges


def frame_content(document, body):
    """What a frame carries beyond its header, checked: a segment, or the unpacked content."""
    if document["frame"] == "segment":
        segment = Segment(body)
        require(segment.total == len(body) and segment.first_seq == document["seq"]
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
        elif document["frame"] == "sync-hash":
            document["hash"] = body.hex()
        elif document["frame"] == "ranges":
            document["ranges"] = ranges_decode(body)
        emit({"offset": at, **document})
        at += FRAME_BYTES + len(body)


def command_verdicts(args):
    decode, size = {"superblock": (superblock_decode, SLOT_BYTES),
                    "frame": (frame_head, FRAME_BYTES)}[args.kind]
    with open(args.file, "rb") as file:
        data = file.read()
    for at in range(0, len(data), size):
        try:
            found = decode(data[at : at + size])
            document = found if isinstance(found, dict) else found[0]
            emit({"offset": at, "verdict": "right", **document})
        except FormatError as error:
            emit({"offset": at, "verdict": error.kind})


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
    verdicts = commands.add_parser("verdicts")
    verdicts.add_argument("kind", choices=("superblock", "frame"))
    verdicts.add_argument("file")
    verdicts.set_defaults(run=command_verdicts)
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
