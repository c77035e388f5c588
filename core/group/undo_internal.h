/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the undo log share. Owner: the group's loop thread.
 *
 *   undo.c        life, bits, begin and end, removing of files
 *   undo_write.c  a run: chunks are read, become segments, are written and flushed (U1, U2, U5)
 *   undo_open.c   after a restart: finds the log's end (U3)
 *   undo_back.c   checks the log as a whole, writes it back (U3, U4)
 *
 * Two bitmaps for each volume: `wanted` is what was added and is not saved, `saved` what is durable
 * in the log. A run walks `wanted` in order; what lies between two places of that walk becomes
 * saved when the flush that covers its segments has completed. So a run that fails, or finds no
 * room, leaves nothing half done: what is not saved is still wanted.
 */
#ifndef HOLDFAST_CORE_GROUP_UNDO_INTERNAL_H
#define HOLDFAST_CORE_GROUP_UNDO_INTERNAL_H

#include "core/base/bitmap.h"
#include "core/group/group_dir.h"
#include "core/group/undo.h"
#include "proto/segment.h"

#define UNDO_SLOTS	    2u
#define UNDO_TRANSFERS_MAX  32u	       /* reads of a slot, writes of a roll back */
#define UNDO_BITS_MAX	    (1u << 25) /* of a volume, as long as chunks can grow */
#define UNDO_CHUNK_MAX	    SEGMENT_DATA_MAX_BYTES
#define UNDO_FILE_MIN_BYTES SEGMENT_TOTAL_MAX_BYTES /* any segment fits */
#define UNDO_FILE_1_BYTES   (4u << 20)		    /* the first file; each next one is twice it */
#define UNDO_FILE_MAX_BYTES (1u << 30)
#define UNDO_PATH_MAX	    (GROUP_PATH_MAX + 24u)
#define UNDO_ALIGN_BYTES    512u /* of what is read from and written to volumes */

struct undo_volume {
	unsigned id;
	uint64_t size_bytes; /* of what lies under it, in whole sectors */
	uint64_t chunk_bytes;
	struct bitmap saved, wanted;
	uint64_t low, high; /* what is wanted lies in [low, high); both 0: nothing is */
};

/* Between two segments of the log. */
struct undo_place {
	uint64_t seq;	       /* of the first record behind it */
	uint64_t chain;	       /* that the segment there carries */
	uint64_t volume_bytes; /* sum of all lengths before it */
	uint64_t log_bytes;    /* of all segments before it */
	uint32_t file;	       /* number, from 1; 0: there is none yet */
	uint64_t off;
};

/* Of the walk through what is wanted. */
struct undo_cursor {
	unsigned volume; /* index */
	uint64_t chunk;
};

enum undo_slot_state {
	UNDO_SLOT_IDLE,
	UNDO_SLOT_READING,
	UNDO_SLOT_READY,  /* read, not yet written: waits for its turn, or for a file */
	UNDO_SLOT_WRITING /* `undo` counts writes in flight */
};

/* A range of a volume on its way. */
struct undo_transfer {
	struct io_op op;
	struct undo_slot *slot;
	struct volume *volume;
	unsigned index; /* of undo->volumes */
	uint64_t off;
	uint32_t len, data_off;
};

struct undo_slot {
	struct undo *undo;
	enum undo_slot_state state;
	uint8_t *block;	 /* head space and data, SEGMENT_TOTAL_MAX_BYTES; what is read of the log */
	uint8_t *packed; /* LZ4 form; what was packed in the log; SEGMENT_TOTAL_MAX_BYTES */
	struct undo_transfer transfers[UNDO_TRANSFERS_MAX];
	unsigned transfer_count, in_flight;
	uint32_t data_bytes;
	struct undo_cursor end; /* of the walk, behind what this slot holds */
	struct segment_header header;
	uint8_t *stored; /* sealed: where its segment is */
	struct io_op op; /* its write */
	uint8_t table[SEGMENT_RECORDS_MAX * RECORD_BYTES];
};

struct undo {
	struct io *io;
	struct undo_options options;
	char dir[GROUP_PATH_MAX];
	struct undo_volume *volumes;
	unsigned volume_count;
	uint64_t *words;
	struct undo_slot *slots; /* UNDO_SLOTS */
	char error[256];

	bool open;
	struct uuid group;
	uint64_t id, writer;
	struct io_file *file; /* `placed.file` */
	uint64_t file_bytes;
	uint64_t files_bytes; /* of all files of the log */
	struct undo_place placed, durable;
	int failed; /* the log's file refused a write: nothing is known about it any more */
	bool full;

	/* the operation under way: begin, open, run, check, roll back */
	struct io_op *user;
	struct io_op op;
	int res;
	bool cancelled;

	/* run */
	struct undo_cursor walk;      /* the next slot takes from here */
	struct undo_cursor placed_to; /* what is wanted up to here is in segments that are placed */
	bool walked;		      /* nothing is wanted behind `walk` */
	bool unflushed;		      /* placed is more than durable */
	bool file_busy;		      /* a flush, or the making of a file, is under way */
	unsigned fill_slot, seal_slot, writes_in_flight;
	uint64_t try_bytes; /* size of the file that is being made */

	/* open */
	struct undo_scan {
		struct undo_place at;
		uint64_t known_bytes;
		struct io_file *file;
		uint32_t file_number, stop_file;
		uint64_t off, size_bytes, len, stop_off, probe_end;
		unsigned tries;
		bool whole, flush; /* read whole; the file needs a flush */
	} scan;

	/* check, roll back */
	struct undo_back {
		struct undo_place at, gap; /* gap: where the file before ended */
		struct io_file *file;
		uint64_t size_bytes, len, used; /* window in slots[0].block, from `at` - used */
		uint64_t done_bytes, total_bytes;
		const uint8_t *segment, *data; /* in the window, unpacked */
		struct segment_header header;
		uint32_t record;
		unsigned tries;
		bool write, write_next;
	} back;
	bool checked; /* whole, and nothing was saved since */

	/* removing */
	struct io_op remove_op;
	uint32_t remove_number; /* 0: none is under way */
	char remove_path[UNDO_PATH_MAX];
};

/* undo.c */
void undo_finish(struct undo *undo, int64_t res);
__attribute__((format(printf, 2, 3))) void undo_say(struct undo *undo, const char *format, ...);
void undo_path(const struct undo *undo, uint32_t number, char path[UNDO_PATH_MAX]);
struct undo_volume *undo_volume(struct undo *undo, unsigned id); /* NULL: not one of ours */
void undo_start_at(struct undo *undo, uint64_t id);		 /* an empty log in memory */
struct undo_place undo_root(const struct undo *undo);
/* It is the segment that belongs to `at`, and one of this log. */
bool undo_continues(const struct undo *undo, const struct undo_place *at,
		    const struct segment_header *header);
void undo_advance(struct undo_place *at, const struct segment_header *header,
		  const uint8_t *header_bytes);

#endif
