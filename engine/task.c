/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an operator asks of a standby, one task at a time: looked at when the group is open, ended
 * by one store of the superblock. A primary that is not served is taken here (demote), its lock
 * says so.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "engine/internal.h"

static void answer(struct io_timer *timer)
{
	struct engine_group *group = container_of(timer, struct engine_group, task_timer);
	struct engine_task *task = group->task;

	group->task = NULL;
	group->task_over = false;
	task->done(task);
}

/* The answer comes in a later turn: its receiver may do anything with the group. */
void task_finish(struct engine_group *group, int res, const char *format, ...)
{
	struct engine_task *task = group->task;
	va_list args;

	if (!task || group->task_over)
		return;
	va_start(args, format);
	vsnprintf(task->text, sizeof(task->text), format, args);
	va_end(args);
	task->res = res;
	task->epoch = group->dir.sb.epoch;
	task->seq = group->journal_open ? group->journal.durable_seq : group->dir.sb.durable_seq;
	group->task_over = true;
	group->task_timer.fire = answer;
	io_timer_start(group->io, &group->task_timer, 0);
}

bool task_waits(const struct engine_group *group)
{
	return group->task && !group->task_over;
}

/* ---- ending in a store ------------------------------------------------------------------------
 */

static void stored(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, task_op);

	group->task_storing = false;
	if (res < 0) {
		task_finish(group, (int)res, "the superblock cannot be written");
		standby_fail(group, (int)res, "the superblock cannot be written");
		return;
	}
	if (!group->dir.sb.kept.undo_id && group->undo && group->task &&
	    group->task->kind == ENGINE_DROP_KEPT)
		kept_end(group);
	log_info("task done", "group=%s task=\"%s\"", group->conf->name, group->task_text);
	task_finish(group, 0, "%s", "");
	standby_poke(group);
}

void task_store(struct engine_group *group, const char *text)
{
	snprintf(group->task_text, sizeof(group->task_text), "%s", text);
	group->task_storing = true;
	group->task_op.done = stored;
	group_dir_store(&group->dir, &group->task_dir_store, &group->task_op);
}

/* ---- an unserved primary ----------------------------------------------------------------------
 */

static void demoted(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	group->op_busy = false;
	group_dir_close(&group->dir);
	if (res < 0) {
		task_finish(group, (int)res, "the superblock cannot be written");
		standby_poke(group);
		return;
	}
	log_warning("primary demoted", "group=%s epoch=%" PRIu64, group->conf->name,
		    group->dir.sb.epoch);
	task_finish(group, 0, "%s", "");
	open_peek(group); /* finds that it is fenced, and opens it */
}

static void primary_opened(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);
	struct superblock *sb = &group->dir.sb;

	if (!res && sb->role == GROUP_PRIMARY) {
		sb->role = GROUP_FENCED;
		sb->fenced_by_epoch = sb->epoch;
		memset(sb->fenced_by, 0, sizeof(sb->fenced_by));
		sb->flags |= SUPERBLOCK_REJOIN;
		if (group->task && group->task->without_salvage)
			sb->flags |= SUPERBLOCK_REJOIN_LOSS;
		/* CLEAN stays, and its stamps: they are looked at when it is opened. */
		sb->flags &= ~(uint32_t)SUPERBLOCK_HELD;
		group->state_op.done = demoted;
		group_dir_store(&group->dir, &group->state_store, &group->state_op);
		return;
	}
	group->op_busy = false;
	if (!res)
		group_dir_close(&group->dir);
	if (res == -EWOULDBLOCK)
		task_finish(group, -EPERM,
			    "the group is primary here and its agent has it; to move it, use "
			    "holdfast switchover, or stop the agent first");
	else
		task_finish(group, res ? (res > 0 ? -EUCLEAN : (int)res) : -EAGAIN,
			    "the group's directory cannot be taken; see holdfast status, then "
			    "repeat");
	standby_poke(group);
}

/* ENGINE_FOREIGN: the superblock has just been read. */
void task_foreign(struct engine_group *group)
{
	const struct superblock *sb = &group->dir.sb;
	const struct engine_task *task = group->task;

	if (!task_waits(group) || group->op_busy)
		return;
	if (task->has_expect_epoch && task->expect_epoch != sb->epoch) {
		task_finish(group, -ESTALE, "the current epoch is %" PRIu64 ", not %" PRIu64,
			    sb->epoch, task->expect_epoch);
	} else if (task->kind != ENGINE_REJOIN) {
		task_finish(group, -EPERM, "the group is primary here, under epoch %" PRIu64,
			    sb->epoch);
	} else if (sb->role != GROUP_PRIMARY) {
		task_finish(group, -EAGAIN,
			    "the copy here is fenced, and its agent still has the directory; "
			    "repeat in a moment");
	} else if (sb->flags & SUPERBLOCK_HANDOVER) {
		task_finish(group, -EPERM,
			    "the group is being handed over to %s, which decides; start the agent "
			    "and let it ask",
			    sb->handover_node);
	} else {
		group->op_busy = true;
		group->state_op.done = primary_opened;
		group_dir_open(&group->dir, &group->state_op);
	}
}

/* ---- beginning --------------------------------------------------------------------------------
 */

void task_step(struct engine_group *group)
{
	const struct superblock *sb = &group->dir.sb;
	struct engine_task *task = group->task;

	if (!task_waits(group) || group->task_storing)
		return;
	switch (group->state) {
	case ENGINE_STARTING: /* goes on when that is over */
		return;
	case ENGINE_FOREIGN:
		open_peek(group);
		return;
	case ENGINE_FAILED:
		if (kept_drop_wanted(group)) { /* before the log is opened again */
			group->retry_at_ns = io_now(group->io);
			standby_poke(group);
			return;
		}
		task_finish(group, group->fail_res, "%.250s", group->detail);
		return;
	case ENGINE_STOPPED:
	case ENGINE_STOPPING:
		task_finish(group, -ESHUTDOWN, "the engine stops");
		return;
	case ENGINE_PROMOTING:
		task_finish(group, -EAGAIN, "a promote is under way");
		return;
	case ENGINE_READY:
		break;
	}
	if (task->has_expect_epoch && task->expect_epoch != sb->epoch) {
		task_finish(group, -ESTALE, "the current epoch is %" PRIu64 ", not %" PRIu64,
			    sb->epoch, task->expect_epoch);
		return;
	}
	switch (task->kind) {
	case ENGINE_REJOIN:
		rejoin_task(group);
		return;
	case ENGINE_DROP_KEPT:
		kept_task(group);
		return;
	case ENGINE_VOLUME_PATH:
		break;
	}
	task_finish(group, -EOPNOTSUPP, "this engine cannot do that");
}

void engine_group_task(struct engine_group *group, struct engine_task *task)
{
	task->text[0] = 0;
	task->epoch = task->seq = 0;
	if (group->task) {
		task->res = -EBUSY;
		snprintf(task->text, sizeof(task->text), "another task is under way");
		task->done(task);
		return;
	}
	group->task = task;
	task_step(group);
}
