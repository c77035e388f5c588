/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Apply: durable segments and copied extents become batches, and batches become writes to the
 * volumes.
 *
 *   gather (from memory, else from the journal, in order) -> (a copy runs: undo) -> write ->
 * applied
 *
 * One batch at a time. A segment in memory stays there until the batch is done (a hold each); one
 * that was read back has its data in the arena, so a batch ends when that is full.
 *
 * Invariant P1: only durable segments are applied, in order, each between the copied extents it
 * belongs between.
 */
#include <errno.h>
#include <string.h>

#include "core/group/openings.h"
#include "engine/internal.h"

static void gather(struct engine_group *group);

static void apply_failed(struct engine_group *group, int res)
{
	standby_fail(group, res,
		     "a volume refused a write; nothing that was received is lost, it is in the "
		     "journal: repair the device");
}

static void release_batch(struct engine_group *group)
{
	for (unsigned i = 0; i < group->batch_count; i++)
		segring_release(&group->ring, group->batch[i]);
	group->batch_count = 0;
	group->arena_used = 0;
}

void applier_give_up(struct engine_group *group)
{
	group->draining = false;
	group->copy.added = 0;
	extmap_clear(&group->apply.map);
	release_batch(group);
}

static void batch_done(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, drain_op);

	release_batch(group);
	if (res < 0) {
		group->draining = false;
		apply_failed(group, (int)res);
		return;
	}
	group->applied_at = group->batch_at;
	group->applied_seq = group->applied_at.seq - 1;
	applier_go_on(group);
}

void applier_go_on(struct engine_group *group)
{
	group->draining = false;
	copy_applied(group);
	receive_release(group);
	session_room(group);
	session_ack(group);
	if (group->journal.blocked || journal_free_slots(&group->journal) < 2)
		checkpoint_run(group, true);
	else if (group->again)
		checkpoint_run(group, group->again_store);
	applier_kick(group);
	if (group->state != ENGINE_READY || group->hold || group->session.state == SESSION_STARTING)
		standby_poke(group);
}

static bool batch_is_empty(const struct engine_group *group)
{
	return group->batch_at.seq == group->applied_at.seq && !group->copy.added;
}

static void run(struct engine_group *group)
{
	if (batch_is_empty(group)) {
		group->draining = false;
		return;
	}
	if (!kept_save(group))
		applier_write(group);
}

void applier_write(struct engine_group *group)
{
	group->drain_op.done = batch_done;
	apply_run(&group->apply, &group->drain_op);
}

/* The tail's segment joins the batch. 0, APPLY_E_FULL, or a negative errno. */
static int add_segment(struct engine_group *group)
{
	struct tail *tail = &group->tail;
	const struct segment_header *header = tail->header;
	struct segment *segment = tail->segment;
	const uint8_t *table = tail->stored + SEGMENT_HEADER_BYTES;
	const uint8_t *data = segment ? segment->data : group->arena + group->arena_used;
	int r;

	if (!segment && segment_unpack(tail->stored, header, group->arena + group->arena_used))
		return -EBADMSG;
	r = apply_add(&group->apply, header, table, data);
	if (r == APPLY_E_FULL)
		return r;
	if (r)
		return -EUCLEAN; /* receive_segment() let none through, so the journal is not ours
				  */
	openings_note(&group->dir.sb, header->writer, header->first_seq);
	group->batch_at = (struct journal_position){
		.seq = segment_last_seq(header) + 1,
		.chain = segment_chain(tail->stored),
		.bytes = header->bytes_end,
	};
	if (segment) {
		segring_hold(segment);
		group->batch[group->batch_count++] = segment;
		group->batch_at.slot = segment->slot;
		group->batch_at.off = segment->slot_off + header->total_bytes;
	} else {
		group->arena_used += round_up(header->data_raw_bytes, SEGMENT_ALIGN_BYTES);
		group->batch_at.slot = tail->reader.at.slot;
		group->batch_at.off = tail->reader.at.off;
	}
	tail_drop(tail);
	return 0;
}

static void read_back(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, drain_op);

	if (res < 0) {
		applier_give_up(group);
		standby_fail(group, (int)res,
			     group->journal.error[0] ? group->journal.error
						     : "the journal cannot be read back");
		return;
	}
	gather(group);
}

enum gather_step {
	GATHER_ON,
	GATHER_RUN,
	GATHER_WAIT
};

static enum gather_step next_segment(struct engine_group *group)
{
	struct tail *tail = &group->tail;
	int r;

	if (group->batch_count == ENGINE_BATCH_SEGMENTS)
		return GATHER_RUN;
	if (!tail->header) {
		r = tail_poll(tail);
		if (r == -EAGAIN) {
			group->drain_op.done = read_back;
			tail_next(tail, &group->drain_op);
			return GATHER_WAIT;
		}
		if (r <= 0)
			return GATHER_RUN;
	}
	if (!tail->segment && group->arena_used > ENGINE_ARENA_BYTES - SEGMENT_DATA_MAX_BYTES)
		return GATHER_RUN;
	r = add_segment(group);
	if (r < 0) {
		applier_give_up(group);
		standby_fail(group, r, "the journal holds what cannot be applied to these volumes");
		return GATHER_WAIT;
	}
	return r ? GATHER_RUN : GATHER_ON;
}

static enum gather_step next_step(struct engine_group *group)
{
	struct copy_item *item = copy_next(group);

	if (!standby_applies(group))
		return GATHER_RUN;
	if (!item || item->after_seq >= group->batch_at.seq)
		return next_segment(group);
	if (item->kind != COPY_HASH)
		return copy_add(group) ? GATHER_RUN : GATHER_ON;
	/* What comes before it must be on the volumes. */
	if (!batch_is_empty(group))
		return GATHER_RUN;
	compare_run(group);
	return GATHER_WAIT;
}

static void gather(struct engine_group *group)
{
	enum gather_step step;

	do {
		step = next_step(group);
	} while (step == GATHER_ON);
	if (step == GATHER_RUN)
		run(group);
}

void applier_kick(struct engine_group *group)
{
	if (group->draining || !standby_applies(group))
		return;
	group->draining = true;
	group->batch_at = group->applied_at;
	gather(group);
}

bool applier_idle(const struct engine_group *group)
{
	return !group->draining && group->cycle == CYCLE_IDLE;
}

void applier_begin(struct engine_group *group, const struct journal_position *at)
{
	group->applied_at = group->checkpoint_at = *at;
	group->applied_seq = at->seq - 1;
	tail_seek(&group->tail, at->seq);
}

int applier_init(struct engine_group *group)
{
	group->arena = io_alloc(group->io, ENGINE_ARENA_BYTES, 4096);
	if (!group->arena)
		return -ENOMEM;
	return apply_init(&group->apply, group->io, &group->volumes, ENGINE_APPLY_RECORDS);
}

void applier_deinit(struct engine_group *group)
{
	if (group->arena)
		io_free(group->io, group->arena);
	apply_deinit(&group->apply);
}
