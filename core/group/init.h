/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a new group directory (holdfast init): journal files first, the superblock last, so that an
 * interrupted init is no group.
 */
#ifndef HOLDFAST_CORE_GROUP_INIT_H
#define HOLDFAST_CORE_GROUP_INIT_H

#include <stddef.h>
#include <stdint.h>

#include "core/io/io.h"
#include "proto/superblock.h"

struct group_init_volume {
	const char *name;
	const char *path; /* must exist; its size becomes the volume's, rounded down to 4096 */
};

struct group_init {
	struct io *io;
	const char *state_dir, *group;
	enum group_role role; /* PRIMARY: a new group uuid; STANDBY: learns it from its primary */
	uint64_t journal_file_bytes;
	uint32_t journal_files;
	const struct group_init_volume *volumes;
	unsigned volume_count;
	void (*progress)(void *owner, uint64_t done_bytes, uint64_t total_bytes); /* may be NULL */
	void *owner;
	/* out */
	struct superblock *sb; /* caller's memory; what was written */
	char error[512];
	/* internal */
	uint32_t next_file;
	struct io_file *file;
	uint8_t *buf;
	struct io_op op;
	struct io_op *user;
};

/* 0; -EEXIST there is a group already; other errno; `error` says what, where, what to do. */
void group_init_run(struct group_init *init, struct io_op *op);

#endif
