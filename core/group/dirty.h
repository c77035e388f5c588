/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty map: which ranges of the group's volumes a follower does not have and the journal no longer
 * serves.
 *
 * One bit per chunk; the chunk size is chosen per volume so that its bitmap stays within
 * DIRTY_BITS_MAX. The file dirty.NODE holds a header (magic, version, group uuid, volumes with size
 * and chunk, CRC) and the bitmaps in 4096-byte pages, each with its own checksum and number. The
 * header's salt is in each page's checksum, so that pages of different files never pass for each
 * other. Setting is persisted (dirty_save) before the journal lets go of the records; clearing may
 * be lost: then ranges are sent again.
 *
 *   header  8192 bytes   magic u32, version u32, group uuid, salt u64, pages u32, volumes u32,
 * reserved, 128 volumes from byte 2048: id u16, reserved 6 B, size u64, chunk u64, uuid; CRC32C of
 * all of it in the last 4 bytes pages   4096 bytes   CRC32C u32, page number u32, 511 words of 64
 * bits; each volume begins a page; bits behind a volume's end are zero
 *
 * Invariant D1: after a crash, every range set before the last completed dirty_save, and not
 * cleared since, is set. A damaged page reads as all dirty; a damaged file is an error of its own
 * (all dirty).
 *
 * Memory: one bit per chunk, that is 2 MiB per TiB of a volume, at most 4 MiB each, and 128 KiB.
 * Owner: the group's loop thread.
 */
#ifndef HOLDFAST_CORE_GROUP_DIRTY_H
#define HOLDFAST_CORE_GROUP_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/io/io.h"
#include "proto/superblock.h"

#define DIRTY_CHUNK_MIN_BYTES (64u << 10)
#define DIRTY_BITS_MAX	      (1u << 25)

struct dirty_map;

/* Memory for the superblock's volumes; nothing is set. -ENOMEM, -ENAMETOOLONG. */
int dirty_new(struct io *io, const char *path, const struct superblock *sb,
	      struct dirty_map **ret_map);
/* One for the superblock's volumes as they are now, of which some have grown; what is set in `map`
 * is set in it, and not in a file yet: the old file loads as one of other volumes. -ENOMEM. */
int dirty_regrow(const struct dirty_map *map, const struct superblock *sb,
		 struct dirty_map **ret_map);
/* Nothing in flight. NULL is allowed; returns NULL. */
struct dirty_map *dirty_free(struct dirty_map *map);
/*
 * Loads the file, in place of what is set in memory. 0; -ENOENT there is none (memory is as it
 * was); positive 1: damaged or of other volumes (then everything is set, and dirty_create() has to
 * come before dirty_save()); other errno from opening.
 */
void dirty_load(struct dirty_map *map, struct io_op *op);
/* Makes the file anew with what is set in memory now, durably. After a crash within, or a failure,
 * there is a file that loads as damaged or as the old one. */
void dirty_create(struct dirty_map *map, struct io_op *op);
/* Writes changed pages, then flushes. Changes made meanwhile need another save. A failure is final
 * until dirty_create() makes a new file. */
void dirty_save(struct dirty_map *map, struct io_op *op);
/* One of load, create and save at a time. Whether one is under way: */
bool dirty_busy(const struct dirty_map *map);
/* There is a file that dirty_save() can write to; else dirty_create() has to come first. */
bool dirty_has_file(const struct dirty_map *map);
/* Removes the file; a missing one is no error. */
int dirty_remove(struct dirty_map *map);

/* Ranges lie within their volume, which is one of the map's: the caller's to see to. */
void dirty_set(struct dirty_map *map, unsigned volume_id, uint64_t off, uint64_t len);
void dirty_set_all(struct dirty_map *map);
/* Clears chunks that lie wholly inside the range. The last chunk ends with the volume. */
void dirty_clear(struct dirty_map *map, unsigned volume_id, uint64_t off, uint64_t len);
/*
 * The first run of dirty bytes at or behind `off`, at most `max` bytes, clipped to the volume. It
 * begins at `off` where that lies inside a dirty chunk, so a run may be taken piece by piece.
 * False: none.
 */
bool dirty_next(const struct dirty_map *map, unsigned volume_id, uint64_t off, uint64_t max,
		uint64_t *ret_off, uint64_t *ret_len);
uint64_t dirty_bytes(const struct dirty_map *map);
uint64_t dirty_chunk_bytes(const struct dirty_map *map, unsigned volume_id);

#endif
