/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of a primary's group: start, settle, serve, stop; and the two ways out, fenced and failed.
 *
 *   STARTING -> SETTLING -> SERVING -> STOPPING -> STOPPED
 *                  |  ^--- accepted ---- HELD (held.h)
 *                  |           |
 *                  +-----------+--> FENCED (a higher epoch rules)  or  FAILED (an invariant of the
 * disk broke)
 *
 * Invariant G1: nothing is served before recovery is done and every standby has answered which
 * epoch rules, or settle_timeout passed. Invariant G2: once FENCED or FAILED, no request is
 * acknowledged any more. Invariant G3: a FENCED group stops serving first, then records it, then
 * closes everything and lets go of the directory's lock: from there on the directory is the
 * engine's.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/ship.h"

#define STOP_POLL_NS		  2000000ull
#define WRITESET_BYTES_PER_EXTENT 4096u

static void stop_poll(struct io_timer *timer);

int agent_group_new(const struct agent_options *options, struct agent_group **ret_group)
{
	struct agent_group *group = io_alloc(options->io, sizeof(*group), 64);
	int r = -ENOMEM;

	if (!group)
		return -ENOMEM;
	group->io = options->io;
	group->options = *options;
	group->conf = options->group;
	group->state = AGENT_STOPPED;
	r = capture_init(group);
	if (!r)
		r = agent_drain_init(group);
	if (!r)
		r = segring_init(&group->ring, group->io, group->conf->memory_bytes);
	if (!r)
		r = writeset_init(&group->writeset, group->io,
				  group->conf->memory_bytes / WRITESET_BYTES_PER_EXTENT +
					  2 * SEGMENT_RECORDS_MAX);
	if (!r)
		r = group_dir_init(&group->dir, group->io, options->conf->state_dir,
				   group->conf->name);
	if (r) {
		agent_group_free(group);
		return r;
	}
	*ret_group = group;
	return 0;
}

static void close_all(struct agent_group *group)
{
	for (unsigned i = 0; i < group->ship_count; i++)
		ship_free(group->ships[i]);
	group->ship_count = 0;
	if (group->replay_open)
		journal_reader_deinit(&group->replay);
	group->replay_open = false;
	if (group->journal_open)
		journal_close(&group->journal);
	if (group->journal.options.io)
		journal_deinit(&group->journal);
	group->journal_open = false;
	if (group->volumes_open)
		volumes_close(&group->volumes);
	group->volumes_open = false;
	if (group->dir_open)
		group_dir_close(&group->dir);
	group->dir_open = false;
}

struct agent_group *agent_group_free(struct agent_group *group)
{
	struct io *io = group->io;

	close_all(group);
	group_dir_deinit(&group->dir);
	writeset_deinit(&group->writeset);
	if (group->ring.io)
		segring_deinit(&group->ring);
	agent_drain_deinit(group);
	capture_deinit(group);
	io_free(io, group);
	return NULL;
}

void agent_group_start(struct agent_group *group)
{
	must(group->state == AGENT_STOPPED);
	group->state = AGENT_STARTING;
	group->detail[0] = 0;
	recover_start(group);
}

void agent_report_started(struct agent_group *group, int res)
{
	struct agent_events *events = &group->options.events;

	group->reported = true;
	if (events->started)
		events->started(events->owner, group, res);
}

void agent_may_serve(struct agent_group *group)
{
	/* HELD without the flag: a standby had not said whether it took over, and now has. */
	bool waits = group->state == AGENT_SETTLING ||
		     (group->state == AGENT_HELD && !(group->dir.sb.flags & SUPERBLOCK_HELD) &&
		      !group->held.task);

	if (!waits || (group->unsettled && !group->settle_over) ||
	    group->handover.state != HANDOVER_NONE)
		return;
	group->held.text[0] = 0;
	group->fail_res = 0;
	io_timer_stop(group->io, &group->settle_timer);
	group->state = AGENT_SERVING;
	group->served = true;
	io_timer_start(group->io, &group->checkpoint_timer, group->conf->checkpoint_interval_ns);
	agent_report_started(group, 0);
}

static void settle_due(struct io_timer *timer)
{
	struct agent_group *group = container_of(timer, struct agent_group, settle_timer);

	group->settle_over = true;
	if (group->handover.state != HANDOVER_NONE)
		held_wait(group);
	agent_may_serve(group);
}

void agent_settled(struct agent_group *group)
{
	must(group->unsettled);
	group->unsettled--;
	agent_may_serve(group);
}

static void settle_begin(struct agent_group *group)
{
	group->unsettled = group->ship_count;
	group->settle_over = false;
	group->settle_timer.fire = settle_due;
	io_timer_start(group->io, &group->settle_timer,
		       group->ship_count ? group->conf->settle_timeout_ns : 0);
}

void agent_settle_again(struct agent_group *group)
{
	if (group->state == AGENT_HELD) {
		group->state = AGENT_SETTLING;
		for (unsigned i = 0; i < group->ship_count; i++)
			group->ships[i]->settled = false;
		settle_begin(group);
	}
	for (unsigned i = 0; i < group->ship_count; i++)
		ship_retry(group->ships[i]);
}

static int make_ships(struct agent_group *group)
{
	for (unsigned i = 0; i < group->conf->peer_count; i++) {
		int r;

		if (group->conf->peers[i].role == CONF_PEER_SOURCE)
			continue;
		if (group->ship_count == GROUP_PEERS_MAX) {
			snprintf(group->detail, sizeof(group->detail),
				 "more than %u standbys are configured; remove some",
				 GROUP_PEERS_MAX);
			return -E2BIG;
		}
		r = ship_new(group, &group->conf->peers[i], &group->ships[group->ship_count]);
		if (r)
			return r;
		group->ship_count++;
	}
	return 0;
}

static bool quiet(const struct agent_group *group)
{
	for (unsigned i = 0; i < group->ship_count; i++)
		if (!ship_quiet(group->ships[i]))
			return false;
	return !stamp_is_running(&group->stamp) && !group->resize.task && !group->apply.running &&
	       group->checkpoint_state == CHECKPOINT_IDLE && list_empty(&group->reads) &&
	       !group->releasing && !group->turn_pending && !group->finished_pending &&
	       !group->dir.storing && (!group->journal_open || journal_is_quiet(&group->journal));
}

/* G3: what is in flight ends, the fence is recorded (or that has failed); then nothing here touches
 * the directory any more. */
static void let_go_due(struct io_timer *timer)
{
	struct agent_group *group = container_of(timer, struct agent_group, settle_timer);
	struct agent_events *events = &group->options.events;

	if (!quiet(group)) {
		io_timer_start(group->io, timer, STOP_POLL_NS);
		return;
	}
	close_all(group);
	handover_over(group);
	if (events->released)
		events->released(events->owner, group);
}

static void let_go(struct agent_group *group)
{
	group->settle_timer.fire = let_go_due;
	io_timer_start(group->io, &group->settle_timer, 0);
}

void recover_done(struct agent_group *group, int res)
{
	if (group->replay_open)
		journal_reader_deinit(&group->replay);
	group->replay_open = false;
	if (!res && group->stop_wanted)
		res = -ECANCELED;
	if (!res)
		res = make_ships(group);
	if (res || !suspect_mark(group))
		recover_marked(group, res);
}

void recover_marked(struct agent_group *group, int res)
{
	if (!res && group->stop_wanted)
		res = -ECANCELED;
	if (res) {
		group->state = res == -ESTALE ? AGENT_FENCED : AGENT_FAILED;
		group->fail_res = res;
		if (!group->detail[0])
			snprintf(group->detail, sizeof(group->detail), "cannot start: %s",
				 strerror(-res));
		if (group->dir_open && group->dir.sb.role != GROUP_PRIMARY)
			let_go(group);
		agent_report_started(group, res);
		if (group->stop_wanted)
			agent_group_stop(group);
		return;
	}
	capture_exports(group);
	group->state = AGENT_SETTLING;
	agent_drain_floor(group);
	syncmode_start(group);
	ladder_start(group);
	settle_begin(group);
	for (unsigned i = 0; i < group->ship_count; i++)
		ship_start(group->ships[i]);
	held_start(group);
}

static void leave_service(struct agent_group *group, enum agent_state state, int res)
{
	struct agent_events *events = &group->options.events;
	bool stopping = group->state == AGENT_STOPPING;
	bool served = group->state == AGENT_SERVING || stopping;

	/* A stop that is under way goes on, and ends here. */
	if (!stopping)
		io_timer_stop(group->io, &group->settle_timer);
	group->state = state;
	group->fail_res = res;
	capture_fail_all(group, state == AGENT_FENCED ? -ESHUTDOWN : -EIO);
	io_timer_stop(group->io, &group->checkpoint_timer);
	io_timer_stop(group->io, &group->apply_timer);
	commit_stop(group);
	for (unsigned i = 0; i < group->ship_count; i++)
		ship_stop(group->ships[i]);
	if (group->mark_op) {
		io_defer(group->io, group->mark_op, -EIO);
		group->mark_op = NULL;
	}
	if (state == AGENT_FAILED)
		handover_failed(group, res);
	held_over(group);
	if (state == AGENT_FENCED && !stopping)
		let_go(group);
	if (!group->reported)
		agent_report_started(group, res);
	else if (served && events->failed)
		events->failed(events->owner, group, res);
}

void agent_fail(struct agent_group *group, int res, const char *text)
{
	if (group->state == AGENT_FAILED || group->state == AGENT_FENCED)
		return;
	snprintf(group->detail, sizeof(group->detail), "%s (%s)", text, strerror(-res));
	leave_service(group, AGENT_FAILED, res);
}

void agent_journal_failed(void *owner, int res, const char *text)
{
	agent_fail(owner, res, text);
}

static void fence_stored(struct io_op *op, int64_t res)
{
	(void)op;
	(void)res; /* not stored: the next start asks the peers again before it serves anything */
}

void agent_fenced(struct agent_group *group, uint64_t epoch, const char *node)
{
	struct superblock *sb = &group->dir.sb;

	if (group->state == AGENT_FAILED || group->state == AGENT_FENCED)
		return;
	snprintf(group->detail, sizeof(group->detail),
		 "fenced: epoch %llu rules at %s; serving has stopped", (unsigned long long)epoch,
		 node);
	sb->flags &= ~(uint32_t)SUPERBLOCK_HELD;
	handover_fenced(group, epoch, node);
	if (group->handover.taken)
		snprintf(group->detail, sizeof(group->detail),
			 "handed over: %s is primary under epoch %llu", node,
			 (unsigned long long)epoch);
	leave_service(group, AGENT_FENCED, -ESTALE);
	sb->role = GROUP_FENCED;
	sb->fenced_by_epoch = epoch;
	snprintf(sb->fenced_by, sizeof(sb->fenced_by), "%s", node);
	/* Beside the one of a stop, which may be under way. */
	group->fence_op.done = fence_stored;
	group_dir_store(&group->dir, &group->fence_store, &group->fence_op);
}

/* Stop. */

static void report_stopped(struct agent_group *group, int res)
{
	struct agent_events *events = &group->options.events;

	io_timer_stop(group->io, &group->settle_timer);
	commit_stop(group);
	group->state = AGENT_STOPPED;
	close_all(group);
	handover_over(group);
	if (events->stopped)
		events->stopped(events->owner, group, res);
}

static void clean_stored(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, state_op);

	if (res < 0)
		agent_fail(group, (int)res, "the superblock cannot be written");
	group->clean_stored = true;
}

/* Nothing writes to the volumes any more. */
static void stamped(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, state_op);
	struct superblock *sb = &group->dir.sb;

	if (group->state != AGENT_STOPPING)
		return;
	memset(sb->stamps, 0, sizeof(sb->stamps));
	if (res == 0) /* else the next start does not know */
		memcpy(sb->stamps, group->stamps, sb->volume_count * sizeof(sb->stamps[0]));
	sb->flags |= SUPERBLOCK_CLEAN;
	sb->durable_seq = group->journal.durable_seq;
	group->state_op.done = clean_stored;
	group_dir_store(&group->dir, &group->state_store, &group->state_op);
}

void agent_step_stop(struct agent_group *group)
{
	struct journal *journal = &group->journal;

	/* What a resize still writes comes before the stamps. */
	if (group->state != AGENT_STOPPING || group->clean_stored || group->state_op.done ||
	    group->resize.task)
		return;
	commit_seal(group);
	if (journal->durable_seq < group->head_seq) {
		journal_flush(journal, group->head_seq);
		if (journal->blocked)
			agent_drain_space(group, true);
	} else if (group->applied_seq < group->head_seq) {
		agent_drain_kick(group, true);
	} else if (!agent_drain_idle(group)) {
		agent_drain_checkpoint(group);
	} else if (syncmode_has_left(group)) {
		group->state_op.done = stamped;
		stamp_take(&group->stamp, &group->volumes, group->stamps, &group->state_op);
	}
}

static void stop_poll(struct io_timer *timer)
{
	struct agent_group *group = container_of(timer, struct agent_group, settle_timer);
	bool done = group->state != AGENT_STOPPING || group->clean_stored;

	agent_step_stop(group);
	if (done && quiet(group)) {
		report_stopped(group, group->fail_res);
		return;
	}
	if (done)
		for (unsigned i = 0; i < group->ship_count; i++)
			ship_stop(group->ships[i]);
	io_timer_start(group->io, &group->settle_timer, STOP_POLL_NS);
}

void agent_group_stop(struct agent_group *group)
{
	if (group->state == AGENT_STARTING) {
		group->stop_wanted = true; /* recovery ends as soon as it can; see recover_done() */
		return;
	}
	if (group->state == AGENT_SERVING || group->state == AGENT_SETTLING) {
		handover_stop(group);
		held_over(group);
		group->state = AGENT_STOPPING;
		group->state_op.done = NULL;
		group->clean_stored = false;
		io_timer_stop(group->io, &group->checkpoint_timer);
		capture_fail_stalled(group, -ESHUTDOWN);
		syncmode_leave(group);
	}
	if (group->state == AGENT_HELD)
		held_over(group);
	group->settle_timer.fire = stop_poll;
	io_timer_start(group->io, &group->settle_timer, 0);
}

void agent_group_leave(struct agent_group *group)
{
	syncmode_leave(group);
}

struct export *agent_group_export_at(struct agent_group *group, unsigned index)
{
	if (group->state != AGENT_SERVING || index >= group->volumes.count)
		return NULL;
	return &group->exports[index].export;
}

struct export *agent_group_export(struct agent_group *group, const char *volume)
{
	struct export *export;

	for (unsigned i = 0; (export = agent_group_export_at(group, i)); i++)
		if (!strcmp(export->name, volume))
			return export;
	return NULL;
}

void agent_group_mark(struct agent_group *group, const char *name, struct io_op *op)
{
	struct record record = { .type = RECORD_MARK, .length_bytes = (uint32_t)strlen(name) };

	if (group->state != AGENT_SERVING) {
		io_defer(group->io, op, -ESHUTDOWN);
	} else if (group->mark_op || agent_holds(group)) {
		io_defer(group->io, op, -EBUSY);
	} else if (record.length_bytes == 0 || record.length_bytes > 255) {
		io_defer(group->io, op, -EINVAL);
	} else {
		/* In a segment of its own: names have no alignment, and writes keep theirs. */
		commit_seal(group);
		if (commit_record(group, &record, (const uint8_t *)name)) {
			io_defer(group->io, op, -EAGAIN);
			return;
		}
		commit_seal(group);
		group->mark_op = op;
		group->mark_seq = group->head_seq;
		commit_flush(group, group->mark_seq);
	}
}
