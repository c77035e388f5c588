/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kept position: while the volumes are being copied to, what they held at the last consistent
 * position stays in an undo log, and promote goes back there.
 *
 *   START with a copy, on a consistent standby: all of it applied and durable -> a new log -> one
 *   store: START is adopted, the position and the log are named
 *   every batch from then on: saved in the log -> written (U1)
 *   the end of the copy: one store: consistent, nothing is kept -> the log goes
 *
 * Invariant K1: a copy that began on a consistent standby leaves it with a position to go back to
 * until it is consistent again, however often it is interrupted and begun anew; unless the operator
 * gives that up, or the log is damaged, which is told.
 * Invariant K2: the log is removed only when the superblock that does not name it any more is
 * durable, and named only when it is empty and nothing is overwritten yet.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/units.h"
#include "engine/internal.h"

#define FULL_RETRY_NS NS_PER_S

static void save(struct engine_group *group);
static void full_due(struct io_timer *timer);

static int make_undo(struct engine_group *group)
{
	struct undo_options options = {
		.io = group->io,
		.dir = group->dir.path,
		.volumes = &group->volumes,
		.group = &group->dir.sb.group,
		.limit_bytes = group->conf->undo_limit_bytes,
	};

	return undo_new(&options, &group->undo);
}

int kept_init(struct engine_group *group)
{
	group->kept.timer.fire = full_due;
	group->kept.saving = group->kept.over = group->kept.told_full = group->kept.dropped = false;
	return make_undo(group);
}

void kept_close(struct engine_group *group)
{
	io_timer_stop(group->io, &group->kept.timer);
	group->undo = undo_free(group->undo);
}

int kept_renew(struct engine_group *group)
{
	if (undo_is_open(group->undo) || undo_covers(group->undo))
		return 0;
	group->undo = undo_free(group->undo);
	return make_undo(group);
}

bool kept_quiet(const struct engine_group *group)
{
	return !group->undo || undo_is_quiet(group->undo);
}

/* ---- its beginning ----------------------------------------------------------------------------
 */

bool kept_begins(const struct engine_group *group, const struct link_start *start)
{
	const struct superblock *sb = &group->dir.sb;

	return start->sync && (sb->flags & SUPERBLOCK_EVER_CONSISTENT) &&
	       !(sb->flags & SUPERBLOCK_SYNCING);
}

void kept_begin(struct engine_group *group, struct io_op *op)
{
	uint64_t id = io_random(group->io);

	undo_begin(group->undo, id ? id : 1, op);
	group->kept.id = id ? id : 1;
}

void kept_note(struct engine_group *group)
{
	struct superblock *sb = &group->dir.sb;
	struct superblock_kept *kept = &sb->kept;
	const struct journal *journal = &group->journal;

	must(group->applied_seq == journal->durable_seq && !(sb->flags & SUPERBLOCK_SYNCING));
	*kept = (struct superblock_kept){
		.undo_id = group->kept.id,
		.seq = journal->durable_seq,
		.chain = journal->head.chain,
		.bytes = journal->head.bytes,
		.epoch = sb->epoch,
		.time_ns = group->durable_time_ns,
	};
	while (kept->history_count < sb->history_count &&
	       sb->history[kept->history_count].first_seq <= kept->seq + 1) {
		kept->history[kept->history_count] = sb->history[kept->history_count];
		kept->history_count++;
	}
	log_info("a copy begins; the position of before is kept",
		 "group=%s kept_seq=%" PRIu64 " kept_epoch=%" PRIu64, group->conf->name, kept->seq,
		 kept->epoch);
}

/* ---- batches ----------------------------------------------------------------------------------
 */

static void saved(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, kept.op);
	char text[STATUS_TEXT_MAX];

	group->kept.saving = false;
	if (group->kept.over)
		kept_end(group);
	if (res < 0 && undo_is_open(group->undo)) {
		snprintf(text, sizeof(text),
			 "%.120s; if that stays so, holdfast resync %s --drop-kept",
			 undo_error(group->undo), group->conf->name);
		applier_give_up(group);
		standby_fail(group, (int)res, text);
		return;
	}
	if (res == UNDO_E_FULL && undo_is_open(group->undo)) {
		if (!group->kept.told_full)
			log_warning("the resync waits for room in its undo log",
				    "group=%s undo_bytes=%" PRIu64 " undo_limit_bytes=%" PRIu64,
				    group->conf->name, undo_log_bytes(group->undo),
				    group->conf->undo_limit_bytes);
		group->kept.told_full = true;
		io_timer_start(group->io, &group->kept.timer, FULL_RETRY_NS);
		return;
	}
	if (group->kept.told_full)
		log_info("the resync goes on", "group=%s undo_bytes=%" PRIu64, group->conf->name,
			 undo_log_bytes(group->undo));
	group->kept.told_full = false;
	applier_write(group);
}

static void save(struct engine_group *group)
{
	group->kept.saving = true;
	group->kept.op.done = saved;
	undo_run(group->undo, &group->kept.op);
}

/* A batch waits for room. It does so for as long as it takes, but not when nothing will be applied
 * any more. */
static void full_due(struct io_timer *timer)
{
	struct engine_group *group = container_of(timer, struct engine_group, kept.timer);
	bool applies = group->state == ENGINE_READY || standby_applies(group);

	if (applies && !(group->state == ENGINE_PROMOTING && group->rollback.wanted)) {
		save(group);
		return;
	}
	applier_give_up(group);
	standby_poke(group);
}

bool kept_save(struct engine_group *group)
{
	const uint64_t end = (uint64_t)(VOLUME_ID_MAX + 1) << VOLUME_KEY_SHIFT;
	struct extmap_piece piece;

	if (!undo_is_open(group->undo))
		return false;
	extmap_for_each (piece, &group->apply.map, 0, end) {
		if (piece.covered)
			undo_add(group->undo, (unsigned)(piece.offset_bytes >> VOLUME_KEY_SHIFT),
				 piece.offset_bytes & ((1ull << VOLUME_KEY_SHIFT) - 1),
				 piece.length_bytes);
	}
	save(group);
	return true;
}

void kept_look(struct engine_group *group)
{
	if (group->kept.timer.deadline_ns)
		io_timer_start(group->io, &group->kept.timer, 0);
}

/* ---- its end ----------------------------------------------------------------------------------
 */

void kept_checkpoint(struct engine_group *group, bool end)
{
	struct superblock *sb = &group->dir.sb;

	if (end) {
		memset(&sb->kept, 0, sizeof(sb->kept));
		group->kept.lost[0] = 0; /* there is a position again */
	} else if (sb->kept.undo_id) {
		sb->kept.undo_bytes = undo_durable_bytes(group->undo);
	}
}

void kept_end(struct engine_group *group)
{
	group->kept.over = group->kept.saving;
	if (!undo_is_open(group->undo) || group->kept.saving)
		return;
	undo_end(group->undo);
	/* A batch that waited for room needs none. */
	if (group->kept.timer.deadline_ns) {
		io_timer_stop(group->io, &group->kept.timer);
		group->kept.told_full = false;
		applier_write(group);
	}
}

void kept_give_up(struct engine_group *group, const char *why)
{
	struct superblock *sb = &group->dir.sb;

	log_warning("the kept position is given up", "group=%s kept_seq=%" PRIu64 " reason=\"%s\"",
		    group->conf->name, sb->kept.seq, why);
	snprintf(group->kept.lost, sizeof(group->kept.lost),
		 "the position kept at %" PRIu64 " is given up: %.150s", sb->kept.seq, why);
	resize_end(group);
	memset(&sb->kept, 0, sizeof(sb->kept));
	sb->flags &= ~(uint32_t)SUPERBLOCK_EVER_CONSISTENT;
}

bool kept_drop_wanted(const struct engine_group *group)
{
	const struct engine_task *task = group->task;

	return task_waits(group) && task->kind == ENGINE_DROP_KEPT &&
	       (!task->has_expect_epoch || task->expect_epoch == group->dir.sb.epoch);
}

void kept_task(struct engine_group *group)
{
	if (group->kept.dropped) { /* by the start */
		group->kept.dropped = false;
		task_finish(group, 0, "%s", "");
	} else if (group->op_busy) {
		task_finish(group, -EAGAIN, "a connection begins; repeat in a moment");
	} else if (!group->dir.sb.kept.undo_id) {
		task_finish(group, -EALREADY, "no position is kept here");
	} else {
		kept_give_up(group, "the operator has said so");
		task_store(group, "kept position given up");
	}
}

void kept_status(const struct engine_group *group, struct status_group *s)
{
	const struct superblock *sb = &group->dir.sb;

	s->kept = sb->kept.undo_id != 0;
	s->undo_limit_bytes = group->conf->undo_limit_bytes;
	if (!s->kept)
		return;
	s->kept_seq = sb->kept.seq;
	s->kept_time_ns = sb->kept.time_ns;
	s->undo_bytes = sb->kept.undo_bytes;
	if (!group->undo || !undo_is_open(group->undo))
		return;
	s->undo_bytes = undo_log_bytes(group->undo);
	s->undo_saved_bytes = undo_saved_bytes(group->undo);
	s->undo_full = undo_is_full(group->undo);
	if (group->rollback.running)
		undo_progress(group->undo, &s->rollback_done_bytes, &s->rollback_total_bytes);
}
