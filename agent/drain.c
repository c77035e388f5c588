/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Behind the journal: durable segments are applied to the local volumes, checkpoints move the
 * replay position, memory and journal space come back.
 *
 *   unapplied --(durable, batch)--> applying --> applied --(no older read)--> retired
 *
 * Invariant D1: the applied position in the superblock never leads the data: it is stored only
 * after a flush of the volumes that was submitted after the batch had completed. Invariant D2: the
 * journal keeps everything above the smallest of checkpoint and every standby's floor.
 */
#include <errno.h>
#include <string.h>

#include "agent/internal.h"

/* Waiting a little lets overwrites meet in one batch; the write set answers reads meanwhile. */
#define APPLY_DELAY_NS 10000000ull

static void start_batch(struct agent_group *group);

static struct segment *first_of(const struct list *list)
{
	return list_first_as(list, struct segment, owner_link);
}

static bool batch_ready(const struct agent_group *group)
{
	struct segment *segment = first_of(&group->unapplied);

	return segment && segment_last_seq(&segment->header) <= group->journal.durable_seq;
}

void agent_drain_retire(struct agent_group *group)
{
	uint64_t oldest = capture_oldest_read_tick(group);
	struct segment *segment;
	bool freed = false;

	while ((segment = first_of(&group->applied)) && segment->owner_tick < oldest) {
		list_remove(&segment->owner_link);
		writeset_remove(&group->writeset, segment);
		segring_release(&group->ring, segment);
		freed = true;
	}
	if (freed && !list_empty(&group->stalled) && group->state == AGENT_SERVING)
		capture_retry(group);
}

static void batch_done(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, apply_op);
	struct segment *segment;

	if (res < 0) {
		agent_fail(group, (int)res,
			   "a volume refused a write; the journal holds everything, repair the "
			   "device and start the agent again");
		return;
	}
	while ((segment = first_of(&group->applying))) {
		list_remove(&segment->owner_link);
		group->applied_at = (struct journal_position){
			.seq = segment_last_seq(&segment->header) + 1,
			.chain = segment->chain_next,
			.bytes = segment->header.bytes_end,
			.slot = segment->slot,
			.off = segment->slot_off + segment->header.total_bytes,
		};
		group->applied_seq = group->applied_at.seq - 1;
		group->unapplied_bytes -= segment->block_bytes;
		segment->owner_tick = ++group->tick;
		list_push_back(&group->applied, &segment->owner_link);
	}
	agent_drain_retire(group);
	if (batch_ready(group))
		agent_drain_kick(group, false);
	if (group->checkpoint_again)
		agent_drain_checkpoint(group);
	agent_step_stop(group);
}

static void start_batch(struct agent_group *group)
{
	struct segment *segment;

	io_timer_stop(group->io, &group->apply_timer);
	group->apply_now = false;
	while ((segment = first_of(&group->unapplied)) &&
	       segment_last_seq(&segment->header) <= group->journal.durable_seq) {
		int r = apply_add(&group->apply, &segment->header, segment->table, segment->data);

		if (r == APPLY_E_FULL)
			break;
		must(r == 0); /* the records are our own */
		list_remove(&segment->owner_link);
		list_push_back(&group->applying, &segment->owner_link);
	}
	must(!list_empty(&group->applying));
	group->apply_op.done = batch_done;
	apply_run(&group->apply, &group->apply_op);
}

static void apply_due(struct io_timer *timer)
{
	agent_drain_kick(container_of(timer, struct agent_group, apply_timer), true);
}

void agent_drain_kick(struct agent_group *group, bool now)
{
	if (agent_is_out(group) || group->state == AGENT_STOPPED)
		return;
	group->apply_now |= now || group->state == AGENT_STOPPING ||
			    group->unapplied_bytes > group->ring.size_bytes / 4;
	if (group->apply.running || !batch_ready(group))
		return;
	if (group->apply_now) {
		start_batch(group);
	} else if (!group->apply_timer.deadline_ns) {
		group->apply_timer.fire = apply_due;
		io_timer_start(group->io, &group->apply_timer, APPLY_DELAY_NS);
	}
}

/* Checkpoint. */

static void checkpoint_stored(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, checkpoint_op);
	uint64_t now_ns = io_wall(group->io);

	group->checkpoint_state = CHECKPOINT_IDLE;
	if (res < 0) {
		agent_fail(group, (int)res, "the superblock cannot be written");
		return;
	}
	group->checkpoints++;
	agent_drain_floor(group);
	if (group->conf->journal_retention_ns && now_ns > group->conf->journal_retention_ns)
		journal_expire(&group->journal, now_ns - group->conf->journal_retention_ns);
	if (group->checkpoint_again)
		agent_drain_checkpoint(group);
	if (group->journal.blocked || journal_free_slots(&group->journal) < 2)
		agent_drain_space(group, group->journal.blocked);
	agent_step_stop(group);
}

static void checkpoint_flushed(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, checkpoint_op);

	if (res < 0) {
		group->checkpoint_state = CHECKPOINT_IDLE;
		agent_fail(
			group, (int)res,
			"a volume failed to flush; what was written since the last checkpoint is "
			"replayed from the journal at the next start");
		return;
	}
	group->checkpoint_state = CHECKPOINT_STORING;
	group_dir_set_applied(&group->dir, &group->checkpoint_at);
	group->dir.sb.durable_seq = group->journal.durable_seq;
	group->checkpoint_op.done = checkpoint_stored;
	group_dir_store(&group->dir, &group->checkpoint_store, &group->checkpoint_op);
}

void agent_drain_checkpoint(struct agent_group *group)
{
	if (agent_is_out(group))
		return;
	if (group->checkpoint_state != CHECKPOINT_IDLE) {
		group->checkpoint_again = true;
		return;
	}
	group->checkpoint_again = false;
	if (group->applied_at.seq == group->checkpoint_at.seq)
		return;
	group->checkpoint_state = CHECKPOINT_FLUSHING;
	group->checkpoint_at = group->applied_at;
	group->checkpoint_op.done = checkpoint_flushed;
	volumes_flush(&group->volumes, &group->checkpoint_op);
}

static void checkpoint_due(struct io_timer *timer)
{
	struct agent_group *group = container_of(timer, struct agent_group, checkpoint_timer);

	agent_drain_checkpoint(group);
	if (group->journal.blocked || journal_free_slots(&group->journal) < 2)
		agent_drain_space(group, group->journal.blocked);
	io_timer_start(group->io, &group->checkpoint_timer, group->conf->checkpoint_interval_ns);
}

bool agent_drain_idle(const struct agent_group *group)
{
	return !group->apply.running && list_empty(&group->unapplied) &&
	       group->checkpoint_state == CHECKPOINT_IDLE &&
	       group->dir.sb.applied_seq == group->applied_seq;
}

/* Journal space. */

static uint64_t floor_of(const struct agent_group *group)
{
	/* While a store is under way, dir.sb already has the new position but the disk may not. */
	uint64_t floor = group->checkpoint_state == CHECKPOINT_STORING ? group->journal.floor_seq
								       : group->dir.sb.applied_seq;

	for (unsigned i = 0; i < group->ship_count; i++)
		floor = min_u64(floor, ship_floor(group->ships[i]));
	return floor;
}

void agent_drain_floor(struct agent_group *group)
{
	if (group->journal_open && !group->journal.failed)
		journal_set_floor(&group->journal,
				  max_u64(group->journal.floor_seq, floor_of(group)));
}

static void released(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, release_op);

	group->releasing = false;
	if (res < 0 && res != -EALREADY) {
		agent_fail(group, (int)res, "a standby's dirty map cannot be written");
		return;
	}
	agent_drain_floor(group);
	agent_step_stop(group);
	if (res == -EALREADY)
		return; /* another release is under way; checkpoint_due() looks again */
	if (group->journal.blocked || journal_free_slots(&group->journal) < 2)
		agent_drain_space(group, group->journal.blocked);
}

void agent_drain_space(void *owner, bool blocked)
{
	struct agent_group *group = owner;
	uint64_t seq = journal_next_release_seq(&group->journal);

	(void)blocked;
	if (agent_is_out(group) || !seq)
		return;
	if (group->dir.sb.applied_seq < seq || group->checkpoint_state != CHECKPOINT_IDLE) {
		agent_drain_kick(group, true);
		agent_drain_checkpoint(group);
		if (group->dir.sb.applied_seq < seq)
			return; /* checkpoint_stored() comes back */
	}
	for (unsigned i = 0; i < group->ship_count && !group->releasing; i++) {
		if (ship_floor(group->ships[i]) >= seq)
			continue;
		group->releasing = true;
		group->release_op.done = released;
		ship_release(group->ships[i], seq, &group->release_op);
	}
}

int agent_drain_init(struct agent_group *group)
{
	list_init(&group->unapplied);
	list_init(&group->applying);
	list_init(&group->applied);
	group->checkpoint_timer.fire = checkpoint_due;
	return apply_init(&group->apply, group->io, &group->volumes, APPLY_BATCH_RECORDS);
}

void agent_drain_deinit(struct agent_group *group)
{
	apply_deinit(&group->apply);
}
