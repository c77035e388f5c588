/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/segment.h"

#include <string.h>

#include "core/base/checked.h"
#include "core/base/crc32c.h"
#include "core/base/hash64.h"
#include "core/base/macros.h"
#include "proto/format.h"
#include "proto/payload.h"

#define SEGMENT_FLAGS ((uint32_t)SEGMENT_LZ4 | SEGMENT_EPOCH_FIRST)

/* ---- header -----------------------------------------------------------------------------------
 */

void segment_header_encode(const struct segment_header *header, uint8_t out[SEGMENT_HEADER_BYTES])
{
	struct segment_header_le le = {
		.magic = le32_of(SEGMENT_MAGIC),
		.version = le32_of(SEGMENT_VERSION),
		.flags = le32_of(header->flags),
		.records = le32_of(header->records),
		.group = header->group,
		.epoch = le64_of(header->epoch),
		.first_seq = le64_of(header->first_seq),
		.first_time_ns = le64_of(header->first_time_ns),
		.last_time_ns = le64_of(header->last_time_ns),
		.durable_seq = le64_of(header->durable_seq),
		.bytes_end = le64_of(header->bytes_end),
		.chain = le64_of(header->chain),
		.writer = le64_of(header->writer),
		.data_off = le32_of(header->data_off),
		.data_stored_bytes = le32_of(header->data_stored_bytes),
		.data_raw_bytes = le32_of(header->data_raw_bytes),
		.total_bytes = le32_of(header->total_bytes),
		.payload_crc = le32_of(header->payload_crc),
	};

	le.header_crc = le32_of(crc32c(0, &le, offsetof(struct segment_header_le, header_crc)));
	memcpy(out, &le, sizeof(le));
}

static uint32_t table_end(uint32_t records)
{
	return SEGMENT_HEADER_BYTES + records * RECORD_BYTES;
}

static uint32_t raw_data_off(uint32_t records)
{
	return (uint32_t)round_up(table_end(records), SEGMENT_ALIGN_BYTES);
}

static uint32_t total_of(uint32_t data_off, uint32_t stored_bytes)
{
	return (uint32_t)round_up(data_off + stored_bytes, SEGMENT_ALIGN_BYTES);
}

/* The lengths follow from each other, so only one set of them is right. */
static bool header_lengths_valid(const struct segment_header *header)
{
	if (header->records < 1 || header->records > SEGMENT_RECORDS_MAX)
		return false;
	if (header->data_raw_bytes > SEGMENT_DATA_MAX_BYTES)
		return false;
	if (header->flags & SEGMENT_LZ4) {
		if (!payload_lengths_valid(header->data_stored_bytes, header->data_raw_bytes) ||
		    header->data_off != table_end(header->records))
			return false;
	} else {
		if (header->data_stored_bytes != header->data_raw_bytes ||
		    header->data_off != raw_data_off(header->records))
			return false;
	}
	return header->total_bytes == total_of(header->data_off, header->data_stored_bytes);
}

static bool header_fields_valid(const struct segment_header *header)
{
	if ((header->flags & ~SEGMENT_FLAGS) != 0 || !header_lengths_valid(header))
		return false;
	if (header->epoch < 1 || header->first_seq < 1)
		return false;
	/* The seq behind the last one is a number, too. */
	if (header->first_seq > UINT64_MAX - header->records)
		return false;
	/* Sealed before it was written, so nothing in it was durable. */
	return header->durable_seq < header->first_seq;
}

int segment_header_decode(const uint8_t *bytes, size_t len, struct segment_header *ret_header)
{
	static const uint8_t zeroes[sizeof((struct segment_header_le){ 0 }.reserved)];
	struct segment_header_le le;

	if (len < sizeof(le))
		return SEGMENT_E_SHORT;
	memcpy(&le, bytes, sizeof(le));
	if (le32_get(le.magic) != SEGMENT_MAGIC)
		return SEGMENT_E_MAGIC;
	if (le32_get(le.header_crc) !=
	    crc32c(0, &le, offsetof(struct segment_header_le, header_crc)))
		return SEGMENT_E_HEADER_CRC;
	/* Behind the CRC: a flipped bit is damage, not a newer program. */
	if (le32_get(le.version) != SEGMENT_VERSION)
		return SEGMENT_E_VERSION;
	*ret_header = (struct segment_header){
		.flags = le32_get(le.flags),
		.group = le.group,
		.epoch = le64_get(le.epoch),
		.first_seq = le64_get(le.first_seq),
		.records = le32_get(le.records),
		.data_off = le32_get(le.data_off),
		.data_stored_bytes = le32_get(le.data_stored_bytes),
		.data_raw_bytes = le32_get(le.data_raw_bytes),
		.total_bytes = le32_get(le.total_bytes),
		.first_time_ns = le64_get(le.first_time_ns),
		.last_time_ns = le64_get(le.last_time_ns),
		.durable_seq = le64_get(le.durable_seq),
		.bytes_end = le64_get(le.bytes_end),
		.chain = le64_get(le.chain),
		.writer = le64_get(le.writer),
		.payload_crc = le32_get(le.payload_crc),
		.header_crc = le32_get(le.header_crc),
	};
	if (memcmp(le.reserved, zeroes, sizeof(zeroes)) != 0 || !header_fields_valid(ret_header))
		return SEGMENT_E_FIELD;
	return 0;
}

uint64_t segment_chain(const uint8_t header_bytes[SEGMENT_HEADER_BYTES])
{
	return hash64(0, header_bytes, SEGMENT_HEADER_BYTES);
}

uint64_t segment_chain_root(const struct uuid *group)
{
	/* The words keep it apart from the hash of anything else. */
	uint8_t bytes[16 + UUID_BYTES] = "holdfast.root.v1";

	memcpy(bytes + 16, group->bytes, UUID_BYTES);
	return hash64(0, bytes, sizeof(bytes));
}

/* ---- records ----------------------------------------------------------------------------------
 */

void record_encode(const struct record *record, uint8_t out[RECORD_BYTES])
{
	struct record_le le = {
		.type = record->type,
		.flags = record->flags,
		.volume = le16_of(record->volume),
		.length_bytes = le32_of(record->length_bytes),
		.offset_bytes = le64_of(record->offset_bytes),
		.data_off = le32_of(record->data_off),
		.data_crc = le32_of(record->data_crc),
		.delta_us = le32_of(record->delta_us),
	};

	memcpy(out, &le, sizeof(le));
}

static bool record_valid(const struct record *record, const struct segment_header *header)
{
	uint8_t flags_allowed = RECORD_FUA;

	switch ((enum record_type)record->type) {
	case RECORD_WRITE:
	case RECORD_DISCARD:
		break;
	case RECORD_WRITE_ZEROES:
		flags_allowed |= RECORD_NO_HOLE;
		break;
	case RECORD_MARK:
		flags_allowed = 0;
		if (record->volume != 0 || record->offset_bytes != 0 ||
		    record->length_bytes > MARK_NAME_MAX)
			return false;
		break;
	case RECORD_VOLUME:
		flags_allowed = RECORD_GONE;
		if (record->offset_bytes != 0 || record->length_bytes != RECORD_VOLUME_BYTES ||
		    header->records != 1)
			return false;
		break;
	default:
		return false;
	}
	if ((record->flags & ~flags_allowed) != 0 || record->length_bytes < 1)
		return false;
	if (!range_valid(record->offset_bytes, record->length_bytes, VOLUME_BYTES_MAX))
		return false;
	if (!record_has_data(record))
		return record->data_off == 0 && record->data_crc == 0;
	return range_valid(record->data_off, record->length_bytes, header->data_raw_bytes);
}

int record_decode(const uint8_t bytes[RECORD_BYTES], const struct segment_header *header,
		  struct record *ret_record)
{
	static const uint8_t zeroes[sizeof((struct record_le){ 0 }.reserved)];
	struct record_le le;

	memcpy(&le, bytes, sizeof(le));
	*ret_record = (struct record){
		.type = le.type,
		.flags = le.flags,
		.volume = le16_get(le.volume),
		.length_bytes = le32_get(le.length_bytes),
		.offset_bytes = le64_get(le.offset_bytes),
		.data_off = le32_get(le.data_off),
		.data_crc = le32_get(le.data_crc),
		.delta_us = le32_get(le.delta_us),
	};
	if (memcmp(le.reserved, zeroes, sizeof(zeroes)) != 0 || !record_valid(ret_record, header))
		return SEGMENT_E_RECORD;
	return 0;
}

/* ---- sealing ----------------------------------------------------------------------------------
 */

static void seal_finish(struct segment_header *header, uint8_t *stored)
{
	uint32_t table_bytes = header->records * RECORD_BYTES;
	uint32_t data_end = header->data_off + header->data_stored_bytes;
	uint32_t crc = (uint32_t)header->chain;

	header->total_bytes = total_of(header->data_off, header->data_stored_bytes);
	crc = crc32c(crc, stored + SEGMENT_HEADER_BYTES, table_bytes);
	crc = crc32c(crc, stored + header->data_off, header->data_stored_bytes);
	header->payload_crc = crc;
	memset(stored + table_end(header->records), 0,
	       header->data_off - table_end(header->records));
	memset(stored + data_end, 0, header->total_bytes - data_end);
	must(header_fields_valid(header));
	segment_header_encode(header, stored);
	header->header_crc = le32_load(stored + offsetof(struct segment_header_le, header_crc));
}

static void seal_check(const struct segment_header *header)
{
	must(header->records >= 1 && header->records <= SEGMENT_RECORDS_MAX);
	must(header->data_raw_bytes <= SEGMENT_DATA_MAX_BYTES);
}

bool segment_seal_lz4(struct segment_header *header, const uint8_t *table, const uint8_t *data,
		      uint8_t *stored)
{
	uint32_t data_off, raw_total_bytes, packed_bytes;

	seal_check(header);
	data_off = table_end(header->records);
	raw_total_bytes = total_of(raw_data_off(header->records), header->data_raw_bytes);
	/* One block less than the raw form leaves this much room, and LZ4 gives up beyond it. */
	if (header->data_raw_bytes == 0 || raw_total_bytes - SEGMENT_ALIGN_BYTES <= data_off)
		return false;
	packed_bytes = payload_pack(data, header->data_raw_bytes, stored + data_off,
				    raw_total_bytes - SEGMENT_ALIGN_BYTES - data_off);
	if (packed_bytes == 0)
		return false;
	memcpy(stored + SEGMENT_HEADER_BYTES, table, (size_t)header->records * RECORD_BYTES);
	header->flags |= SEGMENT_LZ4;
	header->data_off = data_off;
	header->data_stored_bytes = packed_bytes;
	seal_finish(header, stored);
	return true;
}

/* The data already lies where it belongs behind `stored`. */
static void seal_raw_at(struct segment_header *header, const uint8_t *table, uint8_t *stored)
{
	memmove(stored + SEGMENT_HEADER_BYTES, table, (size_t)header->records * RECORD_BYTES);
	header->flags &= ~(uint32_t)SEGMENT_LZ4;
	header->data_off = raw_data_off(header->records);
	header->data_stored_bytes = header->data_raw_bytes;
	seal_finish(header, stored);
}

uint8_t *segment_seal_raw(struct segment_header *header, const uint8_t *table, uint8_t *data)
{
	uint8_t *stored;

	seal_check(header);
	stored = data - raw_data_off(header->records);
	seal_raw_at(header, table, stored);
	return stored;
}

bool segment_seal(struct segment_header *header, const uint8_t *table, const uint8_t *data,
		  uint8_t *stored)
{
	if (segment_seal_lz4(header, table, data, stored))
		return true;
	if (header->data_raw_bytes > 0)
		memcpy(stored + raw_data_off(header->records), data, header->data_raw_bytes);
	seal_raw_at(header, table, stored);
	return false;
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static bool bytes_zero(const uint8_t *bytes, size_t len)
{
	return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

static bool padding_valid(const uint8_t *stored, const struct segment_header *header)
{
	uint32_t data_end = header->data_off + header->data_stored_bytes;
	uint32_t table_end_off = table_end(header->records);

	return bytes_zero(stored + table_end_off, header->data_off - table_end_off) &&
	       bytes_zero(stored + data_end, header->total_bytes - data_end);
}

/* Each record within its limits, and the data area exactly their data, one behind the other. */
static int table_verify(const uint8_t *stored, const struct segment_header *header)
{
	uint64_t data_bytes = 0, length_bytes = 0;
	struct record record;
	uint32_t i;
	int r;

	for (i = 0; i < header->records; i++) {
		r = record_decode(stored + table_end(i), header, &record);
		if (r != 0)
			return r;
		length_bytes += record.length_bytes;
		if (!record_has_data(&record))
			continue;
		if (record.data_off != data_bytes)
			return SEGMENT_E_RECORD;
		data_bytes += record.length_bytes;
	}
	if (data_bytes != header->data_raw_bytes || header->bytes_end < length_bytes)
		return SEGMENT_E_RECORD;
	return 0;
}

int segment_verify(const uint8_t *stored, size_t len, const struct segment_header *header)
{
	uint32_t crc = (uint32_t)header->chain;

	if (!header_lengths_valid(header))
		return SEGMENT_E_FIELD;
	if (len < header->total_bytes)
		return SEGMENT_E_SHORT;
	crc = crc32c(crc, stored + SEGMENT_HEADER_BYTES, (size_t)header->records * RECORD_BYTES);
	crc = crc32c(crc, stored + header->data_off, header->data_stored_bytes);
	if (crc != header->payload_crc)
		return SEGMENT_E_PAYLOAD_CRC;
	if (!padding_valid(stored, header))
		return SEGMENT_E_FIELD;
	return table_verify(stored, header);
}

int segment_unpack(const uint8_t *stored, const struct segment_header *header, uint8_t *data)
{
	const uint8_t *unpacked = data;
	struct record record;
	uint32_t i;
	int r;

	if (header->flags & SEGMENT_LZ4) {
		must(data != NULL);
		if (!payload_unpack(stored + header->data_off, header->data_stored_bytes, data,
				    header->data_raw_bytes))
			return SEGMENT_E_LZ4;
	} else if (data == NULL) {
		unpacked = stored + header->data_off;
	} else if (header->data_raw_bytes > 0) {
		memcpy(data, stored + header->data_off, header->data_raw_bytes);
	}
	for (i = 0; i < header->records; i++) {
		r = record_decode(stored + table_end(i), header, &record);
		if (r != 0)
			return r;
		if (record_has_data(&record) &&
		    crc32c(0, unpacked + record.data_off, record.length_bytes) != record.data_crc)
			return SEGMENT_E_DATA_CRC;
	}
	return 0;
}

const char *segment_condition_text(int condition)
{
	switch ((enum segment_condition)condition) {
	case SEGMENT_E_SHORT:
		return "cut short";
	case SEGMENT_E_MAGIC:
		return "not a segment";
	case SEGMENT_E_VERSION:
		return "written by a newer version";
	case SEGMENT_E_HEADER_CRC:
		return "checksum of the header is wrong";
	case SEGMENT_E_FIELD:
		return "a field is outside its limits or padding is not zero";
	case SEGMENT_E_PAYLOAD_CRC:
		return "checksum of the payload is wrong";
	case SEGMENT_E_RECORD:
		return "a record is outside its segment or its limits";
	case SEGMENT_E_LZ4:
		return "data does not unpack to its length";
	case SEGMENT_E_DATA_CRC:
		return "checksum of a record's data is wrong";
	}
	return "unknown condition";
}
