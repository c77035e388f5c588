/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks into the agent and the engine from time to time: what have they come across, and do they
 * keep within what they are allowed? Reads only; a run is the same without it.
 */
#include <string.h>

#include "agent/ship.h"
#include "core/group/journal_internal.h"
#include "tests/sim/pair.h"
#include "tests/sim/reach.h"

static struct ship *ship_of(const struct site *site)
{
	return site->agent && site->agent->ship_count ? site->agent->ships[0] : NULL;
}

/* A segment is sent while less than the window is under way. */
static void check_window(struct pair *pair, const struct ship *ship)
{
	uint64_t most = ship->window_bytes + pair->slot_bytes;

	if (ship->state == SHIP_STREAMING && ship->unacked_bytes >= most)
		sim_fail(pair->world, "%llu bytes are under way, the window is %llu",
			 (unsigned long long)ship->unacked_bytes,
			 (unsigned long long)ship->window_bytes);
	if (ship->state == SHIP_STREAMING && ship->unacked_bytes >= ship->window_bytes)
		REACH(WINDOW_FULL);
}

/* Invariant S1, as far as it can be seen: the journal keeps what the standby may still ask for. */
static void check_floor(struct pair *pair, const struct ship *ship, struct seen *seen)
{
	uint64_t floor_seq = ship->group->journal.floor_seq;
	/* What went before the stream began, for one that nothing was known of, is no matter. */
	bool grew = seen->generation == ship->generation && floor_seq > seen->floor_seq;

	if (ship->state == SHIP_STREAMING && grew && floor_seq > ship_floor(ship))
		sim_fail(pair->world, "the journal has let go of seq %llu, the standby needs %llu",
			 (unsigned long long)floor_seq, (unsigned long long)ship_floor(ship) + 1);
	seen->floor_seq = floor_seq;
}

static void look_at_stream(const struct ship *ship, struct seen *seen)
{
	if (ship->state != SHIP_STREAMING || ship->generation == seen->generation)
		return;
	seen->generation = ship->generation;
	if (ship->start.reset)
		REACH(STREAM_RESET);
	else if (ship->start.from_seq > 1)
		REACH(STREAM_RESUMED);
	if (ship->start.sync)
		REACH(COPY_BEGUN);
	if (ship->start.sync && !ship->start.reset && ship->start.sync_bytes &&
	    ship->start.sync_bytes < PAIR_VOLUMES * PAIR_VOLUME_BYTES)
		REACH(COPY_RESUMED);
}

static void look_at_copy(const struct ship *ship, struct seen *seen)
{
	bool active = ship_sync_active(ship->sync);

	if (active && seen->copying && ship->group->head_seq > seen->head_seq)
		REACH(COPY_UNDER_WRITES);
	if (seen->copying && !active && !ship->peer->needs_sync)
		REACH(COPY_COMPLETED);
	seen->copying = active;
	seen->head_seq = ship->group->head_seq;
}

/* What differs without anybody having touched it is a bug, on one side or the other. */
static void look_at_verify(struct pair *pair, const struct ship *ship, struct seen *seen)
{
	static struct status_verify verify;

	if (ship_sync_compared_bytes(ship->sync))
		REACH(COMPARED);
	ship_verify_status(ship->verify, &verify);
	if (verify.differing_ranges && !pair->unreadable)
		sim_fail(pair->world,
			 "a verification found a difference: volume %s, offset %llu, %llu bytes",
			 verify.ranges[0].volume, (unsigned long long)verify.ranges[0].off,
			 (unsigned long long)verify.ranges[0].len);
	if (verify.verified_seq > seen->verified_seq) {
		REACH(VERIFIED);
		if (ship->group->head_seq > verify.verified_seq)
			REACH(VERIFIED_UNDER_WRITES);
	}
	seen->verified_seq = verify.verified_seq;
}

static void look_at_release(const struct ship *ship, struct seen *seen)
{
	uint64_t released_seq = ship->peer->released_seq;
	bool by_reset = ship->start.reset && ship->start.from_seq == released_seq + 1;

	if (seen->known && released_seq > seen->released_seq && !by_reset) {
		REACH(RELEASED);
		if (seen->needs_sync)
			REACH(RELEASED_AGAIN);
	}
	seen->known = true;
	seen->released_seq = released_seq;
	seen->needs_sync = ship->peer->needs_sync;
}

static void look_at_counters(const struct agent_group *group, const struct ship *ship,
			     struct seen *seen)
{
	if (ship->tail.memory_hits > seen->memory_hits)
		REACH(SENT_FROM_MEMORY);
	if (ship->tail.disk_reads > seen->disk_reads)
		REACH(SENT_FROM_DISK);
	if (group->stalls > seen->stalls)
		REACH(STALLED);
	if (group->journal.blocked)
		REACH(JOURNAL_BLOCKED);
	if (ship->coalesce.count > seen->coalesced)
		REACH(COALESCED);
	seen->coalesced = ship->coalesce.count;
	if (group->journal.rewrites > seen->rewrites)
		REACH(JOURNAL_REWRITTEN);
	seen->memory_hits = ship->tail.memory_hits;
	seen->disk_reads = ship->tail.disk_reads;
	seen->stalls = group->stalls;
	seen->rewrites = group->journal.rewrites;
}

static void look_at_mode(const struct agent_group *group, struct seen *seen)
{
	const struct syncmode *mode = &group->syncmode;

	if (mode->losses > seen->sync_losses) {
		if (group->conf->on_sync_loss == CONF_LOSS_FREEZE)
			REACH(MODE_FROZEN);
		else
			REACH(MODE_LOST);
	}
	if (seen->lost && mode->state == SYNCMODE_IN_SYNC)
		REACH(MODE_BACK);
	seen->sync_losses = mode->losses;
	seen->lost = mode->lost_since_ns != 0;
}

void pair_look(struct pair *pair)
{
	for (unsigned i = 0; i < 2; i++) {
		struct site *site = &pair->sites[i];
		const struct ship *ship = ship_of(site);

		pair_look_engine(site);
		if (!ship || !site->agent->served)
			continue;
		check_window(pair, ship);
		check_floor(pair, ship, &site->seen);
		look_at_stream(ship, &site->seen);
		look_at_copy(ship, &site->seen);
		look_at_verify(pair, ship, &site->seen);
		look_at_release(ship, &site->seen);
		look_at_counters(site->agent, ship, &site->seen);
		look_at_mode(site->agent, &site->seen);
	}
}

bool pair_copying(const struct site *site)
{
	const struct ship *ship = ship_of(site);

	return ship && ship_sync_active(ship->sync);
}

static bool any_again(const struct list *segments)
{
	struct list *pos;

	list_for_each (pos, segments) {
		switch (container_of(pos, struct segment, journal_link)->journal_state) {
		case JOURNAL_SEGMENT_QUEUED_AGAIN:
		case JOURNAL_SEGMENT_WRITING_DSYNC:
			return true;
		default:
			break;
		}
	}
	return false;
}

bool pair_disk_dropped(const struct site *site)
{
	const struct journal *journal = site->agent ? &site->agent->journal : NULL;

	if (!journal || !journal->opened)
		return false;
	return journal->internal->failing ||
	       (journal->rewrites && (any_again(&journal->queue) || any_again(&journal->flight)));
}
