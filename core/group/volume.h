/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The volumes of a group on this host: the files or devices that hold their content, used as they are.
 */
#ifndef HOLDFAST_CORE_GROUP_VOLUME_H
#define HOLDFAST_CORE_GROUP_VOLUME_H

#include <stdbool.h>
#include <stdint.h>

#include "core/io/io.h"
#include "proto/superblock.h"

struct volume {
	struct superblock_volume id; /* id, uuid, name, size as the group knows them */
	char path[512];
	struct io_file *file;
	struct io_file_info info;
	bool dirty; /* written since its last flush was submitted */
};

struct volumes {
	struct io *io;
	struct volume *list;
	unsigned count;
	/* flush of all */
	struct io_op *flush_ops; /* one per volume */
	struct io_op *flush_user;
	unsigned flush_left;
	int flush_res;
};

struct volume_path {
	const char *name, *path;
};

/* Opens the volumes that the superblock names at the paths given (direct, exclusive). A volume without a path, a path
 * that is missing, or one smaller than the volume is an error with text. */
int volumes_open(struct volumes *volumes, struct io *io, const struct superblock *sb,
		 const struct volume_path *paths, unsigned path_count, char *error, size_t error_max);
void volumes_close(struct volumes *volumes);
struct volume *volumes_by_id(struct volumes *volumes, unsigned id); /* NULL: unknown */
/* Flushes every dirty volume. One at a time. Afterwards all writes completed before the call are durable. On failure
 * (-EIO) nothing is known about what was written since the last good one. */
void volumes_flush(struct volumes *volumes, struct io_op *op);

#endif
