/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What dirty.c (the bits) and dirty_file.c (the file) share. Private to the two.
 *
 * The bitmaps of all volumes are one array of words, and a page of the file holds DIRTY_PAGE_WORDS
 * of them: page p of a volume is words p * DIRTY_PAGE_WORDS .. of that volume. `changed` has one
 * bit per page of the whole file.
 */
#ifndef HOLDFAST_CORE_GROUP_DIRTY_INTERNAL_H
#define HOLDFAST_CORE_GROUP_DIRTY_INTERNAL_H

#include "core/base/bitmap.h"
#include "core/group/dirty.h"
#include "core/group/group_dir.h"

#define DIRTY_PAGE_BYTES      4096u
#define DIRTY_PAGE_HEAD_BYTES 8u
#define DIRTY_PAGE_WORDS      ((DIRTY_PAGE_BYTES - DIRTY_PAGE_HEAD_BYTES) / 8u) /* 511 */
#define DIRTY_PAGE_BITS	      (DIRTY_PAGE_WORDS * 64u)
#define DIRTY_BATCH_PAGES     32u

struct dirty_volume {
	struct superblock_volume id;
	uint64_t chunk_bytes;
	struct bitmap bits;
	uint64_t count; /* bits set */
	uint32_t first_page, pages;
};

struct dirty_map {
	struct io *io;
	char path[GROUP_PATH_MAX];
	struct uuid group;
	struct dirty_volume *volumes;
	unsigned volume_count;
	uint64_t *words;
	struct bitmap changed;
	uint32_t pages;
	uint32_t salt; /* seed of the pages' checksums: the header's own */
	struct io_file *file;
	uint8_t *buf; /* BATCH_PAGES pages */
	/* the operation under way */
	struct io_op op;
	struct io_op *user;
	uint32_t next_page, batch_pages;
	int failed;
};

/* Sets or clears bits, with what hangs on them: the count, and the pages that have to be written.
 */
void dirty_change(struct dirty_map *map, struct dirty_volume *volume, uint64_t first,
		  uint64_t count, bool set);
/* dirty_file.c: the file is closed, nothing is in flight. */
void dirty_close(struct dirty_map *map);

#endif
