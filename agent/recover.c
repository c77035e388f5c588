/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start: from a directory on disk to a group that may serve.
 *
 *   open directory -> volumes -> journal (find its end) -> replay onto the volumes -> flush ->
 * checkpoint
 *
 * Each step is one function, entered by the completion of the one before. Replay starts at the
 * superblock's applied position and is idempotent, so a crash anywhere here is a start over.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/internal.h"
#include "core/base/log.h"
#include "core/conf/peek.h"

static void replay_next(struct agent_group *group);

static void fail(struct agent_group *group, int res, const char *what)
{
	snprintf(group->detail, sizeof(group->detail), "%s", what);
	recover_done(group, res);
}

static void stored(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, recover_op);

	if (res < 0) {
		fail(group, (int)res, "the superblock cannot be written");
		return;
	}
	recover_done(group, 0);
}

static void flushed(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, recover_op);
	struct journal *journal = &group->journal;

	if (res < 0) {
		fail(group, (int)res, "a volume failed to flush after replay");
		return;
	}
	group->applied_at = journal->head;
	group->applied_seq = journal->head.seq - 1;
	group->checkpoint_at = group->applied_at;
	group->head_seq = group->applied_seq;
	group->head_bytes = journal->head.bytes;
	peers_prepare(group);
	held_new_writer(group);
	if (group->held.changed) { /* CLEAN and its stamps stay: the next start finds the same */
		recover_done(group, 0);
		return;
	}
	group_dir_set_applied(&group->dir, &group->applied_at);
	group->dir.sb.durable_seq = journal->durable_seq;
	/* From here on the volumes may run ahead of a clean stop. */
	group->dir.sb.flags &= ~(uint32_t)SUPERBLOCK_CLEAN;
	memset(group->dir.sb.stamps, 0, sizeof(group->dir.sb.stamps));
	group->recover_op.done = stored;
	group_dir_store(&group->dir, &group->recover_store, &group->recover_op);
}

static void flush_volumes(struct agent_group *group)
{
	group->recover_op.done = flushed;
	volumes_flush(&group->volumes, &group->recover_op);
}

/* Lets go of the segments of a batch that has been applied. */
static void batch_applied(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, recover_op);
	struct segment *segment;

	while ((segment = list_pop_front_as(&group->applying, struct segment, owner_link)))
		segring_release(&group->ring, segment);
	if (res < 0) {
		fail(group, (int)res, "a volume refused a write during replay");
		return;
	}
	replay_next(group);
}

static void run_batch(struct agent_group *group)
{
	group->recover_op.done = batch_applied;
	apply_run(&group->apply, &group->recover_op);
}

/* Copies the reader's segment into the ring. NULL: no room before the batch is done. */
static struct segment *take_segment(struct agent_group *group, int *ret_condition)
{
	struct journal_reader *reader = &group->replay;
	const struct segment_header *header = &reader->header;
	bool lz4 = header->flags & SEGMENT_LZ4;
	size_t bytes = header->total_bytes;
	struct segment *segment;

	if (lz4)
		bytes += round_up(header->data_raw_bytes, SEGMENT_ALIGN_BYTES);
	segment = segring_begin(&group->ring, bytes);
	*ret_condition = 0;
	if (!segment)
		return NULL;
	segment->header = *header;
	segment->stored = segment->block;
	memcpy(segment->stored, reader->stored, header->total_bytes);
	segment->table = segment->stored + SEGMENT_HEADER_BYTES;
	segment->data = segment->stored + (lz4 ? header->total_bytes : header->data_off);
	segring_trim(&group->ring, segment, bytes);
	*ret_condition = segment_unpack(segment->stored, header, lz4 ? segment->data : NULL);
	return segment;
}

/* The reader stands on a segment: into the batch, or run the batch first and come back. */
static void replay_segment(struct agent_group *group)
{
	int condition = 0;
	int r = APPLY_E_FULL;

	if (!group->replay_segment)
		group->replay_segment = take_segment(group, &condition);
	if (condition) {
		fail(group, -EUCLEAN, segment_condition_text(condition));
		return;
	}
	if (group->replay_segment)
		r = apply_add(&group->apply, &group->replay_segment->header,
			      group->replay_segment->table, group->replay_segment->data);
	if (r == APPLY_E_RECORD) {
		fail(group, -EUCLEAN,
		     "the journal names a volume or a range that the superblock does not know");
		return;
	}
	if (r == APPLY_E_FULL && list_empty(&group->applying)) {
		fail(group, -ENOMEM,
		     "a segment of the journal does not fit into memory; raise the group's memory");
		return;
	}
	if (r == APPLY_E_FULL) { /* of the batch, or of the ring: marks alone fill that one */
		run_batch(group);
		return;
	}
	list_push_back(&group->applying, &group->replay_segment->owner_link);
	group->replay_segment = NULL;
	group->replay.header.records = 0; /* taken */
	replay_next(group);
}

static void read_done(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, recover_op);

	if (res < 0) {
		fail(group, (int)res,
		     group->journal.error[0] ? group->journal.error : "the journal cannot be read");
	} else if (res > 0) {
		replay_segment(group);
	} else if (!apply_is_empty(&group->apply)) {
		run_batch(group);
	} else {
		while (!list_empty(&group->applying))
			segring_release(
				&group->ring,
				list_pop_front_as(&group->applying, struct segment, owner_link));
		flush_volumes(group);
	}
}

static void replay_next(struct agent_group *group)
{
	if (group->stop_wanted) {
		fail(group, -ECANCELED, "stopped while it was starting");
		return;
	}
	if (group->replay.header.records) { /* read before, not yet in a batch */
		replay_segment(group);
		return;
	}
	group->recover_op.done = read_done;
	journal_reader_next(&group->replay, &group->recover_op);
}

static void journal_opened(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, recover_op);
	struct journal_position at;
	int r;

	if (res) {
		fail(group, res > 0 ? -EUCLEAN : (int)res,
		     group->journal.error[0] ? group->journal.error
					     : "the journal cannot be opened");
		return;
	}
	group->journal_open = true;
	r = journal_reader_init(&group->replay, &group->journal);
	if (r) {
		fail(group, r, "out of memory");
		return;
	}
	group->replay_open = true;
	group_dir_get_applied(&group->dir, &at);
	journal_reader_set(&group->replay, &at);
	replay_next(group);
}

static int open_volumes(struct agent_group *group)
{
	struct volume_path paths[GROUP_VOLUMES_MAX];
	unsigned count = group->conf->volume_count;

	if (count > GROUP_VOLUMES_MAX)
		return -E2BIG;
	for (unsigned i = 0; i < count; i++)
		paths[i] = (struct volume_path){ group->conf->volumes[i].name,
						 group->conf->volumes[i].path };
	return volumes_open(&group->volumes, group->io, &group->dir.sb, paths, count, group->detail,
			    sizeof(group->detail));
}

static void open_journal(struct agent_group *group)
{
	const struct superblock *sb = &group->dir.sb;
	struct journal_options options = {
		.io = group->io,
		.dir = group->dir.path,
		.group = sb->group,
		.slot_bytes = sb->slot_bytes,
		.slots = sb->slots,
		.dsync = group->conf->cache == CONF_WRITETHROUGH,
		.writes_max = JOURNAL_WRITES_MAX,
		.events = { group, commit_written, commit_durable, agent_drain_space,
			    agent_journal_failed },
	};
	int r = journal_init(&group->journal, &options);

	if (r) {
		fail(group, r,
		     r == -EINVAL ? "the superblock's journal is of an impossible size"
				  : "no memory for the journal");
		return;
	}
	group->recover_op.done = journal_opened;
	journal_open(&group->journal, sb, &group->recover_op);
}

/* Behind a clean stop the volumes are as they were left, or somebody has written to them. */
static void looked_at(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, recover_op);
	const struct superblock *sb = &group->dir.sb;

	if (res < 0) {
		fail(group, (int)res, "a volume cannot be read");
		return;
	}
	for (unsigned i = 0; i < group->volumes.count; i++) {
		if (stamp_same(&sb->stamps[i], &group->stamps[i]))
			continue;
		group->held.changed = true;
		group->dir.sb.flags |= SUPERBLOCK_SUSPECT | SUPERBLOCK_SELF_DIRTY;
		snprintf(group->held.text, sizeof(group->held.text),
			 "volume \"%.48s\" was changed since the clean stop, behind the agent's "
			 "back: its standbys do not have that; promote a standby, or holdfast "
			 "accept what is here",
			 sb->volumes[i].name);
		break;
	}
	open_journal(group);
}

/* A clean stop left stamps; a promote leaves none. */
static bool has_stamps(const struct superblock *sb)
{
	for (unsigned i = 0; i < sb->volume_count; i++)
		if ((sb->flags & SUPERBLOCK_CLEAN) && sb->stamps[i].sample)
			return true;
	return false;
}

/* They are not served, and nothing of them is replicated: that must not go unnoticed. */
static void tell_lacking(const struct agent_group *group)
{
	char text[STATUS_TEXT_MAX];

	if (peek_lacking(group->conf, &group->dir.sb, text, sizeof(text))[0])
		log_warning("the configuration names volumes that the group does not have: they "
			    "are not replicated; holdfast volume add takes them in",
			    "group=%s volumes=\"%s\"", group->conf->name, text);
}

static void dir_opened(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, recover_op);
	struct superblock *sb = &group->dir.sb;
	int r;

	if (res) {
		fail(group, res > 0 ? -EUCLEAN : (int)res,
		     res > 0		   ? superblock_condition_text((int)res)
		     : res == -EWOULDBLOCK ? "another process owns the group's directory"
					   : "the group's directory cannot be opened");
		return;
	}
	group->dir_open = true;
	group->segment_data_max =
		(uint32_t)min_u64(SEGMENT_DATA_MAX_BYTES, sb->slot_bytes - SEGMENT_HEAD_MAX_BYTES);
	if (sb->role == GROUP_FENCED) {
		snprintf(group->detail, sizeof(group->detail),
			 "fenced: epoch %llu rules at %s; this copy must be brought back as a "
			 "standby",
			 (unsigned long long)sb->fenced_by_epoch, sb->fenced_by);
		recover_done(group, -ESTALE);
		return;
	}
	if (sb->role != GROUP_PRIMARY) {
		fail(group, -EPERM,
		     "this host's copy is a standby: `holdfast promote` makes it primary");
		return;
	}
	r = open_volumes(group);
	if (r) {
		recover_done(group, r);
		return;
	}
	group->volumes_open = true;
	tell_lacking(group);
	if (has_stamps(sb)) {
		group->recover_op.done = looked_at;
		stamp_take(&group->stamp, &group->volumes, group->stamps, &group->recover_op);
	} else {
		open_journal(group);
	}
}

void recover_start(struct agent_group *group)
{
	group->recover_op.done = dir_opened;
	group_dir_open(&group->dir, &group->recover_op);
}
