/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cycles: flush the volumes; then, for a checkpoint or when a copy has become consistent, store the
 * superblock and raise the journal's floor.
 *
 * Invariant D1: the applied position in the superblock never leads the data: it is stored only
 * after a flush of the volumes that was submitted after the batch had completed. Invariant D2: the
 * journal keeps everything above the applied position that is durable in the superblock.
 */
#include "core/base/units.h"
#include "engine/internal.h"

/* The primary's head as last heard survives a restart; while nothing is written this is often
 * enough. */
#define HEARD_STORE_NS (30 * NS_PER_S)

static void cycle_over(struct engine_group *group)
{
	group->cycle = CYCLE_IDLE;
	session_ack(group); /* SYNC_ACK */
	if (group->again)
		checkpoint_run(group, group->again_store);
	applier_kick(group);
	if (group->state != ENGINE_READY || group->hold || group->session.state == SESSION_STARTING)
		standby_poke(group);
}

static void count_frames(struct engine_group *group)
{
	struct copy_state *copy = &group->copy;

	if (group->cycle_session == group->session.number)
		copy->durable_frames =
			max_u64(copy->durable_frames,
				group->cycle_frames + (group->cycle_end && copy->end_counted));
	if (group->cycle_end)
		copy->end_reached = false;
}

static void stored(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, cycle_op);
	uint64_t keep_ns = group->conf->journal_retention_ns, now_ns = io_wall(group->io);

	if (res < 0) {
		group->cycle = CYCLE_IDLE;
		standby_fail(group, (int)res, "the superblock cannot be written");
		return;
	}
	if (group->cycle_end)
		group->compare.flush_res = 0;
	group->checkpoints++;
	group->checkpoint_at = group->cycle_at;
	count_frames(group);
	if (group->cycle_end)
		kept_end(group);
	if (!group->journal.failed) {
		journal_set_floor(&group->journal, group->checkpoint_at.seq - 1);
		if (keep_ns && now_ns > keep_ns && !rejoin_keeps_journal(group))
			journal_expire(&group->journal, now_ns - keep_ns);
	}
	cycle_over(group);
}

static void update_superblock(struct engine_group *group)
{
	struct superblock *sb = &group->dir.sb;
	const struct journal *journal = &group->journal;
	const struct heard *heard = &group->heard;

	group_dir_set_applied(&group->dir, &group->cycle_at);
	sb->durable_seq = journal->durable_seq;
	sb->durable_time_ns = group->durable_time_ns;
	if (heard->ever) {
		sb->heard_head_seq = heard->head_seq;
		sb->heard_head_bytes = heard->head_bytes;
		sb->heard_time_ns = heard->wall_ns;
		group->stored_heard_ns = heard->wall_ns;
	}
	kept_checkpoint(group, group->cycle_end);
	if (group->cycle_end) {
		resize_end(group);
		sb->flags &= ~(uint32_t)(SUPERBLOCK_SYNCING | SUPERBLOCK_SELF_DIRTY |
					 SUPERBLOCK_DISTRUST | SUPERBLOCK_SUSPECT);
		sb->flags |= SUPERBLOCK_EVER_CONSISTENT;
		sb->sync_end_seq = 0;
		sb->differing_ranges = 0; /* its primary tells when they were not among it */
	}
	if (group->state == ENGINE_STOPPING && journal->durable_seq == journal->appended_seq &&
	    group->cycle_at.seq == journal->head.seq)
		sb->flags |= SUPERBLOCK_CLEAN;
}

static void flush_failed(struct engine_group *group, int res)
{
	group->cycle = CYCLE_IDLE;
	standby_fail(group, res,
		     "a volume failed to flush; what was written since the last checkpoint is "
		     "replayed from the journal");
}

static void distrust_stored(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, cycle_op);

	/* Not stored: as long as this process lives, the group knows. */
	(void)res;
	flush_failed(group, group->compare.flush_res);
}

/*
 * Records come again from the journal, but not what was copied: a cache may go on showing what the
 * medium has lost, and a comparison would believe it (Y4).
 */
static void distrust(struct engine_group *group, int res)
{
	group->compare.flush_res = res;
	group->dir.sb.flags |= SUPERBLOCK_DISTRUST;
	group->cycle = CYCLE_STORING;
	group->cycle_op.done = distrust_stored;
	group_dir_store(&group->dir, &group->cycle_group_store, &group->cycle_op);
}

static void flushed(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, cycle_op);

	if (res < 0 && (group->dir.sb.flags & SUPERBLOCK_SYNCING)) {
		distrust(group, (int)res);
		return;
	}
	if (res < 0) {
		flush_failed(group, (int)res);
		return;
	}
	if (group->state == ENGINE_FAILED) {
		group->cycle = CYCLE_IDLE;
		return;
	}
	compare_cycle_flushed(group);
	if (!group->cycle_store && !group->cycle_end) {
		count_frames(group);
		cycle_over(group);
		return;
	}
	update_superblock(group);
	group->cycle = CYCLE_STORING;
	group->cycle_op.done = stored;
	group_dir_store(&group->dir, &group->cycle_group_store, &group->cycle_op);
}

static bool may_run(const struct engine_group *group)
{
	if (!group->journal_open)
		return false;
	return group->state == ENGINE_READY || group->state == ENGINE_PROMOTING ||
	       (group->state == ENGINE_STOPPING && group->stop_phase != STOP_CLOSE);
}

void checkpoint_run(struct engine_group *group, bool store)
{
	if (!may_run(group))
		return;
	if (group->hold || group->cycle != CYCLE_IDLE) {
		group->again = true;
		group->again_store |= store;
		return;
	}
	group->again = group->again_store = false;
	io_timer_stop(group->io, &group->sync_timer);
	group->cycle = CYCLE_FLUSHING;
	group->cycle_store = store;
	group->cycle_end = copy_end_due(group);
	group->cycle_at = group->applied_at;
	group->cycle_frames = group->copy.applied_frames;
	group->cycle_session = group->session.number;
	group->copy.unflushed = 0;
	compare_cycle_begins(group);
	group->cycle_op.done = flushed;
	volumes_flush(&group->volumes, &group->cycle_op);
}

void checkpoint_space(void *owner, bool blocked)
{
	struct engine_group *group = owner;

	(void)blocked;
	applier_kick(group);
	/* Else the end of the batch that runs comes here again. */
	if (group->applied_at.seq > group->checkpoint_at.seq)
		checkpoint_run(group, true);
}

static void checkpoint_due(struct io_timer *timer)
{
	struct engine_group *group = container_of(timer, struct engine_group, checkpoint_timer);

	if (group->applied_at.seq != group->checkpoint_at.seq ||
	    (group->heard.live && group->heard.wall_ns - group->stored_heard_ns > HEARD_STORE_NS))
		checkpoint_run(group, true);
	io_timer_start(group->io, timer, group->conf->checkpoint_interval_ns);
}

static void sync_due(struct io_timer *timer)
{
	checkpoint_run(container_of(timer, struct engine_group, sync_timer), false);
}

void checkpoint_start(struct engine_group *group)
{
	group->again = group->again_store = false;
	io_timer_start(group->io, &group->checkpoint_timer, group->conf->checkpoint_interval_ns);
}

void checkpoint_stop(struct engine_group *group)
{
	io_timer_stop(group->io, &group->checkpoint_timer);
	io_timer_stop(group->io, &group->sync_timer);
}

void checkpoint_init(struct engine_group *group)
{
	group->checkpoint_timer.fire = checkpoint_due;
	group->sync_timer.fire = sync_due;
}
