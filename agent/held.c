/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/held.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/ship.h"
#include "core/base/log.h"
#include "core/base/units.h"
#include "core/group/openings.h"

#define EPOCH_STEP    2u /* A2 */
#define DRAIN_STEP_NS NS_PER_MS
#define DRAIN_NS_MAX  (30 * NS_PER_S)

/* ---- into it -----------------------------------------------------------------------------------
 */

static void flag_stored(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, held.op);

	if (res < 0)
		agent_fail(group, (int)res, "the superblock cannot be written");
}

/* Not served, and said so; once. */
static void hold(struct agent_group *group)
{
	if (group->state == AGENT_HELD)
		return;
	io_timer_stop(group->io, &group->settle_timer);
	group->state = AGENT_HELD;
	group->fail_res = -EPERM;
	log_warning("group is held and not served", "group=%s reason=\"%s\"", group->conf->name,
		    group->held.text);
	for (unsigned i = 0; i < group->ship_count; i++)
		ship_disconnect(group->ships[i], "the group is held");
	agent_report_started(group, -EPERM);
}

void held_enter(struct agent_group *group, const char *format, ...)
{
	struct superblock *sb = &group->dir.sb;
	va_list args;

	if (group->state != AGENT_SETTLING && group->state != AGENT_HELD)
		return;
	va_start(args, format);
	vsnprintf(group->held.text, sizeof(group->held.text), format, args);
	va_end(args);
	if (!(sb->flags & SUPERBLOCK_HELD) || (group->held.changed && !group->held.noted)) {
		group->held.noted = group->held.changed;
		sb->flags |= SUPERBLOCK_HELD;
		group->held.op.done = flag_stored;
		group_dir_store(&group->dir, &group->held.store, &group->held.op);
	}
	hold(group);
}

void held_wait(struct agent_group *group)
{
	snprintf(
		group->held.text, sizeof(group->held.text),
		"%.64s was asked to take over and has not answered whether it did; it is asked on; "
		"if it is lost for good: holdfast accept",
		group->dir.sb.handover_node);
	hold(group);
}

void held_start(struct agent_group *group)
{
	const struct superblock *sb = &group->dir.sb;
	char found[STATUS_TEXT_MAX];

	/* Of an earlier start: whatever the volumes look like now. */
	if ((sb->flags & SUPERBLOCK_SUSPECT) && !group->held.changed) {
		group->held.changed = true;
		snprintf(group->held.text, sizeof(group->held.text),
			 "a volume was changed behind the agent's back: its standbys do not have "
			 "that; promote a standby, or holdfast accept what is here");
	}
	memcpy(found, group->held.text, sizeof(found));
	if ((sb->flags & SUPERBLOCK_HANDOVER) && !handover_resume(group))
		held_enter(group,
			   "%.64s was asked to take over at seq %" PRIu64
			   " and is no standby in the configuration any more; configure it again, "
			   "or, if it is lost for good: holdfast accept",
			   sb->handover_node, sb->handover_seq);
	else if (group->held.changed)
		held_enter(group, "%s", found);
	else if (sb->flags & SUPERBLOCK_HELD)
		held_enter(group,
			   "it was held at an earlier start, for what the agent's log said then; "
			   "promote the standby, or holdfast accept what is here");
}

bool held_by_welcome(struct ship *ship)
{
	struct agent_group *group = ship->group;
	const struct superblock *sb = &group->dir.sb;
	const struct link_welcome *w = &ship->welcome;
	uint64_t ours = group->journal.durable_seq;

	/* What it wrote under an older epoch than ours is its own affair; diverged at its own end,
	 * it holds nothing that we lack. */
	if (w->durable.epoch != sb->epoch ||
	    ((!w->diverged || w->common_seq == w->durable.seq) && w->durable.seq <= ours &&
	     history_is_prefix(sb->history, sb->history_count, ours, w->history, w->history_count,
			       w->durable.seq)))
		return false;
	if (group->state != AGENT_SETTLING && group->state != AGENT_HELD)
		return false;
	held_enter(group,
		   "%.64s holds seq %" PRIu64 " of epoch %" PRIu64 ", this primary only %" PRIu64
		   ": it is older than its standby; promote the standby, or holdfast accept what "
		   "is here",
		   ship->conf->node, w->durable.seq, sb->epoch, ours);
	return true;
}

void held_by_refusal(struct ship *ship, const struct link_refuse *refuse)
{
	if (refuse->code == LINK_REFUSE_DIVERGED)
		held_enter(ship->group,
			   "%.64s follows this epoch and holds what this primary does not: it is "
			   "older than its standby; promote the standby, or holdfast accept what "
			   "is here",
			   ship->conf->node);
	else if (refuse->code == LINK_REFUSE_NOT_STANDBY)
		held_enter(ship->group,
			   "%.64s is primary under the same epoch; holdfast accept on the one "
			   "that shall rule: the other one is fenced then",
			   ship->conf->node);
}

void held_by_chain(struct ship *ship)
{
	struct agent_group *group = ship->group;

	if (ship->welcome.durable.epoch != group->dir.sb.epoch ||
	    (group->state != AGENT_SETTLING && group->state != AGENT_HELD))
		return;
	held_enter(group,
		   "%.64s has other content at seq %" PRIu64 " of the same epoch; promote the "
		   "standby, or holdfast accept what is here",
		   ship->conf->node, ship->welcome.durable.seq);
}

/* ---- out of it
 * -----------------------------------------------------------------------------------
 */

__attribute__((format(printf, 3, 4))) static void answer(struct agent_group *group, int res,
							 const char *format, ...)
{
	struct agent_task *task = group->held.task;
	va_list args;

	if (!task)
		return;
	group->held.task = NULL;
	va_start(args, format);
	vsnprintf(task->text, sizeof(task->text), format, args);
	va_end(args);
	task->res = res;
	task->done(task);
}

void held_over(struct agent_group *group)
{
	io_timer_stop(group->io, &group->held.timer);
	group->held.draining = false;
	answer(group, -ESHUTDOWN, "%s", group->detail[0] ? group->detail : "the agent stops");
}

static void accepted(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, held.accept_op);
	struct held *held = &group->held;

	if (res < 0)
		agent_fail(group, (int)res, "the superblock cannot be written");
	if (agent_is_out(group) || group->state == AGENT_STOPPING || group->state == AGENT_STOPPED)
		return; /* held_over() has answered, or will */
	log_warning("the operator accepts what is here", "group=%s epoch=%" PRIu64 " seq=%" PRIu64,
		    group->conf->name, group->dir.sb.epoch, group->head_seq);
	held->text[0] = 0;
	held->changed = held->noted = false;
	group->fail_res = 0;
	held->task->seq = group->head_seq;
	held->draining = false;
	for (unsigned i = 0; i < group->ship_count; i++)
		timeline_joined(group->ships[i]); /* each says anew what it holds */
	handover_accepted(group);
	agent_settle_again(group);
	answer(group, 0, "%s", "");
	if (group->state == AGENT_SERVING)
		capture_retry(group);
}

void held_new_writer(struct agent_group *group)
{
	do
		group->writer = io_random(group->io);
	while (!group->writer);
	openings_note(&group->dir.sb, group->writer, group->head_seq + 1);
}

static void raise_epoch(struct agent_group *group)
{
	struct superblock *sb = &group->dir.sb;

	handover_forget(group);
	sb->flags &= ~(uint32_t)(SUPERBLOCK_HELD | SUPERBLOCK_CLEAN);
	if (group->held.changed) /* every standby is marked */
		sb->flags &= ~(uint32_t)(SUPERBLOCK_SUSPECT | SUPERBLOCK_SELF_DIRTY);
	memset(sb->stamps, 0, sizeof(sb->stamps));
	sb->durable_seq = group->journal.durable_seq;
	if (sb->history_count == HISTORY_MAX) {
		memmove(sb->history, sb->history + 1, (HISTORY_MAX - 1) * sizeof(sb->history[0]));
		sb->history_count--;
	}
	sb->epoch += EPOCH_STEP;
	sb->history[sb->history_count++] = (struct history_entry){ sb->epoch, group->head_seq + 1 };
	held_new_writer(group);
	group->held.accept_op.done = accepted;
	group_dir_store(&group->dir, &group->held.accept_store, &group->held.accept_op);
}

/* What was written behind our back is in no journal: every standby gets everything, by comparison.
 */
static void mark_next(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, held.accept_op);
	struct held *held = &group->held;
	struct ship *ship;

	if (res < 0)
		agent_fail(group, (int)res, "a standby's dirty map cannot be written");
	if (agent_is_out(group) || group->state != AGENT_HELD)
		return;
	if (!held->changed || held->next_ship == group->ship_count) {
		raise_epoch(group);
		return;
	}
	ship = group->ships[held->next_ship++];
	ship_set_everything(ship);
	ship->peer->needs_compare = ship->conf->compare != CONF_COMPARE_NEVER;
	ship_mark_sync(ship, op);
}

/* A3: one step further. */
static void drain_due(struct io_timer *timer)
{
	struct agent_group *group = container_of(timer, struct agent_group, held.timer);
	struct journal *journal = &group->journal;

	if (!group->held.task || group->state != AGENT_SERVING)
		return; /* held_over() has answered */
	if (io_now(group->io) > group->held.deadline_ns) {
		group->held.draining = false;
		answer(group, -EAGAIN, "what was written does not become durable; repeat it");
		capture_retry(group);
		return;
	}
	commit_seal(group);
	if (journal->durable_seq == group->head_seq) {
		raise_epoch(group);
		return;
	}
	journal_flush(journal, group->head_seq);
	if (journal->blocked)
		agent_drain_space(group, true);
	io_timer_start(group->io, timer, DRAIN_STEP_NS);
}

/* It serves, and somebody holds something else under its epoch. */
static bool has_parted(const struct agent_group *group)
{
	if (group->state != AGENT_SERVING || group->handover.state != HANDOVER_NONE)
		return false;
	for (unsigned i = 0; i < group->ship_count; i++)
		if (group->ships[i]->parted != PARTED_NOT)
			return true;
	return false;
}

static void accept_serving(struct agent_group *group, struct agent_task *task)
{
	struct held *held = &group->held;

	if (held->task || group->resize.task) {
		task->res = -EAGAIN;
		snprintf(task->text, sizeof(task->text),
			 "something is under way; repeat it in a moment");
		task->done(task);
		return;
	}
	for (unsigned i = 0; i < group->ship_count; i++)
		ship_disconnect(group->ships[i], "a new epoch begins");
	held->task = task;
	held->draining = true;
	held->deadline_ns = io_now(group->io) + DRAIN_NS_MAX;
	held->timer.fire = drain_due;
	io_timer_start(group->io, &held->timer, 0);
}

static bool busy(const struct agent_group *group)
{
	if (group->held.task || group->dir.storing)
		return true;
	for (unsigned i = 0; i < group->ship_count; i++)
		if (group->ships[i]->prepare_pending || group->ships[i]->release_user)
			return true;
	return false;
}

void held_accept(struct agent_group *group, struct agent_task *task)
{
	struct held *held = &group->held;
	bool asked = group->handover.state == HANDOVER_ASKED;

	if (has_parted(group)) {
		accept_serving(group, task);
		return;
	}
	if (group->state != AGENT_HELD &&
	    !(asked && (group->state == AGENT_SETTLING || group->state == AGENT_SERVING))) {
		task->res = -EALREADY;
		snprintf(task->text, sizeof(task->text), "nothing holds group %s",
			 group->conf->name);
	} else {
		/* What they are about belongs to the old epoch. */
		for (unsigned i = 0; i < group->ship_count; i++)
			ship_disconnect(group->ships[i], "a new epoch begins");
		if (!busy(group)) {
			held->task = task;
			held->next_ship = 0;
			held->accept_op.done = mark_next;
			if (group->state == AGENT_HELD)
				io_defer(group->io, &held->accept_op, 0);
			else
				raise_epoch(group);
			return;
		}
		task->res = -EAGAIN;
		snprintf(task->text, sizeof(task->text),
			 "something is under way; repeat it in a moment");
	}
	task->done(task);
}
