/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The group directory STATE_DIR/GROUP: lock, superblock, and where the rest lies.
 *
 *   lock          exclusive: whoever holds it owns the group on this host
 *   superblock    two slots (proto/superblock.h)
 *   journal/      slot files
 *   dirty.NODE    dirty map of a standby (primary only)
 *
 * Owner: the group's loop thread.
 */
#ifndef HOLDFAST_CORE_GROUP_GROUP_DIR_H
#define HOLDFAST_CORE_GROUP_GROUP_DIR_H

#include <stdbool.h>

#include "core/group/journal.h"
#include "core/io/io.h"
#include "proto/superblock.h"

#define GROUP_PATH_MAX 1024u

struct group_dir {
	struct io *io;
	char path[GROUP_PATH_MAX];
	struct io_lock *lock;
	struct io_file *file;
	struct superblock sb;	      /* the owner changes it in memory, then stores it */
	unsigned slot;		      /* slot that holds the durable one */
	uint8_t *buf;		      /* SUPERBLOCK_FILE_BYTES, aligned */
	bool storing, again;	      /* one write at a time; later callers share the next one */
	struct list waiting, writing; /* of struct group_dir_store */
	struct io_op op;
	struct io_op *user; /* of open and peek */
	bool peeking;
	unsigned tries;
	int failed; /* a store failed: every later one does too */
};

struct group_dir_store { /* one caller's wait; embedded in its owner */
	struct list link;
	struct io_op *op;
};

/* Memory only. -EINVAL: no valid name of a group; -ENAMETOOLONG; -ENOMEM. */
int group_dir_init(struct group_dir *dir, struct io *io, const char *state_dir, const char *group);
/* Locks and reads. 0; SUPERBLOCK_E_* (positive); -EWOULDBLOCK somebody owns it; -ENOENT no such
 * group; other errno. Unless 0, the lock is free again and nothing is open. */
void group_dir_open(struct group_dir *dir, struct io_op *op);
/* Reads the superblock without locking (to answer by role and epoch). Same results; nothing stays
 * open. */
void group_dir_peek(struct group_dir *dir, struct io_op *op);
/* Completes when the superblock as it is at this call (or a later one) is durable. A failed store
 * is final: it is not known which of the two is on the disk, so every later one fails as well. */
void group_dir_store(struct group_dir *dir, struct group_dir_store *store, struct io_op *op);
/* Nothing in flight. Unlocks. */
void group_dir_close(struct group_dir *dir);
void group_dir_deinit(struct group_dir *dir);

/* NULL: no such volume. */
struct superblock_volume *group_dir_volume(struct group_dir *dir, const char *name);
/* The entry of a standby, made when missing; NULL when the table is full or `node` is no valid
 * name. */
struct superblock_peer *group_dir_peer(struct group_dir *dir, const char *node);
/* What a checkpoint at `at` means for the superblock (applied_* fields). */
void group_dir_set_applied(struct group_dir *dir, const struct journal_position *at);
void group_dir_get_applied(const struct group_dir *dir, struct journal_position *ret_at);
/* True when another copy (its history, its last seq) is a prefix of ours: it does not reach beyond
 * our last seq, and up to its own each seq was written under the same epoch. Epochs in which
 * nothing was written up to there do not count, and what lies before the oldest epoch that both
 * still know is taken for the same. */
bool history_is_prefix(const struct history_entry *ours, unsigned our_count, uint64_t our_seq,
		       const struct history_entry *theirs, unsigned their_count,
		       uint64_t their_seq);

/* The last seq up to which both copies (history, last seq of each) hold what was written under the
 * same epochs: history_common() == their_seq says that theirs is a prefix of ours. Two writers of
 * one epoch look the same here; the chain values at that seq tell them apart. */
uint64_t history_common(const struct history_entry *ours, unsigned our_count, uint64_t our_seq,
			const struct history_entry *theirs, unsigned their_count,
			uint64_t their_seq);

#endif
