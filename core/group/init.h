/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a new group directory (holdfast init): journal files first, the superblock last, so that an
 * interrupted init is no group and can simply be run again.
 *
 * Both slots of the superblock are written, one after the other: a file in which one is still empty
 * and the other one not valid comes from an interrupted init; any other file that holds no valid
 * superblock is a damaged group, and is not touched.
 *
 * Owner: the thread of `io`. Everything that the structure points at is borrowed until completion.
 */
#ifndef HOLDFAST_CORE_GROUP_INIT_H
#define HOLDFAST_CORE_GROUP_INIT_H

#include <stddef.h>
#include <stdint.h>

#include "core/io/io.h"
#include "proto/superblock.h"

#define GROUP_INIT_FILES_MIN 2u

struct group_init_volume {
	const char *name;
	const char *path; /* must exist; its size becomes the volume's, rounded down to 4096 */
};

struct group_init {
	struct io *io;
	const char *state_dir, *group;
	enum group_role role; /* PRIMARY: a new group uuid; STANDBY: learns it from its primary */
	uint64_t journal_file_bytes; /* multiple of 4096, at least SEGMENT_TOTAL_MAX_BYTES */
	uint32_t journal_files;	     /* at least GROUP_INIT_FILES_MIN */
	const struct group_init_volume *volumes; /* ids are given out in this order, from 0 */
	unsigned volume_count;
	/* May be NULL. Called from within group_init_run() too. */
	void (*progress)(void *owner, uint64_t done_bytes, uint64_t total_bytes);
	void *owner;
	/* out */
	struct superblock *sb; /* caller's memory; what was written */
	char error[512];
	/* internal */
	uint32_t next_file;
	unsigned next_slot;
	struct io_lock *lock;
	struct io_file *file;
	uint8_t *buf;
	struct io_op op;
	struct io_op *user;
};

/* 0; -EEXIST there is a group already; -EWOULDBLOCK somebody works on it; -EINVAL; other errno;
 * `error` says what, where, what to do. A failed init leaves no journal files behind. */
void group_init_run(struct group_init *init, struct io_op *op);

#endif
