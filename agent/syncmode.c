/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mode sync: what is acknowledged as durable is durable on a standby, too (on all of them).
 *
 *   WAITING --(enough in sync, and they hold what was acknowledged alone)--> IN_SYNC
 *     ^  ^----------------------(one is missing)----------------------------------'
 *     |  |
 *     |  +-- sync_timeout --> LOST    on_sync_loss async: acknowledgements go on alone
 *     |                       FROZEN  on_sync_loss freeze: they wait
 *     +---(enough have caught up)--- LOST
 *
 * A standby counts when it streams, nothing is copied to it and nothing is due to be: only then is
 * what it acknowledges a position that it can be promoted to. It is in sync once it has caught up
 * in this session: it came to what was our end within half a sync_timeout.
 *
 * Invariant N1: outside of LOST nothing is acknowledged as durable behind held_seq, and everything
 * up to held_seq is durable on as many standbys that count as the mode asks for. Invariant N2: a
 * standby is told that it holds every promise only when it holds all that was acknowledged alone
 * (alone_seq), and nothing is acknowledged without it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/ship.h"
#include "core/base/log.h"

#define TIMEOUT_DEFAULT_NS 10000000000ull
#define TICK_MAX_NS	   250000000ull

static uint64_t timeout_ns(const struct agent_group *group)
{
	return group->conf->sync_timeout_ns ? group->conf->sync_timeout_ns : TIMEOUT_DEFAULT_NS;
}

/* Whether what it acknowledges is safe there. */
static bool counts(const struct ship *ship)
{
	return ship->state == SHIP_STREAMING && !ship->peer->needs_sync &&
	       !ship_sync_active(ship->sync);
}

bool syncmode_in_sync(const struct ship *ship)
{
	return ship->group->conf->mode != CONF_ASYNC && counts(ship) && ship->catch.caught_up &&
	       ship->catch.stream == ship->streams;
}

/* It has caught up when it comes to what was our end in less time than an acknowledgement may wait:
 * it need not ever be exactly where we are. */
static void look_at(struct ship *ship, uint64_t now_ns)
{
	struct agent_group *group = ship->group;
	struct ship_catch *catch = &ship->catch;

	if (!counts(ship) || catch->stream != ship->streams)
		*catch = (struct ship_catch){ .stream = ship->streams };
	if (!counts(ship) || catch->caught_up)
		return;
	if (catch->known && ship->durable_seq >= catch->target_seq &&
	    now_ns - catch->since_ns <= timeout_ns(group) / 2) {
		catch->caught_up = true;
		return;
	}
	if (!catch->known || ship->durable_seq >= catch->target_seq) {
		catch->known = true;
		catch->target_seq = group->journal.durable_seq;
		catch->since_ns = now_ns;
		catch->caught_up = ship->durable_seq >= catch->target_seq;
	}
}

/* True when as many standbys are in sync as the mode asks for; moves held_seq. */
static bool look_at_all(struct agent_group *group, uint64_t now_ns)
{
	bool all = group->conf->mode == CONF_SYNC_ALL, some = group->ship_count > 0;
	uint64_t held_seq = all && some ? UINT64_MAX : 0;
	unsigned in_sync = 0;

	for (unsigned i = 0; i < group->ship_count; i++) {
		struct ship *ship = group->ships[i];
		uint64_t seq = counts(ship) ? ship->durable_seq : 0;

		look_at(ship, now_ns);
		in_sync += syncmode_in_sync(ship);
		held_seq = all ? min_u64(held_seq, seq) : max_u64(held_seq, seq);
	}
	group->syncmode.held_seq = max_u64(group->syncmode.held_seq, held_seq);
	return some && in_sync >= (all ? group->ship_count : 1);
}

/* An acknowledgement that is durable here and waits for a standby only. */
static bool blocked(const struct agent_group *group)
{
	const struct export_request *first =
		list_first_as(&group->wait_durable, struct export_request, link);
	uint64_t seq = first ? first->priv[REQUEST_SEQ] : UINT64_MAX;

	if (group->mark_op)
		seq = min_u64(seq, group->mark_seq);
	return seq <= group->journal.durable_seq && seq > group->syncmode.held_seq;
}

/* How long the oldest one has waited, to an eighth of the timeout. */
static uint64_t waited_ns(struct agent_group *group, uint64_t now_ns)
{
	struct syncmode *mode = &group->syncmode;

	if (!blocked(group))
		mode->mark_count = 0;
	while (mode->mark_count && mode->marks[mode->mark_first].seq <= mode->held_seq) {
		mode->mark_first = (mode->mark_first + 1) % SYNCMODE_MARKS;
		mode->mark_count--;
	}
	if (blocked(group) && mode->mark_count < SYNCMODE_MARKS &&
	    (!mode->mark_count || now_ns - mode->marked_ns >= timeout_ns(group) / 8)) {
		mode->marks[(mode->mark_first + mode->mark_count++) % SYNCMODE_MARKS] =
			(struct syncmode_mark){ group->journal.durable_seq, now_ns };
		mode->marked_ns = now_ns;
	}
	return mode->mark_count ? now_ns - mode->marks[mode->mark_first].since_ns : 0;
}

static void tell_standbys(struct agent_group *group)
{
	for (unsigned i = 0; i < group->ship_count; i++)
		if (group->ships[i]->state == SHIP_STREAMING)
			ship_heartbeat(group->ships[i]);
}

static void become(struct agent_group *group, enum syncmode_state state)
{
	struct syncmode *mode = &group->syncmode;
	bool gone = state == SYNCMODE_LOST || state == SYNCMODE_FROZEN;

	mode->state = state;
	mode->mark_count = 0;
	if (gone && !mode->lost_since_ns) {
		mode->lost_since_ns = io_wall(group->io);
		mode->losses++;
		log_warning("no standby is in sync", "group=%s mode=%s acknowledgements=\"%s\"",
			    group->conf->name,
			    group->conf->mode == CONF_SYNC_ALL ? "sync-all" : "sync",
			    state == SYNCMODE_LOST ? "go on without it" : "wait for it");
	}
	if (state == SYNCMODE_IN_SYNC && mode->lost_since_ns) {
		log_info("in sync again", "group=%s held_seq=%llu", group->conf->name,
			 (unsigned long long)mode->held_seq);
		mode->lost_since_ns = 0;
	}
	/* Before anything is acknowledged under the new state. */
	tell_standbys(group);
}

static void lose(struct agent_group *group, bool slow)
{
	for (unsigned i = 0; slow && i < group->ship_count; i++)
		group->ships[i]->catch = (struct ship_catch){ .stream = group->ships[i]->streams };
	become(group,
	       group->conf->on_sync_loss == CONF_LOSS_FREEZE ? SYNCMODE_FROZEN : SYNCMODE_LOST);
}

static void step(struct agent_group *group)
{
	struct syncmode *mode = &group->syncmode;
	uint64_t now_ns = io_now(group->io), limit_ns = timeout_ns(group);
	bool enough = look_at_all(group, now_ns);
	bool late = waited_ns(group, now_ns) >= limit_ns;

	if (enough)
		mode->missing_ns = 0;
	else if (!mode->missing_ns)
		mode->missing_ns = now_ns;
	switch (mode->state) {
	case SYNCMODE_ASYNC:
		break;
	case SYNCMODE_LOST:
		if (enough)
			become(group, SYNCMODE_WAITING);
		break;
	case SYNCMODE_FROZEN:
		if (enough && mode->held_seq >= mode->alone_seq)
			become(group, SYNCMODE_IN_SYNC);
		break;
	case SYNCMODE_WAITING:
	case SYNCMODE_IN_SYNC:
		if (late || (!enough && now_ns - mode->missing_ns >= limit_ns))
			lose(group, late);
		else if (!enough && mode->state == SYNCMODE_IN_SYNC)
			become(group, SYNCMODE_WAITING);
		else if (enough && mode->state == SYNCMODE_WAITING &&
			 mode->held_seq >= mode->alone_seq)
			become(group, SYNCMODE_IN_SYNC);
		break;
	}
}

void syncmode_step(struct agent_group *group)
{
	if (agent_is_out(group))
		return;
	if (group->syncmode.state != SYNCMODE_ASYNC)
		step(group);
	commit_promise(group);
}

uint64_t syncmode_limit(const struct agent_group *group)
{
	switch (group->syncmode.state) {
	case SYNCMODE_ASYNC:
	case SYNCMODE_LOST:
		return UINT64_MAX;
	case SYNCMODE_WAITING:
	case SYNCMODE_IN_SYNC:
	case SYNCMODE_FROZEN:
		return group->syncmode.held_seq;
	}
	must_not_reach();
}

void syncmode_promised(struct agent_group *group, uint64_t seq)
{
	if (group->syncmode.state == SYNCMODE_LOST)
		group->syncmode.alone_seq = max_u64(group->syncmode.alone_seq, seq);
}

uint32_t syncmode_report(const struct ship *ship)
{
	const struct agent_group *group = ship->group;
	const struct syncmode *mode = &group->syncmode;

	if (mode->state == SYNCMODE_ASYNC)
		return LINK_ASYNC;
	if (mode->state == SYNCMODE_LOST || !counts(ship) || ship->durable_seq < mode->alone_seq)
		return LINK_SYNC_LOST;
	if (group->conf->mode != CONF_SYNC_ALL && group->ship_count > 1)
		return LINK_SYNC_ONE;
	return group->conf->on_sync_loss == CONF_LOSS_FREEZE ? LINK_SYNC_HELD : LINK_SYNC_ALL;
}

/* The group is to stop and no standby comes: who waits is told that it is not promised. */
static void give_up(struct agent_group *group)
{
	uint64_t durable_seq = group->journal.durable_seq;
	struct export_request *request;

	while ((request = list_first_as(&group->wait_durable, struct export_request, link)) &&
	       request->priv[REQUEST_SEQ] <= durable_seq) {
		list_remove(&request->link);
		capture_finish(group, request, -ESHUTDOWN);
	}
	if (group->mark_op && group->mark_seq <= durable_seq) {
		struct io_op *op = group->mark_op;

		group->mark_op = NULL;
		io_defer(group->io, op, -ESHUTDOWN);
	}
}

static void tick(struct io_timer *timer)
{
	struct agent_group *group = container_of(timer, struct agent_group, syncmode.timer);
	uint64_t period_ns = min_u64(max_u64(timeout_ns(group) / 8, 1000000), TICK_MAX_NS);

	if (agent_is_out(group))
		return;
	syncmode_step(group);
	if (group->syncmode.leave_ns && io_now(group->io) >= group->syncmode.leave_ns &&
	    syncmode_limit(group) != UINT64_MAX)
		give_up(group);
	io_timer_start(group->io, timer, period_ns);
}

void syncmode_start(struct agent_group *group)
{
	struct syncmode *mode = &group->syncmode;

	*mode = (struct syncmode){ .timer.fire = tick };
	if (group->conf->mode == CONF_ASYNC)
		return;
	/* Who promised what is in the journal now, and with whom, is not known. */
	mode->state = SYNCMODE_WAITING;
	mode->alone_seq = group->head_seq;
	io_timer_start(group->io, &mode->timer, 0);
}

void syncmode_stop(struct agent_group *group)
{
	io_timer_stop(group->io, &group->syncmode.timer);
}

void syncmode_leave(struct agent_group *group)
{
	struct syncmode *mode = &group->syncmode;
	uint64_t now_ns = io_now(group->io);

	if (!mode->leave_ns)
		mode->leave_ns =
			mode->state == SYNCMODE_FROZEN ? now_ns : now_ns + timeout_ns(group);
}

bool syncmode_has_left(const struct agent_group *group)
{
	return list_empty(&group->wait_durable) && !group->mark_op;
}

static const char *state_text(enum syncmode_state state)
{
	switch (state) {
	case SYNCMODE_ASYNC:
		return "async";
	case SYNCMODE_WAITING:
		return "waiting";
	case SYNCMODE_IN_SYNC:
		return "in-sync";
	case SYNCMODE_LOST:
		return "lost";
	case SYNCMODE_FROZEN:
		return "frozen";
	}
	must_not_reach();
}

void syncmode_status(const struct agent_group *group, struct status_group *s)
{
	static const char *const names[] = { "async", "sync", "sync-all" };

	snprintf(s->mode, sizeof(s->mode), "%s", names[group->conf->mode]);
	snprintf(s->mode_state, sizeof(s->mode_state), "%s", state_text(group->syncmode.state));
	s->lost_since_ns = group->syncmode.lost_since_ns;
	s->sync_losses = group->syncmode.losses;
}
