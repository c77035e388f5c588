/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments, superblocks and messages to test with, out of one seed. Header only: it is used by unit
 * tests, by the maker of the golden files and by the fuzzers' corpora.
 */
#ifndef HOLDFAST_TESTS_UNIT_PROTO_SAMPLES_H
#define HOLDFAST_TESTS_UNIT_PROTO_SAMPLES_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/base/crc32c.h"
#include "core/base/macros.h"
#include "core/base/prng.h"
#include "proto/format.h"
#include "proto/link.h"

/* A segment while it is built, with room for the largest. Large: keep it static. */
struct sample {
	struct segment_header header;
	struct record records[SEGMENT_RECORDS_MAX];
	uint8_t table[SEGMENT_RECORDS_MAX * RECORD_BYTES];
	/* Data behind room for the head, as segment_seal_raw() wants it. */
	_Alignas(4096) uint8_t space[SEGMENT_TOTAL_MAX_BYTES];
	_Alignas(4096) uint8_t stored[SEGMENT_TOTAL_MAX_BYTES];
};

static inline uint8_t *sample_data(struct sample *sample)
{
	return sample->space + SEGMENT_HEAD_MAX_BYTES;
}

static inline struct uuid sample_uuid(uint8_t first)
{
	struct uuid uuid;
	unsigned i;

	for (i = 0; i < UUID_BYTES; i++)
		uuid.bytes[i] = (uint8_t)(first + i * 7);
	return uuid;
}

static inline void sample_begin(struct sample *sample, uint64_t first_seq, uint64_t chain)
{
	sample->header = (struct segment_header){
		.group = sample_uuid(1),
		.epoch = 3,
		.first_seq = first_seq,
		.first_time_ns = 1700000000123456789ull,
		.last_time_ns = 1700000000223456789ull,
		.durable_seq = first_seq - 1,
		.bytes_end = 1ull << 40,
		.chain = chain,
		.writer = 0x1122334455667788ull,
	};
}

/* `data` may be NULL for records without; it is copied. */
static inline void sample_add(struct sample *sample, struct record record, const void *data)
{
	struct segment_header *header = &sample->header;

	must(header->records < SEGMENT_RECORDS_MAX);
	if (record_has_data(&record)) {
		must(data != NULL);
		must(record.length_bytes <= SEGMENT_DATA_MAX_BYTES - header->data_raw_bytes);
		record.data_off = header->data_raw_bytes;
		record.data_crc = crc32c(0, data, record.length_bytes);
		memcpy(sample_data(sample) + record.data_off, data, record.length_bytes);
		header->data_raw_bytes += record.length_bytes;
	}
	record_encode(&record, sample->table + header->records * RECORD_BYTES);
	sample->records[header->records++] = record;
}

/* How the bytes of a write look: percent of its 64-byte pieces that are noise. */
static inline void sample_fill(struct prng *prng, uint8_t *bytes, size_t len, unsigned noise)
{
	size_t i;

	for (i = 0; i < len; i += 64) {
		if (prng_below(prng, 100) < noise)
			prng_fill(prng, bytes + i, min_size(64, len - i));
		else
			memset(bytes + i, (int)(i >> 12), min_size(64, len - i));
	}
}

/* A record of any kind with at most `data_max` bytes of data; false when not even one fits. */
static inline bool sample_add_random(struct sample *sample, struct prng *prng, uint32_t data_max,
				     unsigned noise)
{
	static uint8_t data[SEGMENT_DATA_MAX_BYTES];
	struct record record = {
		.type = (uint8_t)prng_between(prng, RECORD_WRITE, RECORD_MARK),
		.volume = (uint16_t)prng_below(prng, 4),
		.offset_bytes = prng_below(prng, 1 << 11) * 512,
		.length_bytes = (uint32_t)prng_between(prng, 1, 64) * 512,
		.delta_us = (uint32_t)prng_next(prng),
	};

	if (prng_chance(prng, 1, 2))
		record.type = RECORD_WRITE;
	if (record.type == RECORD_WRITE_ZEROES && prng_chance(prng, 1, 2))
		record.flags |= RECORD_NO_HOLE;
	if (record.type == RECORD_MARK) {
		record.volume = 0;
		record.offset_bytes = 0;
		record.length_bytes = (uint32_t)prng_between(prng, 1, MARK_NAME_MAX);
	} else if (prng_chance(prng, 1, 4)) {
		record.flags |= RECORD_FUA;
	}
	if (record_has_data(&record)) {
		if (data_max == 0)
			return false;
		record.length_bytes = min_u32(record.length_bytes, data_max);
		if (record.type == RECORD_MARK)
			memset(data, 'a' + (int)prng_below(prng, 26), record.length_bytes);
		else
			sample_fill(prng, data, record.length_bytes, noise);
	}
	sample_add(sample, record, data);
	return true;
}

/* A volume that comes, grows or goes: alone in its segment. */
static inline void sample_add_volume(struct sample *sample, struct prng *prng)
{
	struct superblock_volume volume = {
		.id = (uint16_t)prng_next(prng),
		.uuid = sample_uuid((uint8_t)prng_next(prng)),
		.size_bytes = prng_below(prng, VOLUME_BYTES_MAX) + 1,
	};
	struct record record = {
		.type = RECORD_VOLUME,
		.flags = prng_chance(prng, 1, 3) ? RECORD_GONE : 0,
		.volume = volume.id,
		.length_bytes = RECORD_VOLUME_BYTES,
		.delta_us = (uint32_t)prng_next(prng),
	};
	uint8_t entry[RECORD_VOLUME_BYTES];

	memset(volume.name, 'a' + (int)prng_below(prng, 26),
	       prng_between(prng, 1, VOLUME_NAME_MAX));
	record_volume_encode(&volume, entry);
	sample_add(sample, record, entry);
}

static inline void sample_random(struct sample *sample, struct prng *prng, uint64_t first_seq,
				 uint64_t chain, uint32_t records_max, uint32_t data_max)
{
	uint32_t wanted = (uint32_t)prng_between(prng, 1, records_max);
	unsigned noise = (unsigned)prng_below(prng, 5) * 25;

	sample_begin(sample, first_seq, chain);
	if (prng_chance(prng, 1, 24) && data_max >= RECORD_VOLUME_BYTES) {
		sample_add_volume(sample, prng);
		return;
	}
	while (sample->header.records < wanted || sample->header.records == 0) {
		uint32_t left = data_max - sample->header.data_raw_bytes;

		if (!sample_add_random(sample, prng, left, noise) && sample->header.records > 0)
			break;
	}
}

/* After a change to the encoded bytes: the header's checksum made right again. */
static inline void header_mend(uint8_t *bytes)
{
	struct segment_header_le *le = (struct segment_header_le *)(void *)bytes;

	le->header_crc = le32_of(crc32c(0, le, offsetof(struct segment_header_le, header_crc)));
}

static inline void superblock_mend(uint8_t *slot)
{
	struct superblock_le *le = (struct superblock_le *)(void *)slot;

	le->crc = le32_of(crc32c(0, le, offsetof(struct superblock_le, crc)));
}

static inline void frame_mend(uint8_t *bytes)
{
	struct frame_le *le = (struct frame_le *)(void *)bytes;

	le->header_crc = le32_of(crc32c(0, le, offsetof(struct frame_le, header_crc)));
}

/* A superblock with every field set and lists of the given lengths. */
static inline void superblock_sample(struct superblock *sb, uint32_t volumes, uint32_t history,
				     uint32_t peers)
{
	uint32_t i;

	memset(sb, 0, sizeof(*sb));
	*sb = (struct superblock){
		.generation = 41,
		.features_compat = 0x8000000000000001ull,
		.group = sample_uuid(1),
		.name = "orders-db",
		.role = GROUP_STANDBY,
		.flags = SUPERBLOCK_EVER_CONSISTENT | SUPERBLOCK_SYNCING,
		.epoch = 1000,
		.fenced_by_epoch = 1001,
		.fenced_by = "holdfast://node/b.example",
		.slot_bytes = 64ull << 20,
		.slots = 16,
		.applied_seq = 123456789,
		.applied_bytes = 0x1234567890ull,
		.applied_chain = 0xfedcba9876543210ull,
		.applied_slot = 7,
		.applied_off = 12ull * 4096,
		.durable_seq = 123456999,
		.sync_end_seq = UINT64_MAX,
		.heard_head_seq = 123460000,
		.heard_head_bytes = 0x1234600000ull,
		.heard_time_ns = 1700000000987654321ull,
		.promoted_time_ns = 1690000000000000001ull,
		.volume_count = volumes,
		.history_count = history,
		.peer_count = peers,
	};
	for (i = 0; i < volumes; i++) {
		sb->volumes[i].id = (uint16_t)(i * 3 + 1);
		sb->volumes[i].uuid = sample_uuid((uint8_t)(i + 20));
		sb->volumes[i].size_bytes = (i + 1ull) << 30;
		snprintf(sb->volumes[i].name, sizeof(sb->volumes[i].name), "volume-%u", i);
	}
	for (i = 0; i < history; i++)
		sb->history[i] =
			(struct history_entry){ .epoch = i + 1, .first_seq = 1 + i * 1000 };
	for (i = 0; i < peers; i++) {
		snprintf(sb->peers[i].node, sizeof(sb->peers[i].node), "node-%u.example", i);
		sb->peers[i].durable_seq = 1000 + i;
		sb->peers[i].released_seq = i;
		sb->peers[i].needs_sync = i % 2 == 1;
	}
}

/* Half of the time 0. */
static inline uint64_t sample_number(struct prng *prng)
{
	return prng_chance(prng, 1, 2) ? 0 : prng_next(prng) >> prng_below(prng, 64);
}

static inline void kept_random(struct superblock *sb, struct prng *prng)
{
	struct superblock_kept *kept = &sb->kept;
	uint32_t i;

	kept->chain = sample_number(prng);
	kept->bytes = sample_number(prng);
	kept->epoch = sb->epoch;
	kept->time_ns = sample_number(prng);
	if (prng_chance(prng, 1, 3))
		return;
	kept->undo_id = prng_next(prng) | 1;
	kept->undo_bytes = sample_number(prng);
	kept->seq = sample_number(prng);
	kept->history_count = (uint32_t)prng_below(prng, sb->history_count + 1);
	for (i = 0; i < kept->history_count; i++)
		kept->history[i] = sb->history[i];
}

/* What may stand in a superblock beyond superblock_sample(), at random. */
static inline void superblock_random(struct superblock *sb, struct prng *prng)
{
	static const uint32_t flags[] = { SUPERBLOCK_CLEAN,    SUPERBLOCK_EVER_CONSISTENT,
					  SUPERBLOCK_SYNCING,  SUPERBLOCK_PROMOTING,
					  SUPERBLOCK_REJOIN,   SUPERBLOCK_HANDOVER,
					  SUPERBLOCK_HELD,     SUPERBLOCK_SELF_DIRTY,
					  SUPERBLOCK_ROLLBACK, SUPERBLOCK_DISTRUST,
					  SUPERBLOCK_SUSPECT,  SUPERBLOCK_REJOIN_LOSS };
	uint32_t i;

	superblock_sample(sb, (uint32_t)prng_below(prng, GROUP_VOLUMES_MAX + 1),
			  (uint32_t)prng_below(prng, HISTORY_MAX + 1),
			  (uint32_t)prng_below(prng, GROUP_PEERS_MAX + 1));
	kept_random(sb, prng);
	sb->role = (uint8_t)prng_between(prng, GROUP_PRIMARY, GROUP_FENCED);
	sb->flags = 0;
	for (i = 0; i < array_len(flags); i++) {
		if (prng_chance(prng, 1, 2))
			sb->flags |= flags[i];
	}
	if (sb->kept.undo_id == 0)
		sb->flags &= ~(uint32_t)SUPERBLOCK_ROLLBACK;
	if ((sb->flags & SUPERBLOCK_HANDOVER) || prng_chance(prng, 1, 2))
		snprintf(sb->handover_node, sizeof(sb->handover_node), "holdfast://node/%c",
			 (char)('a' + prng_below(prng, 26)));
	sb->handover_seq = sample_number(prng);
	sb->verified_seq = sample_number(prng);
	sb->verified_time_ns = sample_number(prng);
	sb->lost_writes = sample_number(prng);
	sb->lost_bytes = sample_number(prng);
	sb->lost_ns = sample_number(prng);
	sb->differing_ranges = sample_number(prng);
	sb->durable_time_ns = sample_number(prng);
	for (i = 0; i < sb->peer_count; i++) {
		sb->peers[i].needs_compare = prng_chance(prng, 1, 2);
		sb->peers[i].verified_seq = sample_number(prng);
		sb->peers[i].verified_time_ns = sample_number(prng);
		sb->peers[i].copy_seq = sample_number(prng);
		sb->peers[i].copy_time_ns = sample_number(prng);
		sb->peers[i].differing_ranges = sample_number(prng);
		sb->peers[i].differing_bytes = sample_number(prng);
		sb->peers[i].copy_id = sample_number(prng);
	}
	for (i = 0; i < sb->volume_count; i++) {
		sb->stamps[i].mtime_ns = sample_number(prng);
		sb->stamps[i].sample = sample_number(prng);
	}
	sb->opening_count = (uint32_t)prng_below(prng, OPENINGS_MAX + 1);
	for (i = 0; i < sb->opening_count; i++) {
		sb->openings[i].writer = sample_number(prng);
		sb->openings[i].first_seq =
			1 + prng_below(prng, 1000) + (i ? sb->openings[i - 1].first_seq : 0);
	}
}

static inline void hello_sample(struct link_hello *hello, uint32_t volumes, uint32_t history)
{
	uint32_t i;

	memset(hello, 0, sizeof(*hello));
	*hello = (struct link_hello){
		.protocol_min = 1,
		.protocol_max = 2,
		.features_required = 0x5,
		.features_optional = 0x8000000000000000ull,
		.software = "holdfast 0.1.0",
		.node = "a.example",
		.group = "orders-db",
		.group_uuid = sample_uuid(1),
		.epoch = 1000,
		.head = { .epoch = 1000, .seq = 99, .chain = 77, .bytes = 4096 },
		.oldest_seq = 5,
		.wall_time_ns = 1700000000000000001ull,
		.session = 0xdeadbeefcafef00dull,
		.history_count = history,
		.volume_count = volumes,
	};
	for (i = 0; i < history; i++)
		hello->history[i] =
			(struct history_entry){ .epoch = i + 1, .first_seq = 1 + i * 1000 };
	for (i = 0; i < volumes; i++) {
		hello->volumes[i].id = (uint16_t)(i * 3 + 1);
		hello->volumes[i].uuid = sample_uuid((uint8_t)(i + 20));
		hello->volumes[i].size_bytes = (i + 1ull) << 30;
		snprintf(hello->volumes[i].name, sizeof(hello->volumes[i].name), "volume-%u", i);
	}
}

#endif
