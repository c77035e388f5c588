/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments and records: the one format of the journal on disk and of the stream on the wire.
 *
 *   +--------------------+ 0
 *   | header      128 B  |   little endian, own CRC32C
 *   +--------------------+ 128
 *   | record table       |   records x 32 B, never compressed: tools and followers can see what a
 *   |                    |   segment touches without unpacking it
 *   +--------------------+ data_off   (LZ4: right behind the table; raw: next multiple of 4096, so
 *   | data               |             that direct I/O can go straight from the stored bytes)
 *   |                    |   data_stored bytes: one LZ4 block, or the raw bytes
 *   +--------------------+ data_off + data_stored
 *   | zero padding       |   to a multiple of 4096
 *   +--------------------+ total
 *
 * Record i of a segment has seq first_seq + i; there are no gaps. The data area, unpacked, is the
 * concatenation of the records' data. `chain` is the XXH3-64 of the whole previous header, so a
 * header names its entire past: two histories that agree at one chain value agree on everything
 * before it. Bytes that a recycled file still holds never pass for new ones: they do not continue
 * the chain.
 *
 * Pure codec: no I/O, no allocation, any thread.
 */
#ifndef HOLDFAST_PROTO_SEGMENT_H
#define HOLDFAST_PROTO_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/uuid.h"

#define SEGMENT_MAGIC	     0x47534648u /* "HFSG" */
#define SEGMENT_VERSION	     1u
#define SEGMENT_HEADER_BYTES 128u
#define SEGMENT_ALIGN_BYTES  4096u
#define RECORD_BYTES	     32u
/* 16 KiB hold the header and a full table, so the data of a raw segment starts at most there. */
#define SEGMENT_RECORDS_MAX	((16384u - SEGMENT_HEADER_BYTES) / RECORD_BYTES) /* 508 */
#define SEGMENT_HEAD_MAX_BYTES	16384u
#define SEGMENT_DATA_MAX_BYTES	(1u << 20)
#define SEGMENT_TOTAL_MAX_BYTES (SEGMENT_HEAD_MAX_BYTES + SEGMENT_DATA_MAX_BYTES)
#define MARK_NAME_MAX		255u
#define VOLUME_BYTES_MAX	(1ull << 62) /* no range ends beyond */

enum segment_flags {
	SEGMENT_LZ4 = 1u << 0,	       /* data is one LZ4 block; without it the data is raw */
	SEGMENT_EPOCH_FIRST = 1u << 1, /* the first segment written under its epoch */
};

enum record_type {
	RECORD_WRITE = 1,
	RECORD_DISCARD = 2,	 /* range reads as zeroes afterwards, space may be freed */
	RECORD_WRITE_ZEROES = 3, /* range reads as zeroes afterwards */
	RECORD_MARK = 4, /* data = the mark's name, UTF-8, 1..255 bytes; no volume, no range */
	/*
	 * From here on the group has this volume, with this size (or, RECORD_GONE, has it no more).
	 * data = its entry as the superblock has it, RECORD_VOLUME_BYTES; `volume` is its id; no
	 * range. In a segment of its own.
	 */
	RECORD_VOLUME = 5,
};
#define RECORD_VOLUME_BYTES 96u

enum record_flags {
	RECORD_NO_HOLE = 1u << 0, /* write-zeroes: keep the range allocated */
	RECORD_FUA = 1u << 1,	  /* informative */
	RECORD_GONE = 1u << 2,	  /* VOLUME: removed */
};

struct record {
	uint8_t type;
	uint8_t flags;
	uint16_t volume;       /* the volume's id inside its group */
	uint32_t length_bytes; /* of the range; of the name for a mark */
	uint64_t offset_bytes; /* on the volume */
	uint32_t data_off;     /* in the unpacked data area; 0 without data */
	uint32_t data_crc;     /* CRC32C of the record's own data, end to end; 0 without data */
	uint32_t delta_us;     /* wall-clock time behind the segment's first_time, saturating */
};

struct segment_header {
	uint32_t flags;
	struct uuid group;
	uint64_t epoch;
	uint64_t first_seq;
	uint32_t records; /* 1..SEGMENT_RECORDS_MAX */
	uint32_t data_off;
	uint32_t data_stored_bytes;
	uint32_t data_raw_bytes;
	uint32_t total_bytes;		      /* with padding, multiple of SEGMENT_ALIGN_BYTES */
	uint64_t first_time_ns, last_time_ns; /* wall clock of the writer, ns since 1970 */
	uint64_t durable_seq; /* everything up to here was durable on the writer when this was
				 sealed */
	uint64_t bytes_end; /* sum of length_bytes of all records of the history up to the last here
			     */
	uint64_t chain;	    /* segment_chain() of the previous header; of the first:
			       segment_chain_root() */
	uint64_t writer;    /* random, new each time a writer opens the journal */
	uint32_t payload_crc; /* CRC32C of table and stored data, seeded with the low 32 bits of
				 chain */
	uint32_t header_crc;  /* as read; encode computes it */
};

enum segment_condition {     /* positive results: what is wrong with bytes from disk or wire */
	SEGMENT_E_SHORT = 1, /* fewer bytes than needed */
	SEGMENT_E_MAGIC,
	SEGMENT_E_VERSION,
	SEGMENT_E_HEADER_CRC,
	SEGMENT_E_FIELD, /* a field outside its limits, reserved bytes not zero */
	SEGMENT_E_PAYLOAD_CRC,
	SEGMENT_E_RECORD,   /* a record outside its segment or its limits */
	SEGMENT_E_LZ4,	    /* does not unpack to exactly data_raw_bytes */
	SEGMENT_E_DATA_CRC, /* a record's data does not match its CRC */
};
const char *segment_condition_text(int condition);

static inline uint64_t segment_last_seq(const struct segment_header *header)
{
	return header->first_seq + header->records - 1;
}

/* Encodes with the right header_crc. The caller filled every other field. */
void segment_header_encode(const struct segment_header *header, uint8_t out[SEGMENT_HEADER_BYTES]);
/* 0 or SEGMENT_E_*: every limit above is checked, after the CRC. */
int segment_header_decode(const uint8_t *bytes, size_t len, struct segment_header *ret_header);
/* The chain value that the next segment carries: XXH3-64 of the 128 encoded bytes. */
uint64_t segment_chain(const uint8_t header_bytes[SEGMENT_HEADER_BYTES]);
/* The chain value of a group's very first segment. */
uint64_t segment_chain_root(const struct uuid *group);

void record_encode(const struct record *record, uint8_t out[RECORD_BYTES]);
/* 0 or SEGMENT_E_RECORD. `header` bounds the data; volume ids and volume ranges are the caller's to
 * check (it knows the volumes). */
int record_decode(const uint8_t bytes[RECORD_BYTES], const struct segment_header *header,
		  struct record *ret_record);
static inline bool record_has_data(const struct record *record)
{
	return record->type == RECORD_WRITE || record->type == RECORD_MARK ||
	       record->type == RECORD_VOLUME;
}
/* It changes a range of a volume's content. */
static inline bool record_has_range(const struct record *record)
{
	return record->type != RECORD_MARK && record->type != RECORD_VOLUME;
}
struct superblock_volume;
/* The data of a VOLUME record. Decoding: 0, or SEGMENT_E_RECORD when it is no volume that can be.
 */
void record_volume_encode(const struct superblock_volume *volume, uint8_t out[RECORD_VOLUME_BYTES]);
int record_volume_decode(const uint8_t bytes[RECORD_VOLUME_BYTES],
			 struct superblock_volume *ret_volume);

/*
 * Builds the stored form in place. `stored` has room for SEGMENT_TOTAL_MAX_BYTES, 4096-aligned.
 * `table` are header->records encoded records, `data`/`header->data_raw_bytes` the data area. With
 * `compress`, LZ4 is tried and kept if the stored segment becomes shorter by at least one block.
 * Fills flags (SEGMENT_LZ4), data_off, data_stored_bytes, total_bytes, payload_crc, header_crc of
 * *header. In the raw case the bytes are copied; segment_seal_raw() below avoids that copy. Returns
 * true when the result is LZ4.
 */
bool segment_seal(struct segment_header *header, const uint8_t *table, const uint8_t *data,
		  uint8_t *stored);
/*
 * Tries only the LZ4 form; false (nothing valid in `stored`) where it does not save a block.
 */
bool segment_seal_lz4(struct segment_header *header, const uint8_t *table, const uint8_t *data,
		      uint8_t *stored);
/*
 * Raw form without a copy: `data` is preceded by SEGMENT_HEAD_MAX_BYTES of writable space in the
 * same 4096-aligned buffer. Header and table are put right-aligned in front of the data; the stored
 * form starts at the returned pointer, header->total_bytes long (the padding behind the data is
 * zeroed).
 */
uint8_t *segment_seal_raw(struct segment_header *header, const uint8_t *table, uint8_t *data);

/* Checks table and data CRC and every record against the header. `stored` has header->total_bytes.
 * 0 or SEGMENT_E_*. Does not unpack. */
int segment_verify(const uint8_t *stored, size_t len, const struct segment_header *header);
/*
 * Unpacks the data area into `data` (room for header->data_raw_bytes) and checks every record's
 * data_crc. For raw segments `data` may be NULL: only the CRCs are checked, and the bytes are where
 * they are: stored + header->data_off. 0 or SEGMENT_E_*.
 */
int segment_unpack(const uint8_t *stored, const struct segment_header *header, uint8_t *data);

#endif
