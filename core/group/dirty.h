/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty map: which ranges of the group's volumes a follower does not have and the journal no longer serves.
 *
 * One bit per chunk; the chunk size is chosen per volume so that its bitmap stays within DIRTY_BITS_MAX. The file
 * dirty.NODE holds a header (magic, version, group uuid, volumes with size and chunk, CRC) and the bitmaps in
 * 4096-byte pages, each with its own checksum (8 bytes CRC + page number in the page). Setting is persisted (dirty_save) before the journal lets go of the records;
 * clearing may be lost: then ranges are sent again.
 *
 * Invariant D1: after a crash, every range set before the last completed dirty_save, and not cleared since,
 * is set. A damaged page reads as all dirty; a damaged or missing file is an error of its own (all dirty).
 *
 * Owner: the group's loop thread.
 */
#ifndef HOLDFAST_CORE_GROUP_DIRTY_H
#define HOLDFAST_CORE_GROUP_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/io/io.h"
#include "proto/superblock.h"

#define DIRTY_CHUNK_MIN_BYTES (64u << 10)
#define DIRTY_BITS_MAX (1u << 25)

struct dirty_map;

/* Memory for the superblock's volumes. */
int dirty_new(struct io *io, const char *path, const struct superblock *sb, struct dirty_map **ret_map);
struct dirty_map *dirty_free(struct dirty_map *map);
/* Loads the file. 0; -ENOENT none; positive 1: damaged or of other volumes (then everything is set). */
void dirty_load(struct dirty_map *map, struct io_op *op);
/* Makes the file anew with what is set in memory now, durably. */
void dirty_create(struct dirty_map *map, struct io_op *op);
/* Writes changed pages, then flushes. One at a time. Changes made meanwhile need another save. */
void dirty_save(struct dirty_map *map, struct io_op *op);
/* Removes the file. */
int dirty_remove(struct dirty_map *map);

void dirty_set(struct dirty_map *map, unsigned volume_id, uint64_t off, uint64_t len);
void dirty_set_all(struct dirty_map *map);
/* Clears chunks that lie wholly inside the range. */
void dirty_clear(struct dirty_map *map, unsigned volume_id, uint64_t off, uint64_t len);
/* The first run of dirty chunks at or behind `off`, at most `max` bytes, clipped to the volume. False: none. */
bool dirty_next(const struct dirty_map *map, unsigned volume_id, uint64_t off, uint64_t max,
		uint64_t *ret_off, uint64_t *ret_len);
uint64_t dirty_bytes(const struct dirty_map *map);
uint64_t dirty_chunk_bytes(const struct dirty_map *map, unsigned volume_id);

#endif
