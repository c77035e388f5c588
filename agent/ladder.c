/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ladder of an outage, and how far up it is: what a standby lacks is kept in the journal; when
 * that is full, in the standby's dirty map (ship_release.c); the primary goes on in any case.
 *
 * When the journal will be full for a standby: the bytes that it lacks grow, by as many bytes of
 * journal as the same writes took; and so much journal is left before the first of them is
 * released (agent_drain_space: when fewer than two slots are free). Looked at once a second, over
 * LADDER_SAMPLES of them.
 */
#include <string.h>

#include "agent/ship.h"
#include "core/base/log.h"

#define LOOK_NS		1000000000ull
#define IN_SIGHT_NS	(30ull * 86400 * 1000000000)
#define GROWING_SAMPLES 3u
#define WARN_NS		(3600ull * 1000000000)

static uint64_t lowest_floor(const struct agent_group *group)
{
	uint64_t floor = UINT64_MAX;

	for (unsigned i = 0; i < group->ship_count; i++)
		if (!group->ships[i]->peer->needs_sync)
			floor = min_u64(floor, ship_floor(group->ships[i]));
	return floor;
}

/* Bytes of journal to be written until records of this standby are released. */
static double room_bytes(const struct ship *ship, double stored_per_byte)
{
	const struct journal *journal = &ship->group->journal;
	double slot_bytes = (double)journal->options.slot_bytes;
	unsigned free_slots = journal_free_slots(journal);
	double room;

	if (ship_floor(ship) == lowest_floor(ship->group)) {
		if (free_slots < 2)
			return 0;
		return slot_bytes * (free_slots - 2) + slot_bytes -
		       (double)journal->slots[journal->head.slot].end_off;
	}
	room = slot_bytes * (journal->options.slots - 2.0) -
	       (double)ship_lag_bytes(ship) * stored_per_byte;
	return room > 0 ? room : 0;
}

/* Since when the standby lacks more each time; NULL: it does not. Whatever comes and goes is no
 * outage, nor is what may be on its way to one that keeps up. */
static const struct ladder_sample *grows_since(const struct ship *ship)
{
	const struct ship_ladder *ladder = &ship->ladder;
	unsigned at = ladder->count ? ladder->count - 1 : 0;

	if (ship->state == SHIP_STREAMING &&
	    ship_lag_bytes(ship) < ship->group->journal.options.slot_bytes)
		return NULL;
	while (at > 0 && ladder->samples[at].lag_bytes > ladder->samples[at - 1].lag_bytes)
		at--;
	return at + GROWING_SAMPLES <= ladder->count ? &ladder->samples[at] : NULL;
}

static uint64_t full_ns(const struct ship *ship)
{
	const struct ship_ladder *ladder = &ship->ladder;
	const struct ladder_sample *first = grows_since(ship), *last;
	double span_ns, stored_per_byte, rate;

	if (ship->peer->needs_sync || ship_floor(ship) == UINT64_MAX || !first)
		return UINT64_MAX;
	last = &ladder->samples[ladder->count - 1];
	span_ns = (double)(last->at_ns - first->at_ns);
	if (last->head_bytes == first->head_bytes)
		return UINT64_MAX;
	stored_per_byte = (double)(last->stored_bytes - first->stored_bytes) /
			  (double)(last->head_bytes - first->head_bytes);
	rate = (double)(last->lag_bytes - first->lag_bytes) * stored_per_byte / span_ns;
	if (rate * (double)IN_SIGHT_NS <= room_bytes(ship, stored_per_byte))
		return UINT64_MAX;
	return (uint64_t)(room_bytes(ship, stored_per_byte) / rate);
}

static void sample(struct ship *ship)
{
	struct agent_group *group = ship->group;
	struct ship_ladder *ladder = &ship->ladder;

	if (ladder->count == LADDER_SAMPLES)
		memmove(ladder->samples, ladder->samples + 1,
			--ladder->count * sizeof(ladder->samples[0]));
	ladder->samples[ladder->count++] =
		(struct ladder_sample){ .at_ns = io_now(group->io),
					.lag_bytes = ship_lag_bytes(ship),
					.head_bytes = group->head_bytes,
					.stored_bytes = group->journal.stored_bytes };
	if (ship->peer->needs_sync)
		ladder->count = 0;
}

/* Once, until it is out of sight again. */
static void warn(struct ship *ship)
{
	uint64_t ns = full_ns(ship);

	if (ns > WARN_NS) {
		ship->ladder.told &= ns != UINT64_MAX;
		return;
	}
	if (ship->ladder.told)
		return;
	ship->ladder.told = true;
	log_warning("the journal fills", "group=%s standby=%s full_in=%llus then=\"%s\"",
		    ship->group->conf->name, ship->conf->node,
		    (unsigned long long)(ns / 1000000000),
		    "what the standby lacks goes into its dirty map");
}

static void look(struct io_timer *timer)
{
	struct agent_group *group = container_of(timer, struct agent_group, ladder_timer);

	if (agent_is_out(group))
		return;
	for (unsigned i = 0; i < group->ship_count; i++) {
		sample(group->ships[i]);
		warn(group->ships[i]);
		coalesce_look(group->ships[i]);
	}
	io_timer_start(group->io, timer, LOOK_NS);
}

void ladder_start(struct agent_group *group)
{
	group->ladder_timer.fire = look;
	io_timer_start(group->io, &group->ladder_timer, 0);
}

void ladder_stop(struct agent_group *group)
{
	io_timer_stop(group->io, &group->ladder_timer);
}

void ladder_status(const struct agent_group *group, struct status_group *s)
{
	s->journal_full_ns = UINT64_MAX;
	for (unsigned i = 0; i < group->ship_count; i++) {
		s->journal_full_ns = min_u64(s->journal_full_ns, full_ns(group->ships[i]));
		s->released_seq = max_u64(s->released_seq, group->ships[i]->peer->released_seq);
	}
}
