/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start: from a directory on disk to a group that may receive.
 *
 *   look at the superblock -> (a standby's or a fenced copy's) lock and open -> volumes (changed
 *   behind our back? suspect.c) -> undo log of a kept position -> journal (find its end) ->
 * (ROLLBACK: that is finished) -> ready
 *
 * Recovery needs no path of its own: apply goes on from the superblock's applied position, which is
 * what it does anyway, and replay is idempotent. The lock is not touched for a group that is no
 * standby: its agent holds it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "core/conf/peek.h"
#include "core/group/openings.h"
#include "engine/internal.h"

static void begin(struct engine_group *group, io_done_fn done)
{
	must(!group->op_busy);
	group->op_busy = true;
	group->state_op.done = done;
}

/* True when the start goes no further. */
static bool over(struct engine_group *group, int64_t res, const char *text)
{
	if (group->stop_wanted) {
		standby_stop_start(group);
		return true;
	}
	if (!res)
		return false;
	standby_fail(group, res > 0 ? -EUCLEAN : (int)res, text);
	return true;
}

static const char *dir_text(int64_t res)
{
	if (res > 0)
		return superblock_condition_text((int)res);
	if (res == -EWOULDBLOCK)
		return "another process owns the group's directory; is its agent still running?";
	if (res == -ENOENT)
		return "there is no such group directory; make it with holdfast init";
	return "the group's directory cannot be read";
}

static void journal_opened(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);
	const struct journal *journal = &group->journal;
	bool back = group->dir.sb.flags & SUPERBLOCK_ROLLBACK;

	group->op_busy = false;
	/* On the way back the journal is emptied, whatever it holds. */
	if (over(group, back && res == JOURNAL_E_DAMAGED ? 0 : res,
		 journal->error[0] ? journal->error : "the journal cannot be opened"))
		return;
	if (back) {
		rollback_resume(group);
		return;
	}
	group->journal_open = true;
	group->durable_time_ns = journal->end_time_ns;
	/* All of it was applied: recovery has read nothing. */
	if (!group->durable_time_ns && journal->durable_seq == group->dir.sb.durable_seq)
		group->durable_time_ns = group->dir.sb.durable_time_ns;
	open_finish(group);
}

void open_finish(struct engine_group *group)
{
	const struct journal *journal = &group->journal;
	struct journal_position at;
	int r;

	r = tail_init(&group->tail, &group->journal, &group->ring);
	if (over(group, r, "no memory for reading the journal"))
		return;
	group->tail_open = true;
	group->durable_bytes = journal->head.bytes;
	group->last_writer = journal->end_writer;
	if (!group->last_writer) /* all that it holds is applied */
		group->last_writer = openings_at(&group->dir.sb, journal->durable_seq);
	group_dir_get_applied(&group->dir, &at);
	applier_begin(group, &at);
	journal_set_floor(&group->journal, group->applied_seq);
	heard_begin(group);
	standby_ready(group);
}

static int open_journal(struct engine_group *group)
{
	const struct superblock *sb = &group->dir.sb;
	struct journal_options options = {
		.io = group->io,
		.dir = group->dir.path,
		.group = sb->group,
		.slot_bytes = sb->slot_bytes,
		.slots = sb->slots,
		.dsync = true,
		.writes_max = ENGINE_JOURNAL_WRITES_MAX,
		.events = { group, receive_written, receive_durable, checkpoint_space,
			    standby_journal_failed },
	};
	int r;

	if (sb->slots < 2 || sb->slot_bytes < 2 * SEGMENT_HEAD_MAX_BYTES) {
		snprintf(group->detail, sizeof(group->detail),
			 "the journal is too small for a standby: %u files of %llu bytes",
			 (unsigned)sb->slots, (unsigned long long)sb->slot_bytes);
		return -EINVAL;
	}
	r = journal_init(&group->journal, &options);
	if (r) {
		snprintf(group->detail, sizeof(group->detail), "no memory for the journal");
		return r;
	}
	begin(group, journal_opened);
	journal_open(&group->journal, sb, &group->state_op);
	return 0;
}

/*
 * The records of a primary are as fine as its own volumes allow (512 bytes at the finest). A volume
 * here that cannot do that directly goes through the page cache; flushes make it durable as well.
 */
static int relax_alignment(struct engine_group *group)
{
	for (unsigned i = 0; i < group->volumes.count; i++) {
		struct volume *volume = &group->volumes.list[i];
		int r;

		if (!volume->info.direct || volume->info.block_bytes <= 512)
			continue;
		io_file_close(volume->file);
		volume->file = NULL;
		r = io_file_open(group->io, volume->path, IO_OPEN_EXCLUSIVE, &volume->file);
		if (r) {
			snprintf(group->detail, sizeof(group->detail),
				 "volume \"%s\" cannot be opened again for records of 512 bytes",
				 volume->id.name);
			return r;
		}
		io_file_info(volume->file, &volume->info);
	}
	return 0;
}

/* They are not served, and nothing of them is replicated: that must not go unnoticed. */
static void tell_lacking(const struct engine_group *group)
{
	char text[STATUS_TEXT_MAX];

	if (peek_lacking(group->conf, &group->dir.sb, text, sizeof(text))[0])
		log_warning("the configuration names volumes that the group does not have: they "
			    "are not replicated; holdfast volume add takes them in",
			    "group=%s volumes=\"%s\"", group->conf->name, text);
}

static int open_volumes(struct engine_group *group)
{
	struct volume_path paths[GROUP_VOLUMES_MAX];
	unsigned count = group->conf->volume_count;
	int r;

	if (count > GROUP_VOLUMES_MAX)
		return -E2BIG;
	for (unsigned i = 0; i < count; i++)
		paths[i] = (struct volume_path){ group->conf->volumes[i].name,
						 group->conf->volumes[i].path };
	r = volumes_open(&group->volumes, group->io, &group->dir.sb, paths, count, group->detail,
			 sizeof(group->detail));
	if (r)
		return r;
	group->volumes_open = true;
	tell_lacking(group);
	/* What an earlier process copied may be in a cache only: a flush has to cover that, too. */
	for (unsigned i = 0; i < group->volumes.count; i++)
		group->volumes.list[i].dirty = group->dir.sb.flags & SUPERBLOCK_SYNCING;
	if (group->compare.flush_res && (group->dir.sb.flags & SUPERBLOCK_SYNCING))
		group->dir.sb.flags |= SUPERBLOCK_DISTRUST;
	memset(group->grow.ready, 0, sizeof(group->grow.ready));
	memset(group->grow.theirs, 0, sizeof(group->grow.theirs));
	return relax_alignment(group);
}

/* ---- the kept position ------------------------------------------------------------------------
 */

static void open_journal_next(struct engine_group *group)
{
	int r = open_journal(group);

	if (r)
		standby_fail(group, r, group->detail);
}

static void loss_stored(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	group->op_busy = false;
	if (over(group, res, "the superblock cannot be written"))
		return;
	undo_clean(group->io, group->dir.path, 0);
	open_journal_next(group);
}

/* Stored before anything is applied: or a log that can be read again later would miss what was
 * overwritten in between. */
static void lose_kept(struct engine_group *group, const char *why)
{
	if (group->dir.sb.flags & SUPERBLOCK_ROLLBACK) {
		rollback_anew(group, why);
		open_journal_next(group);
		return;
	}
	kept_give_up(group, why);
	begin(group, loss_stored);
	group_dir_store(&group->dir, &group->state_store, &group->state_op);
}

static void undo_opened(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);
	char why[STATUS_TEXT_MAX];

	group->op_busy = false;
	snprintf(why, sizeof(why), "%.200s", undo_error(group->undo));
	if (over(group, res < 0 ? res : 0, why))
		return;
	if (res == UNDO_E_DAMAGED)
		lose_kept(group, why);
	else
		open_journal_next(group);
}

void open_go_on(struct engine_group *group)
{
	struct superblock *sb = &group->dir.sb;

	if (!sb->kept.undo_id) {
		if (sb->flags & SUPERBLOCK_SYNCING)
			sb->flags &= ~(uint32_t)SUPERBLOCK_EVER_CONSISTENT;
		undo_clean(group->io, group->dir.path, 0);
		open_journal_next(group);
	} else if (kept_drop_wanted(group)) {
		group->kept.dropped = true;
		lose_kept(group, "the operator has said so");
	} else {
		begin(group, undo_opened);
		undo_open(group->undo, sb->kept.undo_id, sb->kept.undo_bytes, &group->state_op);
	}
}

static void close_foreign(struct engine_group *group)
{
	if (group->dir_open)
		group_dir_close(&group->dir);
	group->dir_open = false;
	standby_foreign(group);
}

static void dir_opened(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);
	int r;

	group->op_busy = false;
	group->dir_open = !res;
	if (res == -EWOULDBLOCK && group->dir.sb.role == GROUP_FENCED && !group->stop_wanted) {
		/* Its agent is still letting go of it; until then HELLOs are answered by what the
		 * look has found. */
		standby_foreign(group);
		return;
	}
	if (over(group, res, dir_text(res)))
		return;
	if (group->dir.sb.role == GROUP_PRIMARY) { /* changed since the look */
		close_foreign(group);
		return;
	}
	/* What a primary served was whole, and its journal makes it so again. */
	if (group->dir.sb.role == GROUP_FENCED)
		group->dir.sb.flags |= SUPERBLOCK_EVER_CONSISTENT;
	r = open_volumes(group);
	if (!r)
		r = kept_init(group);
	if (r)
		standby_fail(group, r,
			     group->detail[0] ? group->detail : "the group cannot be opened");
	else
		suspect_look(group);
}

static void dir_peeked(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	group->op_busy = false;
	if (over(group, res, dir_text(res)))
		return;
	if (group->dir.sb.role == GROUP_PRIMARY) {
		standby_foreign(group);
		return;
	}
	begin(group, dir_opened);
	group_dir_open(&group->dir, &group->state_op);
}

void open_start(struct engine_group *group)
{
	begin(group, dir_peeked);
	group_dir_peek(&group->dir, &group->state_op);
}

/* A primary that an epoch above its own rules is told so at once, whoever has the directory. */
static bool offer_is_stale(const struct engine_group *group)
{
	const struct superblock *sb = &group->dir.sb;

	return group->offer_stream && group->offer.epoch < max_u64(sb->epoch, sb->fenced_by_epoch);
}

static void foreign_peeked(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	group->op_busy = false;
	if (group->state == ENGINE_STARTING)
		open_start(group);
	if (group->state != ENGINE_FOREIGN) {
		standby_poke(group);
		return;
	}
	if (res) {
		session_decline(group, LINK_REFUSE_ERROR, dir_text(res));
		if (group->promote && !group->promote_over)
			promote_finish(group, res > 0 ? -EUCLEAN : (int)res, "%s", dir_text(res));
		task_finish(group, res > 0 ? -EUCLEAN : (int)res, "%s", dir_text(res));
		return;
	}
	if (group->dir.sb.role != GROUP_PRIMARY && !offer_is_stale(group)) {
		/* Fenced, or brought back as a standby since. What comes of it is told. */
		group->state = ENGINE_STARTING;
		group->reported = false;
		session_offer(group);
		open_start(group);
		return;
	}
	session_offer(group);
	task_foreign(group);
	if (group->promote && !group->promote_over)
		promote_foreign(group);
}

void open_peek(struct engine_group *group)
{
	if (group->op_busy)
		return; /* one is under way */
	begin(group, foreign_peeked);
	group_dir_peek(&group->dir, &group->state_op);
}
