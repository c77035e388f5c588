/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Back to the kept position.
 *
 *   the log is checked -> ROLLBACK is stored -> the log is written back -> volumes flushed
 *   -> the journal is emptied -> one store: an ordinary consistent standby at the kept position
 *
 * Invariant K3: once ROLLBACK is stored nothing else happens to this copy before it is over, also
 * after a restart: open.c comes here before anything is received or applied.
 * Invariant K4: the journal is emptied before the superblock stops saying ROLLBACK: so what it held
 * behind the kept position is never taken for its continuation.
 * Invariant K5: when the log turns out to be damaged after ROLLBACK was stored, what was written
 * back already has undone what the primary counts as copied: the copy then begins from nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/units.h"
#include "engine/internal.h"

#define TELL_NS (10 * NS_PER_S)

static void next(struct engine_group *group, io_done_fn done)
{
	group->op_busy = true;
	group->state_op.done = done;
}

static void fail(struct engine_group *group, int64_t res, const char *text)
{
	group->op_busy = false;
	group->rollback.running = false;
	io_timer_stop(group->io, &group->rollback.timer);
	if (group->state == ENGINE_STARTING && group->stop_wanted)
		standby_stop_start(group);
	else
		standby_fail(group, (int)res, text);
}

static void tell_due(struct io_timer *timer)
{
	struct engine_group *group = container_of(timer, struct engine_group, rollback.timer);
	uint64_t done, total;

	undo_progress(group->undo, &done, &total);
	log_info("rolling back",
		 "group=%s kept_seq=%" PRIu64 " done_bytes=%" PRIu64 " total_bytes=%" PRIu64,
		 group->conf->name, group->dir.sb.kept.seq, done, total);
	io_timer_start(group->io, timer, TELL_NS);
}

/* ---- the end ----------------------------------------------------------------------------------
 */

static void over_stored(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	if (res < 0) {
		fail(group, res, "the superblock cannot be written");
		return;
	}
	group->op_busy = false;
	group->rollback.running = group->rollback.wanted = false;
	io_timer_stop(group->io, &group->rollback.timer);
	if (undo_is_open(group->undo))
		undo_end(group->undo);
	else
		undo_clean(group->io, group->dir.path, 0);
	if (group->state == ENGINE_STARTING) {
		open_finish(group);
		return;
	}
	applier_begin(group, &group->journal.head);
	group->durable_bytes = group->journal.head.bytes;
	standby_poke(group);
}

static void journal_emptied(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);
	struct superblock *sb = &group->dir.sb;
	struct superblock_kept *kept = &sb->kept;

	if (res < 0) {
		fail(group, res, "the journal cannot be emptied");
		return;
	}
	group->journal_open = true;
	group_dir_set_applied(&group->dir, &group->journal.head);
	sb->durable_seq = group->journal.durable_seq;
	sb->flags &= ~(uint32_t)(SUPERBLOCK_ROLLBACK | SUPERBLOCK_SYNCING | SUPERBLOCK_DISTRUST);
	sb->sync_end_seq = 0;
	memset(sb->history, 0, sizeof(sb->history));
	sb->history_count = 0;
	sb->opening_count = 0; /* what it names came with what was copied */
	group->last_writer = 0;
	group->durable_time_ns = kept->time_ns;
	if (group->rollback.anew) {
		sb->flags |= SUPERBLOCK_SYNCING;
		sb->flags &= ~(uint32_t)SUPERBLOCK_EVER_CONSISTENT;
		sb->sync_end_seq = UINT64_MAX;
		group->durable_time_ns = 0;
		kept_give_up(group, group->rollback.text);
	} else {
		/* What the primary counts as copied is not here any more. */
		sb->flags |= SUPERBLOCK_EVER_CONSISTENT | SUPERBLOCK_SELF_DIRTY;
		sb->history_count = kept->history_count;
		memcpy(sb->history, kept->history, sizeof(sb->history));
		log_info("rolled back", "group=%s seq=%" PRIu64 " bytes=%" PRIu64,
			 group->conf->name, kept->seq, undo_saved_bytes(group->undo));
	}
	sb->durable_time_ns = group->durable_time_ns;
	memset(kept, 0, sizeof(*kept));
	next(group, over_stored);
	group_dir_store(&group->dir, &group->state_store, &group->state_op);
}

static void empty_journal(struct engine_group *group)
{
	const struct superblock_kept *kept = &group->dir.sb.kept;
	struct journal_position base = { .seq = kept->seq + 1,
					 .chain = kept->chain,
					 .bytes = kept->bytes };

	if (group->rollback.anew)
		base = (struct journal_position){
			.seq = 1, .chain = segment_chain_root(&group->dir.sb.group)
		};
	if (group->tail_open)
		tail_drop(&group->tail);
	receive_forget(group);
	copy_reset(group);
	next(group, journal_emptied);
	journal_reset(&group->journal, &base, &group->state_op);
}

/* ---- going back -------------------------------------------------------------------------------
 */

static void volumes_flushed(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	if (res < 0)
		fail(group, res, "a volume failed to flush");
	else
		empty_journal(group);
}

static void written_back(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);
	char text[STATUS_TEXT_MAX];

	snprintf(text, sizeof(text), "%.200s", undo_error(group->undo));
	if (res < 0) {
		fail(group, res, res == -ECANCELED ? "the roll back was interrupted" : text);
		return;
	}
	if (res == UNDO_E_DAMAGED) {
		rollback_anew(group, text);
		promote_finish(group, -EUCLEAN,
			       "%s; nothing is left that could be promoted, the volumes must be "
			       "copied anew",
			       text);
		/* Nobody waits for it any more: the start does the rest. */
		if (group->state == ENGINE_PROMOTING)
			fail(group, -EUCLEAN, text);
		else
			empty_journal(group);
		return;
	}
	next(group, volumes_flushed);
	volumes_flush(&group->volumes, &group->state_op);
}

static void write_back(struct engine_group *group)
{
	group->rollback.running = true;
	group->rollback.timer.fire = tell_due;
	io_timer_start(group->io, &group->rollback.timer, TELL_NS);
	log_info("rolling back to the kept position",
		 "group=%s kept_seq=%" PRIu64 " undo_bytes=%" PRIu64, group->conf->name,
		 group->dir.sb.kept.seq, undo_durable_bytes(group->undo));
	next(group, written_back);
	undo_roll_back(group->undo, &group->state_op);
}

static void flag_stored(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	if (res < 0)
		fail(group, res, "the superblock cannot be written");
	else
		write_back(group);
}

static void loss_stored(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	if (res < 0)
		fail(group, res, "the superblock cannot be written");
	else /* the start removes the log, and the copy goes on */
		fail(group, -EUCLEAN, group->kept.lost);
}

static void checked(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);
	struct superblock *sb = &group->dir.sb;

	if (res < 0) {
		fail(group, res,
		     res == -ECANCELED ? "the promote was interrupted" : undo_error(group->undo));
		return;
	}
	if (res == UNDO_E_DAMAGED) {
		kept_give_up(group, undo_error(group->undo));
		promote_finish(group, -EUCLEAN, "%s; let the copy from %s finish", group->kept.lost,
			       group->source[0] ? group->source : "the primary");
		next(group, loss_stored);
	} else {
		sb->kept.undo_bytes = undo_durable_bytes(group->undo);
		sb->flags |= SUPERBLOCK_ROLLBACK;
		next(group, flag_stored);
	}
	group_dir_store(&group->dir, &group->state_store, &group->state_op);
}

void rollback_begin(struct engine_group *group)
{
	must(!group->op_busy && applier_idle(group));
	group->rollback.running = true;
	group->rollback.anew = false;
	next(group, checked);
	undo_check(group->undo, &group->state_op);
}

void rollback_anew(struct engine_group *group, const char *why)
{
	group->rollback.anew = true;
	snprintf(group->rollback.text, sizeof(group->rollback.text), "%.200s", why);
}

void rollback_resume(struct engine_group *group)
{
	if (group->rollback.anew)
		empty_journal(group);
	else
		write_back(group);
}

void rollback_cancel(struct engine_group *group)
{
	if (group->rollback.running)
		undo_cancel(group->undo);
}
