/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The formats, frozen: every offset and every number that lies on a disk or goes over a wire. A
 * change here is a new version of a format, with a reader for the old one.
 */
#include <stddef.h>

#include "proto/format.h"

#define SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type)
#define AT(type, field, bytes)                                                                     \
	_Static_assert(offsetof(struct type, field) == (bytes), #type "." #field)
#define IS(name, value) _Static_assert((name) == (value), #name)

SIZE(segment_header_le, 128);
AT(segment_header_le, magic, 0);
AT(segment_header_le, version, 4);
AT(segment_header_le, flags, 8);
AT(segment_header_le, records, 12);
AT(segment_header_le, group, 16);
AT(segment_header_le, epoch, 32);
AT(segment_header_le, first_seq, 40);
AT(segment_header_le, first_time_ns, 48);
AT(segment_header_le, last_time_ns, 56);
AT(segment_header_le, durable_seq, 64);
AT(segment_header_le, bytes_end, 72);
AT(segment_header_le, chain, 80);
AT(segment_header_le, writer, 88);
AT(segment_header_le, data_off, 96);
AT(segment_header_le, data_stored_bytes, 100);
AT(segment_header_le, data_raw_bytes, 104);
AT(segment_header_le, total_bytes, 108);
AT(segment_header_le, payload_crc, 112);
AT(segment_header_le, reserved, 116);
AT(segment_header_le, header_crc, 124);

SIZE(record_le, 32);
AT(record_le, type, 0);
AT(record_le, flags, 1);
AT(record_le, volume, 2);
AT(record_le, length_bytes, 4);
AT(record_le, offset_bytes, 8);
AT(record_le, data_off, 16);
AT(record_le, data_crc, 20);
AT(record_le, delta_us, 24);
AT(record_le, reserved, 28);

SIZE(frame_le, 64);
AT(frame_le, magic, 0);
AT(frame_le, type, 4);
AT(frame_le, flags, 6);
AT(frame_le, body_bytes, 8);
AT(frame_le, body_crc, 12);
AT(frame_le, epoch, 16);
AT(frame_le, seq, 24);
AT(frame_le, arg1, 32);
AT(frame_le, arg2, 40);
AT(frame_le, reserved, 48);
AT(frame_le, header_crc, 60);

SIZE(history_entry_le, 16);
AT(history_entry_le, epoch, 0);
AT(history_entry_le, first_seq, 8);

SIZE(superblock_peer_le, 256);
AT(superblock_peer_le, node, 0);
AT(superblock_peer_le, durable_seq, 128);
AT(superblock_peer_le, released_seq, 136);
AT(superblock_peer_le, flags, 144);
AT(superblock_peer_le, reserved0, 148);
AT(superblock_peer_le, verified_seq, 152);
AT(superblock_peer_le, verified_time_ns, 160);
AT(superblock_peer_le, copy_seq, 168);
AT(superblock_peer_le, copy_time_ns, 176);
AT(superblock_peer_le, differing_ranges, 184);
AT(superblock_peer_le, differing_bytes, 192);
AT(superblock_peer_le, copy_id, 200);
AT(superblock_peer_le, reserved, 208);

SIZE(superblock_stamp_le, 16);
AT(superblock_stamp_le, mtime_ns, 0);
AT(superblock_stamp_le, sample, 8);

SIZE(superblock_volume_le, 96);
AT(superblock_volume_le, id, 0);
AT(superblock_volume_le, reserved, 2);
AT(superblock_volume_le, size_bytes, 8);
AT(superblock_volume_le, uuid, 16);
AT(superblock_volume_le, name, 32);

SIZE(superblock_le, 32768);
AT(superblock_le, magic, 0);
AT(superblock_le, version, 4);
AT(superblock_le, features_compat, 8);
AT(superblock_le, features_ro_compat, 16);
AT(superblock_le, features_incompat, 24);
AT(superblock_le, generation, 32);
AT(superblock_le, group, 40);
AT(superblock_le, role, 56);
AT(superblock_le, reserved0, 57);
AT(superblock_le, flags, 60);
AT(superblock_le, name, 64);
AT(superblock_le, epoch, 128);
AT(superblock_le, fenced_by_epoch, 136);
AT(superblock_le, fenced_by, 144);
AT(superblock_le, slot_bytes, 272);
AT(superblock_le, slots, 280);
AT(superblock_le, applied_slot, 284);
AT(superblock_le, applied_seq, 288);
AT(superblock_le, applied_bytes, 296);
AT(superblock_le, applied_chain, 304);
AT(superblock_le, applied_off, 312);
AT(superblock_le, durable_seq, 320);
AT(superblock_le, sync_end_seq, 328);
AT(superblock_le, heard_head_seq, 336);
AT(superblock_le, heard_head_bytes, 344);
AT(superblock_le, heard_time_ns, 352);
AT(superblock_le, promoted_time_ns, 360);
AT(superblock_le, volume_count, 368);
AT(superblock_le, history_count, 372);
AT(superblock_le, peer_count, 376);
AT(superblock_le, kept_history_count, 380);
AT(superblock_le, undo_id, 384);
AT(superblock_le, undo_bytes, 392);
AT(superblock_le, kept_seq, 400);
AT(superblock_le, kept_chain, 408);
AT(superblock_le, kept_bytes, 416);
AT(superblock_le, kept_epoch, 424);
AT(superblock_le, kept_time_ns, 432);
AT(superblock_le, handover_seq, 440);
AT(superblock_le, handover_node, 448);
AT(superblock_le, verified_seq, 576);
AT(superblock_le, verified_time_ns, 584);
AT(superblock_le, lost_writes, 592);
AT(superblock_le, lost_bytes, 600);
AT(superblock_le, lost_ns, 608);
AT(superblock_le, differing_ranges, 616);
AT(superblock_le, durable_time_ns, 624);
AT(superblock_le, copy_id, 632);
AT(superblock_le, reserved1, 640);
AT(superblock_le, history, 1024);
AT(superblock_le, reserved2, 3072);
AT(superblock_le, peers, 4096);
AT(superblock_le, kept_history, 6144);
AT(superblock_le, volumes, 8192);
AT(superblock_le, stamps, 20480);
AT(superblock_le, openings, 22528);
AT(superblock_le, opening_count, 23552);
AT(superblock_le, reserved4, 23556);
AT(superblock_le, crc, 32764);

IS(SEGMENT_MAGIC, 0x47534648);
IS(SEGMENT_VERSION, 1);
IS(SEGMENT_HEADER_BYTES, 128);
IS(SEGMENT_ALIGN_BYTES, 4096);
IS(RECORD_BYTES, 32);
IS(SEGMENT_RECORDS_MAX, 508);
IS(SEGMENT_HEAD_MAX_BYTES, 16384);
IS(SEGMENT_DATA_MAX_BYTES, 1048576);
IS(SEGMENT_TOTAL_MAX_BYTES, 1064960);
IS(SEGMENT_LZ4, 1);
IS(SEGMENT_EPOCH_FIRST, 2);
IS(RECORD_WRITE, 1);
IS(RECORD_DISCARD, 2);
IS(RECORD_WRITE_ZEROES, 3);
IS(RECORD_MARK, 4);
IS(RECORD_VOLUME, 5);
IS(RECORD_NO_HOLE, 1);
IS(RECORD_FUA, 2);
IS(RECORD_GONE, 4);
IS(RECORD_VOLUME_BYTES, 96);
IS(MARK_NAME_MAX, 255);
IS(VOLUME_BYTES_MAX, 1ull << 62);

IS(FRAME_MAGIC, 0x52464648);
IS(FRAME_BYTES, 64);
IS(FRAME_CONTROL_MAX_BYTES, 65536);
IS(FRAME_SYNC_MAX_BYTES, 1048576);
IS(PROTOCOL_VERSION, 1);
IS(FRAME_HELLO, 1);
IS(FRAME_WELCOME, 2);
IS(FRAME_REFUSE, 3);
IS(FRAME_START, 4);
IS(FRAME_SEGMENT, 5);
IS(FRAME_ACK, 6);
IS(FRAME_HEARTBEAT, 7);
IS(FRAME_SYNC_DATA, 8);
IS(FRAME_SYNC_ZERO, 9);
IS(FRAME_SYNC_END, 10);
IS(FRAME_SYNC_ACK, 11);
IS(FRAME_BYE, 12);
IS(FRAME_SYNC_HASH, 13);
IS(FRAME_HASH_RESULT, 14);
IS(FRAME_RANGES, 15);
IS(FRAME_HANDOVER, 16);
IS(FRAME_HANDED, 17);
IS(FRAME_VERIFIED, 18);
IS(FRAME_TYPE_MAX, 18);
IS(FRAME_HASH_BYTES, 16);
IS(FRAME_RANGE_BYTES, 16);
IS(FRAME_LZ4, 1);

IS(SUPERBLOCK_MAGIC, 0x42534648);
IS(SUPERBLOCK_VERSION, 1);
IS(SUPERBLOCK_SLOT_BYTES, 32768);
IS(SUPERBLOCK_FILE_BYTES, 65536);
IS(GROUP_NAME_MAX, 63);
IS(VOLUME_NAME_MAX, 63);
IS(NODE_NAME_MAX, 127);
IS(GROUP_VOLUMES_MAX, 128);
IS(GROUP_PEERS_MAX, 8);
IS(HISTORY_MAX, 128);
IS(GROUP_PRIMARY, 1);
IS(GROUP_STANDBY, 2);
IS(GROUP_FENCED, 3);
IS(SUPERBLOCK_CLEAN, 1);
IS(SUPERBLOCK_EVER_CONSISTENT, 2);
IS(SUPERBLOCK_SYNCING, 4);
IS(SUPERBLOCK_PROMOTING, 8);
IS(SUPERBLOCK_REJOIN, 16);
IS(SUPERBLOCK_HANDOVER, 32);
IS(SUPERBLOCK_HELD, 64);
IS(SUPERBLOCK_SELF_DIRTY, 128);
IS(SUPERBLOCK_ROLLBACK, 256);
IS(SUPERBLOCK_DISTRUST, 512);
IS(SUPERBLOCK_SUSPECT, 1024);
IS(SUPERBLOCK_REJOIN_LOSS, 2048);
IS(SUPERBLOCK_PEER_NEEDS_SYNC, 1);
IS(SUPERBLOCK_PEER_NEEDS_COMPARE, 2);
