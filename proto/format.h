/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of our own formats, field by field: what the codecs of this folder read and write.
 * docs/formats.md describes the same tables; format_check.c fixes every offset at compile time.
 *
 * Members are byte arrays, so the structures have no padding and no alignment. Private to proto/.
 */
#ifndef HOLDFAST_PROTO_FORMAT_H
#define HOLDFAST_PROTO_FORMAT_H

#include <stdint.h>

#include "core/base/endian.h"
#include "core/base/uuid.h"
#include "proto/frame.h"
#include "proto/segment.h"
#include "proto/superblock.h"

/* Every version of a format keeps its magic, its version and its CRC where they are. */

struct segment_header_le {
	struct le32 magic;
	struct le32 version;
	struct le32 flags;
	struct le32 records;
	struct uuid group;
	struct le64 epoch;
	struct le64 first_seq;
	struct le64 first_time_ns;
	struct le64 last_time_ns;
	struct le64 durable_seq;
	struct le64 bytes_end;
	struct le64 chain;
	struct le64 writer;
	struct le32 data_off;
	struct le32 data_stored_bytes;
	struct le32 data_raw_bytes;
	struct le32 total_bytes;
	struct le32 payload_crc;
	uint8_t reserved[8];
	struct le32 header_crc; /* of everything before it */
};

struct record_le {
	uint8_t type;
	uint8_t flags;
	struct le16 volume;
	struct le32 length_bytes;
	struct le64 offset_bytes;
	struct le32 data_off;
	struct le32 data_crc;
	struct le32 delta_us;
	uint8_t reserved[4];
};

struct frame_le {
	struct le32 magic;
	struct le16 type;
	struct le16 flags;
	struct le32 body_bytes;
	struct le32 body_crc;
	struct le64 epoch;
	struct le64 seq;
	struct le64 arg1;
	struct le64 arg2;
	uint8_t reserved[12];
	struct le32 header_crc; /* of everything before it */
};

struct history_entry_le {
	struct le64 epoch;
	struct le64 first_seq;
};

struct superblock_peer_le {
	char node[NODE_NAME_MAX + 1];
	struct le64 durable_seq;
	struct le64 released_seq;
	struct le32 flags; /* SUPERBLOCK_PEER_* */
	uint8_t reserved0[4];
	struct le64 verified_seq;
	struct le64 verified_time_ns;
	struct le64 copy_seq;
	struct le64 copy_time_ns;
	struct le64 differing_ranges;
	struct le64 differing_bytes;
	struct le64 copy_id;
	uint8_t reserved[48];
};
#define SUPERBLOCK_PEER_NEEDS_SYNC    (1u << 0)
#define SUPERBLOCK_PEER_NEEDS_COMPARE (1u << 1)

struct superblock_stamp_le {
	struct le64 mtime_ns;
	struct le64 sample;
};

struct opening_le {
	struct le64 writer;
	struct le64 first_seq;
};

struct superblock_volume_le {
	struct le16 id;
	uint8_t reserved[6];
	struct le64 size_bytes;
	struct uuid uuid;
	char name[VOLUME_NAME_MAX + 1];
};

struct superblock_le {
	struct le32 magic;
	struct le32 version;
	struct le64 features_compat;
	struct le64 features_ro_compat;
	struct le64 features_incompat;
	struct le64 generation;
	struct uuid group;
	uint8_t role;
	uint8_t reserved0[3];
	struct le32 flags;
	char name[GROUP_NAME_MAX + 1];
	struct le64 epoch;
	struct le64 fenced_by_epoch;
	char fenced_by[NODE_NAME_MAX + 1];
	struct le64 slot_bytes;
	struct le32 slots;
	struct le32 applied_slot;
	struct le64 applied_seq;
	struct le64 applied_bytes;
	struct le64 applied_chain;
	struct le64 applied_off;
	struct le64 durable_seq;
	struct le64 sync_end_seq;
	struct le64 heard_head_seq;
	struct le64 heard_head_bytes;
	struct le64 heard_time_ns;
	struct le64 promoted_time_ns;
	struct le32 volume_count;
	struct le32 history_count;
	struct le32 peer_count;
	struct le32 kept_history_count;
	struct le64 undo_id;
	struct le64 undo_bytes;
	struct le64 kept_seq;
	struct le64 kept_chain;
	struct le64 kept_bytes;
	struct le64 kept_epoch;
	struct le64 kept_time_ns;
	struct le64 handover_seq;
	char handover_node[NODE_NAME_MAX + 1];
	struct le64 verified_seq;
	struct le64 verified_time_ns;
	struct le64 lost_writes;
	struct le64 lost_bytes;
	struct le64 lost_ns;
	struct le64 differing_ranges;
	struct le64 durable_time_ns;
	struct le64 copy_id;
	uint8_t reserved1[384];
	struct history_entry_le history[HISTORY_MAX];
	uint8_t reserved2[1024];
	struct superblock_peer_le peers[GROUP_PEERS_MAX];
	struct history_entry_le kept_history[HISTORY_MAX];
	struct superblock_volume_le volumes[GROUP_VOLUMES_MAX];
	struct superblock_stamp_le stamps[GROUP_VOLUMES_MAX];
	struct opening_le openings[OPENINGS_MAX];
	struct le32 opening_count;
	uint8_t reserved4[9208];
	struct le32 crc; /* of everything before it */
};

#endif
