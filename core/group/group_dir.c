/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/group_dir.h"

#include <stdio.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/macros.h"

/* A reader without the lock can meet a write in each slot; a second look finds one whole. */
#define PEEK_TRIES 4u

static int group_dir_file_path(const struct group_dir *dir, const char *name,
			       char path[GROUP_PATH_MAX])
{
	int len = snprintf(path, GROUP_PATH_MAX, "%s/%s", dir->path, name);

	return len < 0 || (size_t)len >= GROUP_PATH_MAX ? -ENAMETOOLONG : 0;
}

int group_dir_init(struct group_dir *dir, struct io *io, const char *state_dir, const char *group)
{
	int len;

	memset(dir, 0, sizeof(*dir));
	if (!group_name_valid(group))
		return -EINVAL;
	len = snprintf(dir->path, sizeof(dir->path), "%s/%s", state_dir, group);
	if (len < 0 || (size_t)len >= sizeof(dir->path))
		return -ENAMETOOLONG;
	dir->buf = io_alloc(io, SUPERBLOCK_FILE_BYTES, 4096);
	if (!dir->buf)
		return -ENOMEM;
	dir->io = io;
	list_init(&dir->waiting);
	list_init(&dir->writing);
	return 0;
}

void group_dir_deinit(struct group_dir *dir)
{
	if (!dir->buf)
		return;
	group_dir_close(dir);
	io_free(dir->io, dir->buf);
	dir->buf = NULL;
}

void group_dir_close(struct group_dir *dir)
{
	must(!dir->storing && !dir->user);
	io_file_close(dir->file);
	dir->file = NULL;
	if (dir->lock)
		io_unlock(dir->lock);
	dir->lock = NULL;
}

/* ---- opening ---------------------------------------------------------------------------- */

static void group_dir_opened(struct group_dir *dir, int64_t res)
{
	struct io_op *user = dir->user;

	dir->user = NULL;
	if (res != 0 || dir->peeking)
		group_dir_close(dir);
	user->done(user, res);
}

static void group_dir_read(struct group_dir *dir)
{
	io_read(dir->file, dir->buf, SUPERBLOCK_FILE_BYTES, 0, &dir->op);
}

static void group_dir_flushed(struct io_op *op, int64_t res)
{
	group_dir_opened(container_of(op, struct group_dir, op), res < 0 ? res : 0);
}

static void group_dir_read_done(struct io_op *op, int64_t res)
{
	struct group_dir *dir = container_of(op, struct group_dir, op);

	if (res >= 0) {
		res = superblock_choose(dir->buf, &dir->sb, &dir->slot);
		if (res == SUPERBLOCK_E_NONE_VALID && dir->peeking && ++dir->tries < PEEK_TRIES) {
			group_dir_read(dir);
			return;
		}
	}
	if (res == 0 && !dir->peeking) {
		/* A killed process may have left this copy in a cache only. The next store goes
		 * over the other one: until then this one has to be on the disk. */
		dir->op.done = group_dir_flushed;
		io_flush(dir->file, &dir->op);
		return;
	}
	group_dir_opened(dir, res);
}

static void group_dir_refused(struct io_op *op, int64_t res)
{
	group_dir_opened(container_of(op, struct group_dir, op), res);
}

/* 0: the superblock's file is open and long enough to be read. */
static int group_dir_open_file(struct group_dir *dir, unsigned flags)
{
	char path[GROUP_PATH_MAX];
	struct io_file_info info;
	int res = group_dir_file_path(dir, "superblock", path);

	if (res == 0)
		res = io_file_open(dir->io, path, flags, &dir->file);
	if (res != 0)
		return res;
	io_file_info(dir->file, &info);
	return info.size_bytes < SUPERBLOCK_FILE_BYTES ? SUPERBLOCK_E_NONE_VALID : 0;
}

static void group_dir_begin(struct group_dir *dir, int res, struct io_op *op)
{
	dir->user = op;
	dir->tries = 0;
	if (res == 0) {
		dir->op.done = group_dir_read_done;
		group_dir_read(dir);
		return;
	}
	dir->op.done = group_dir_refused;
	io_defer(dir->io, &dir->op, res);
}

void group_dir_open(struct group_dir *dir, struct io_op *op)
{
	char path[GROUP_PATH_MAX];
	int res;

	must(!dir->file && !dir->lock && !dir->user);
	dir->peeking = false;
	dir->failed = 0;
	res = group_dir_file_path(dir, "lock", path);
	if (res == 0)
		res = io_lock(dir->io, path, &dir->lock);
	if (res == 0)
		res = group_dir_open_file(dir, IO_OPEN_DIRECT);
	group_dir_begin(dir, res, op);
}

void group_dir_peek(struct group_dir *dir, struct io_op *op)
{
	must(!dir->file && !dir->lock && !dir->user);
	dir->peeking = true;
	group_dir_begin(dir, group_dir_open_file(dir, IO_OPEN_DIRECT | IO_OPEN_READ_ONLY), op);
}

/* ---- storing ---------------------------------------------------------------------------- */

static void group_dir_stored(struct io_op *op, int64_t res);

static void group_dir_write(struct group_dir *dir)
{
	unsigned slot = 1 - dir->slot;
	uint8_t *bytes = dir->buf + (size_t)slot * SUPERBLOCK_SLOT_BYTES;

	dir->storing = true;
	dir->again = false;
	list_splice_back(&dir->writing, &dir->waiting);
	dir->sb.generation++;
	superblock_encode(&dir->sb, bytes);
	dir->op.done = group_dir_stored;
	io_write(dir->file, bytes, SUPERBLOCK_SLOT_BYTES, (uint64_t)slot * SUPERBLOCK_SLOT_BYTES,
		 IO_DSYNC, &dir->op);
}

static void group_dir_stored(struct io_op *op, int64_t res)
{
	struct group_dir *dir = container_of(op, struct group_dir, op);
	struct group_dir_store *store;
	struct list done = LIST_INIT(done);
	int result = res < 0 ? (int)res : 0;

	dir->storing = false;
	list_splice_back(&done, &dir->writing);
	if (res < 0) {
		dir->failed = result;
		list_splice_back(&done, &dir->waiting);
	} else {
		dir->slot = 1 - dir->slot;
		if (dir->again)
			group_dir_write(dir);
	}
	while ((store = list_pop_front_as(&done, struct group_dir_store, link)))
		store->op->done(store->op, result);
}

void group_dir_store(struct group_dir *dir, struct group_dir_store *store, struct io_op *op)
{
	must(dir->lock && dir->file && !dir->user);
	if (dir->failed != 0) {
		io_defer(dir->io, op, dir->failed);
		return;
	}
	store->op = op;
	list_push_back(&dir->waiting, &store->link);
	dir->again = true;
	if (!dir->storing)
		group_dir_write(dir);
}

/* ---- what it holds ---------------------------------------------------------------------- */

struct superblock_volume *group_dir_volume(struct group_dir *dir, const char *name)
{
	uint32_t i;

	for (i = 0; i < dir->sb.volume_count; i++) {
		if (strcmp(dir->sb.volumes[i].name, name) == 0)
			return &dir->sb.volumes[i];
	}
	return NULL;
}

struct superblock_peer *group_dir_peer(struct group_dir *dir, const char *node)
{
	struct superblock_peer *peer;
	uint32_t i;

	for (i = 0; i < dir->sb.peer_count; i++) {
		if (strcmp(dir->sb.peers[i].node, node) == 0)
			return &dir->sb.peers[i];
	}
	if (dir->sb.peer_count == GROUP_PEERS_MAX || !node_name_valid(node))
		return NULL;
	peer = &dir->sb.peers[dir->sb.peer_count++];
	memset(peer, 0, sizeof(*peer));
	memcpy(peer->node, node, strlen(node));
	return peer;
}

void group_dir_set_applied(struct group_dir *dir, const struct journal_position *at)
{
	must(at->seq >= 1);
	dir->sb.applied_seq = at->seq - 1;
	dir->sb.applied_bytes = at->bytes;
	dir->sb.applied_chain = at->chain;
	dir->sb.applied_slot = at->slot;
	dir->sb.applied_off = at->off;
}

void group_dir_get_applied(const struct group_dir *dir, struct journal_position *ret_at)
{
	*ret_at = (struct journal_position){
		.seq = dir->sb.applied_seq + 1,
		.chain = dir->sb.applied_chain,
		.bytes = dir->sb.applied_bytes,
		.slot = dir->sb.applied_slot,
		.off = dir->sb.applied_off,
	};
}

/* The epoch under which `seq` was written: of entries with the same first seq, only the last one
 * ever wrote. 0 before the first. */
static uint64_t epoch_at(const struct history_entry *history, unsigned count, uint64_t seq)
{
	uint64_t epoch = 0;
	unsigned i;

	for (i = 0; i < count && history[i].first_seq <= seq; i++)
		epoch = history[i].epoch;
	return epoch;
}

/*
 * From where on both histories say what they know. One that has become too long has lost its oldest
 * entries (HISTORY_MAX); where the other one has the first that is left, from the same seq, both
 * are the same before it: an epoch begins once, and with all that was before it.
 */
static uint64_t known_from(const struct history_entry *ours, unsigned our_count,
			   const struct history_entry *theirs, unsigned their_count)
{
	const struct history_entry *first;
	unsigned i;

	if (our_count == 0 || their_count == 0)
		return 0;
	if (ours[0].epoch > theirs[0].epoch)
		return known_from(theirs, their_count, ours, our_count);
	first = &theirs[0];
	for (i = 0; i < our_count; i++)
		if (ours[i].epoch == first->epoch && ours[i].first_seq == first->first_seq)
			return first->first_seq;
	return 0;
}

/* Both histories name the same epoch where one of them changes, so they do in between. */
static bool epochs_agree(const struct history_entry *ours, unsigned our_count,
			 const struct history_entry *theirs, unsigned their_count, uint64_t end_seq)
{
	uint64_t from = known_from(ours, our_count, theirs, their_count);
	unsigned i;

	for (i = 0; i < our_count && ours[i].first_seq <= end_seq; i++) {
		uint64_t seq = ours[i].first_seq;

		if (seq >= from &&
		    epoch_at(ours, our_count, seq) != epoch_at(theirs, their_count, seq))
			return false;
	}
	return true;
}

bool history_is_prefix(const struct history_entry *ours, unsigned our_count, uint64_t our_seq,
		       const struct history_entry *theirs, unsigned their_count, uint64_t their_seq)
{
	return their_seq <= our_seq &&
	       epochs_agree(ours, our_count, theirs, their_count, their_seq) &&
	       epochs_agree(theirs, their_count, ours, our_count, their_seq);
}

/* The last seq before the first change of `ours` at which the two histories disagree. */
static uint64_t agreed_up_to(const struct history_entry *ours, unsigned our_count,
			     const struct history_entry *theirs, unsigned their_count,
			     uint64_t end_seq)
{
	uint64_t from = known_from(ours, our_count, theirs, their_count);
	unsigned i;

	for (i = 0; i < our_count && ours[i].first_seq <= end_seq; i++) {
		uint64_t seq = ours[i].first_seq;

		if (seq >= from &&
		    epoch_at(ours, our_count, seq) != epoch_at(theirs, their_count, seq))
			return seq - 1;
	}
	return end_seq;
}

uint64_t history_common(const struct history_entry *ours, unsigned our_count, uint64_t our_seq,
			const struct history_entry *theirs, unsigned their_count,
			uint64_t their_seq)
{
	uint64_t end_seq = min_u64(our_seq, their_seq);

	end_seq = agreed_up_to(ours, our_count, theirs, their_count, end_seq);
	return agreed_up_to(theirs, their_count, ours, our_count, end_seq);
}
