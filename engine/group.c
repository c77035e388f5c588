/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of a standby's group: start, receive, stop; promote; and starting over after a failure.
 *
 *   STOPPED -> STARTING -> READY -> STOPPING -> STOPPED
 *                 | ^        |  `-> PROMOTING -> FOREIGN (primary here)
 *                 | `--------+----> FAILED (everything is closed, then started again, with
 * back-off)
 *                 `-> FOREIGN
 *
 * Invariant E1: whatever is acknowledged as durable is in the journal, durably, and stays there
 * until it is on the volumes, durably. Any failure leads back to what is on the disk. Invariant E2:
 * the superblock alone says what the group is; the role changes in one store.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "core/base/units.h"
#include "engine/internal.h"

#define RETRY_MIN_NS	NS_PER_S
#define RETRY_MAX_NS	(30 * NS_PER_S)
#define RETRY_FORGET_NS NS_PER_MINUTE  /* ready for that long: the next failure is a new one */
#define STOP_DRAIN_NS	(5 * NS_PER_S) /* how long a stop waits for apply to catch up */

static void step_due(struct io_timer *timer)
{
	standby_step(container_of(timer, struct engine_group, step_timer));
}

int engine_group_new(const struct engine_options *options, struct engine_group **ret_group)
{
	struct engine_group *group = io_alloc(options->io, sizeof(*group), 64);
	int r = -EINVAL;

	if (!group)
		return -ENOMEM;
	group->io = options->io;
	group->options = *options;
	group->conf = options->group;
	group->state = ENGINE_STOPPED;
	group->step_timer.fire = step_due;
	list_init(&group->held);
	checkpoint_init(group);
	/* The largest segment and its unpacked data, in one piece, wherever the ring's head stands.
	 */
	if (group->conf->memory_bytes >= 4ull * SEGMENT_TOTAL_MAX_BYTES)
		r = segring_init(&group->ring, group->io, group->conf->memory_bytes);
	if (!r)
		r = group_dir_init(&group->dir, group->io, options->conf->state_dir,
				   group->conf->name);
	if (!r)
		r = applier_init(group);
	if (!r)
		r = copy_init(group);
	if (!r)
		r = compare_init(group);
	if (!r)
		r = session_init(group);
	if (r) {
		engine_group_free(group);
		return r;
	}
	*ret_group = group;
	return 0;
}

struct engine_group *engine_group_free(struct engine_group *group)
{
	struct io *io = group->io;

	must(group->state == ENGINE_STOPPED);
	session_deinit(group);
	compare_deinit(group);
	copy_deinit(group);
	applier_deinit(group);
	group_dir_deinit(&group->dir);
	if (group->ring.io)
		segring_deinit(&group->ring);
	io_free(io, group);
	return NULL;
}

/* ---- what others ask --------------------------------------------------------------------------
 */

bool standby_applies(const struct engine_group *group)
{
	if (!group->journal_open || group->hold)
		return false;
	return group->state == ENGINE_READY || group->state == ENGINE_PROMOTING ||
	       (group->state == ENGINE_STOPPING && group->stop_phase == STOP_DRAIN);
}

bool standby_quiet(const struct engine_group *group)
{
	return !group->op_busy && !group->task_storing && !group->grow.busy &&
	       !rejoin_busy(group) && kept_quiet(group) && applier_idle(group) &&
	       !group->dir.storing && !group->turn_pending && !group->receiving &&
	       group->copy.placing < 0 && !link_places(group->link) && !link_queued(group->link) &&
	       !link_queued(group->refuse_link) &&
	       (!group->journal_open || journal_is_quiet(&group->journal));
}

void standby_close(struct engine_group *group)
{
	checkpoint_stop(group);
	rejoin_over(group);
	receive_forget(group);
	copy_reset(group);
	if (group->tail_open)
		tail_deinit(&group->tail);
	group->tail_open = false;
	if (group->journal_open)
		journal_close(&group->journal);
	group->journal_open = false;
	if (group->journal.options.io)
		journal_deinit(&group->journal);
	kept_close(group);
	group->rollback.wanted = group->rollback.running = group->rollback.anew = false;
	if (group->volumes_open)
		volumes_close(&group->volumes);
	group->volumes_open = false;
	if (group->dir_open)
		group_dir_close(&group->dir);
	group->dir_open = false;
	group->hold = false;
}

/* ---- start ------------------------------------------------------------------------------------
 */

static void report_started(struct engine_group *group, int res)
{
	const struct engine_events *events = &group->options.events;

	if (group->reported)
		return;
	group->reported = true;
	if (events->started)
		events->started(events->owner, group, res);
}

static void start(struct engine_group *group)
{
	group->state = ENGINE_STARTING;
	group->closed = false;
	open_start(group);
}

void engine_group_start(struct engine_group *group)
{
	must(group->state == ENGINE_STOPPED || group->state == ENGINE_FOREIGN);
	group->reported = group->stop_wanted = false;
	group->detail[0] = 0;
	group->retry_ns = 0;
	if (group->op_busy)
		group->state = ENGINE_STARTING; /* the look that is under way starts it */
	else
		start(group);
}

void standby_ready(struct engine_group *group)
{
	group->state = ENGINE_READY;
	group->ready_ns = io_now(group->io);
	memcpy(group->detail, group->kept.lost, sizeof(group->detail));
	group->told[0] = 0;
	group->fail_res = 0;
	checkpoint_start(group);
	applier_kick(group);
	report_started(group, 0);
	if (group->promote && !group->promote_over)
		promote_begin(group);
	task_step(group);
}

void standby_foreign(struct engine_group *group)
{
	group->state = ENGINE_FOREIGN;
	group->detail[0] = group->told[0] = 0;
	group->fail_res = 0;
	report_started(group, 1);
	if (group->offer_stream)
		session_offer(group);
	if (group->promote && !group->promote_over)
		promote_foreign(group);
	task_foreign(group);
	if (group->stop_wanted)
		standby_stop_start(group);
}

/* ---- failure ----------------------------------------------------------------------------------
 */

void standby_fail(struct engine_group *group, int res, const char *text)
{
	char detail[STATUS_TEXT_MAX];

	must(res < 0);
	if (group->state == ENGINE_FAILED || group->state == ENGINE_STOPPED ||
	    group->state == ENGINE_FOREIGN || (group->state == ENGINE_STOPPING && group->fail_res))
		return;
	group->errors++;
	snprintf(detail, sizeof(detail), "%.200s (%.40s)", text, err_text(res));
	memcpy(group->detail, detail, sizeof(detail));
	group->fail_res = res;
	/* Tried again and again for the same reason is told once; and who waits for the start tells
	 * that there is no directory yet, or that somebody else has it. */
	if (strcmp(detail, group->told) != 0 &&
	    (group->reported || (res != -ENOENT && res != -EWOULDBLOCK)))
		log_warning("standby has failed", "group=%s reason=\"%s\"", group->conf->name,
			    detail);
	memcpy(group->told, detail, sizeof(detail));
	if (group->state == ENGINE_STOPPING) {
		group->stop_phase = STOP_CLOSE;
	} else {
		if (group->ready_ns && io_now(group->io) - group->ready_ns > RETRY_FORGET_NS)
			group->retry_ns = 0;
		group->ready_ns = 0;
		group->retry_ns =
			group->retry_ns ? min_u64(2 * group->retry_ns, RETRY_MAX_NS) : RETRY_MIN_NS;
		group->retry_at_ns = io_now(group->io) + group->retry_ns;
		group->state = ENGINE_FAILED;
	}
	checkpoint_stop(group);
	take_over_failed(group);
	session_refuse(group, LINK_REFUSE_ERROR, group->detail);
	if (group->promote && !group->promote_over)
		promote_finish(
			group, res,
			"%s; correct that and promote again: nothing that was received is lost",
			group->detail);
	if (!group->task_storing)
		task_finish(group, res, "%s", group->detail);
	report_started(group, res);
	standby_poke(group);
}

void standby_journal_failed(void *owner, int res, const char *text)
{
	standby_fail(owner, res, text);
}

static void fail_step(struct engine_group *group)
{
	if (!group->closed) {
		if (!standby_quiet(group))
			return;
		standby_close(group);
		group->closed = true;
	}
	if (group->stop_wanted)
		standby_stop_start(group);
	else if (io_now(group->io) >= group->retry_at_ns)
		start(group);
}

/* ---- stop -------------------------------------------------------------------------------------
 */

void standby_stop_start(struct engine_group *group)
{
	group->state = ENGINE_STOPPING;
	group->stop_phase = STOP_CLOSE;
	standby_poke(group);
}

static void report_stopped(struct engine_group *group)
{
	const struct engine_events *events = &group->options.events;
	int res = group->fail_res;

	io_timer_stop(group->io, &group->step_timer);
	standby_close(group);
	group->state = ENGINE_STOPPED;
	group->fail_res = 0;
	if (events->stopped)
		events->stopped(events->owner, group, res);
}

static bool all_applied(const struct engine_group *group)
{
	return group->journal.durable_seq == group->journal.appended_seq &&
	       group->applied_seq == group->journal.appended_seq && !copy_waiting(group);
}

/* True when that was the end: the owner may have freed the group. */
static bool stop_step(struct engine_group *group)
{
	if (group->op_busy)
		return false;
	promote_finish(group, -ESHUTDOWN, "the engine stops");
	if (!group->task_storing)
		task_finish(group, -ESHUTDOWN, "the engine stops");
	if (group->stop_phase == STOP_DRAIN) {
		if (!all_applied(group) &&
		    io_now(group->io) - group->stop_since_ns < STOP_DRAIN_NS) {
			applier_kick(group);
			return false;
		}
		group->stop_phase = STOP_FINAL;
		checkpoint_run(group, true);
		return false;
	}
	if (group->stop_phase == STOP_FINAL) {
		if (!applier_idle(group) || group->grow.busy || group->dir.storing)
			return false;
		group->stop_phase = STOP_CLOSE;
		if (suspect_stamp(group))
			return false;
	}
	if (!standby_quiet(group) || group->promote_over || group->task_over)
		return false;
	report_stopped(group);
	return true;
}

void engine_group_stop(struct engine_group *group)
{
	group->stop_wanted = true;
	switch (group->state) {
	case ENGINE_READY:
		group->state = ENGINE_STOPPING;
		group->stop_phase = STOP_DRAIN;
		group->stop_since_ns = io_now(group->io);
		session_end(group, "this standby stops");
		break;
	case ENGINE_STOPPED:
	case ENGINE_FOREIGN:
		group->state = ENGINE_STOPPING;
		group->stop_phase = STOP_CLOSE;
		break;
	case ENGINE_STARTING:  /* open.c sees it */
	case ENGINE_PROMOTING: /* comes to an end first */
		rollback_cancel(group);
		break;
	case ENGINE_FAILED:
	case ENGINE_STOPPING:
		break;
	}
	if (group->offer_stream)
		session_offer(group);
	standby_poke(group);
}

/* ---- steps ------------------------------------------------------------------------------------
 */

static bool waits(const struct engine_group *group)
{
	switch (group->state) {
	case ENGINE_READY:
		return group->session.state == SESSION_CHECKING ||
		       group->session.state == SESSION_STARTING;
	case ENGINE_PROMOTING:
	case ENGINE_STOPPING:
	case ENGINE_FAILED:
		return true;
	case ENGINE_STOPPED:
	case ENGINE_STARTING:
	case ENGINE_FOREIGN:
		return false;
	}
	must_not_reach();
}

void standby_poke(struct engine_group *group)
{
	io_timer_start(group->io, &group->step_timer, 0);
}

void standby_step(struct engine_group *group)
{
	uint64_t now, delay = ENGINE_STEP_NS;

	switch (group->state) {
	case ENGINE_READY:
		session_step(group);
		break;
	case ENGINE_PROMOTING:
		promote_step(group);
		break;
	case ENGINE_STOPPING:
		if (stop_step(group))
			return;
		break;
	case ENGINE_FAILED:
		fail_step(group);
		break;
	case ENGINE_STOPPED:
	case ENGINE_STARTING:
	case ENGINE_FOREIGN:
		return;
	}
	if (!waits(group) || group->step_timer.deadline_ns)
		return;
	now = io_now(group->io);
	if (group->state == ENGINE_FAILED && group->closed)
		delay = max_u64(delay, sub_floor_u64(group->retry_at_ns, now));
	io_timer_start(group->io, &group->step_timer, delay);
}
