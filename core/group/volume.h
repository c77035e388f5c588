/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The volumes of a group on this host: the files or devices that hold their content, used as they
 * are.
 *
 * Owner: the group's loop thread. Whoever writes to a volume's file sets `dirty`.
 */
#ifndef HOLDFAST_CORE_GROUP_VOLUME_H
#define HOLDFAST_CORE_GROUP_VOLUME_H

#include <stdbool.h>
#include <stdint.h>

#include "core/io/io.h"
#include "proto/superblock.h"

/*
 * Extent maps over all volumes of a group key a byte by its volume's id and its offset in one u64,
 * so a volume is at most 256 TiB long, and its id at most VOLUME_ID_MAX.
 */
#define VOLUME_KEY_SHIFT     48u
#define VOLUME_KEY_BYTES_MAX (1ull << VOLUME_KEY_SHIFT)
#define VOLUME_ID_MAX	     ((1u << (62u - VOLUME_KEY_SHIFT)) - 1)

struct volumes;

struct volume {
	struct superblock_volume id; /* id, uuid, name, size as the group knows them */
	char path[512];
	struct io_file *file;
	struct io_file_info info;
	bool dirty; /* a write completed since its last flush was submitted */
	/* volumes_flush()'s */
	struct volumes *volumes;
	struct io_op flush_op;
};

struct volumes {
	struct io *io;
	struct volume *list;
	unsigned count;
	/* flush of all */
	struct io_op *flush_user;
	unsigned flush_left;
	int flush_res; /* a failure stays */
};

struct volume_path {
	const char *name, *path;
};

/*
 * Opens the volumes that the superblock names at the paths given (direct, exclusive). A volume
 * without a path, a path that is missing or is used twice, or one smaller than the volume is an
 * error; `error` says what, where, and what to do. On an error nothing stays open.
 */
int volumes_open(struct volumes *volumes, struct io *io, const struct superblock *sb,
		 const struct volume_path *paths, unsigned path_count, char *error,
		 size_t error_max);
/* Nothing in flight. Zeroed or closed volumes may be closed again. */
void volumes_close(struct volumes *volumes);
struct volume *volumes_by_id(struct volumes *volumes, unsigned id); /* NULL: unknown */
/* Flushes every dirty volume. One at a time. Afterwards all writes completed before the call are
 * durable. On failure nothing is known about what was written since the last good one, so every
 * later flush fails too. */
void volumes_flush(struct volumes *volumes, struct io_op *op);
/*
 * Opens one volume's file or device the way volumes_open() does, for whoever only wants to know it
 * (init, doctor): `error` says what is wrong. The caller closes it.
 */
int volume_open_path(struct io *io, const char *name, const char *path, struct io_file **ret_file,
		     struct io_file_info *ret_info, char *error, size_t error_max);

#endif
