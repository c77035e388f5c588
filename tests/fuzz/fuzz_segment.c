/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment from outside. The first byte of an input says which checksums are made right before it
 * is read (1: header, 2: payload), since guessing them is no test. What is accepted encodes to the
 * same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/crc32c.h"
#include "core/base/must.h"
#include "proto/format.h"
#include "tests/fuzz/fuzz.h"

static void mend(uint8_t *bytes, size_t len, uint8_t mode)
{
	struct segment_header_le *le = (struct segment_header_le *)(void *)bytes;
	uint64_t table_bytes, data_off, data_bytes;
	uint32_t crc;

	if (len < sizeof(*le))
		return;
	table_bytes = (uint64_t)le32_get(le->records) * RECORD_BYTES;
	data_off = le32_get(le->data_off);
	data_bytes = le32_get(le->data_stored_bytes);
	if ((mode & 2) && table_bytes <= len - sizeof(*le) && data_off <= len &&
	    data_bytes <= len - data_off) {
		crc = crc32c((uint32_t)le64_get(le->chain), bytes + sizeof(*le), table_bytes);
		le->payload_crc = le32_of(crc32c(crc, bytes + data_off, data_bytes));
	}
	if (mode & 1)
		le->header_crc =
			le32_of(crc32c(0, le, offsetof(struct segment_header_le, header_crc)));
}

static void check_again(const uint8_t *bytes, const struct segment_header *header)
{
	uint8_t again[SEGMENT_HEADER_BYTES];
	struct record record;
	uint32_t i;

	segment_header_encode(header, again);
	must(memcmp(again, bytes, sizeof(again)) == 0);
	for (i = 0; i < header->records; i++) {
		const uint8_t *row = bytes + SEGMENT_HEADER_BYTES + i * RECORD_BYTES;

		must(record_decode(row, header, &record) == 0);
		record_encode(&record, again);
		must(memcmp(again, row, RECORD_BYTES) == 0);
	}
}

/* The entry of a volume, where its bytes came through whole. */
static void check_volume(const uint8_t *row, const struct segment_header *header,
			 const uint8_t *data)
{
	uint8_t again[RECORD_VOLUME_BYTES];
	struct superblock_volume volume;
	struct record record;

	must(record_decode(row, header, &record) == 0);
	if (record.type != RECORD_VOLUME ||
	    record_volume_decode(data + record.data_off, &volume) != 0)
		return;
	record_volume_encode(&volume, again);
	must(memcmp(again, data + record.data_off, sizeof(again)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct segment_header header;
	uint8_t *bytes, *data;
	size_t len;

	if (size < 1 || size > 1 + SEGMENT_TOTAL_MAX_BYTES)
		return 0;
	len = size - 1;
	bytes = malloc(len + !len);
	must(bytes != NULL);
	memcpy(bytes, input + 1, len);
	mend(bytes, len, input[0]);
	if (segment_header_decode(bytes, len, &header) == 0 &&
	    segment_verify(bytes, len, &header) == 0) {
		check_again(bytes, &header);
		data = malloc(header.data_raw_bytes + !header.data_raw_bytes);
		must(data != NULL);
		if (segment_unpack(bytes, &header, data) == 0)
			check_volume(bytes + SEGMENT_HEADER_BYTES, &header, data);
		if (!(header.flags & SEGMENT_LZ4))
			(void)segment_unpack(bytes, &header, NULL);
		free(data);
	}
	free(bytes);
	return 0;
}
