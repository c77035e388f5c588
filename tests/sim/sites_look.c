/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks into the agents from time to time: what have their standbys promised, and what have they
 * come across? Reads only.
 */
#include <string.h>

#include "agent/ship.h"
#include "core/group/journal_internal.h"
#include "tests/sim/reach.h"
#include "tests/sim/sites.h"

static struct place *place_of(struct place *place, const char *node)
{
	for (unsigned i = 0; i < place->sites->site_count; i++)
		if (!strcmp(place->sites->sites[i].name, node))
			return sites_place(place->sites, i, place->group);
	return NULL;
}

static void note_promise(const struct place *place, struct place *standby, uint64_t durable_seq)
{
	struct branch *branch = place->branch;

	if (standby->promise != branch || standby->promise_given_up) {
		standby->promise = branch;
		standby->promise_seq = durable_seq;
		standby->promise_given_up = false;
	} else if (durable_seq > standby->promise_seq) {
		standby->promise_seq = durable_seq;
	}
	if (durable_seq > branch->head)
		sim_fail(place->sites->world,
			 "%s acknowledged seq %llu of %s, who has written only up to %llu",
			 standby->site->name, (unsigned long long)durable_seq, place->site->name,
			 (unsigned long long)branch->head);
}

static void look_at_ship(struct place *place, const struct ship *ship)
{
	struct place *standby = place_of(place, ship->conf->node);
	struct sites_seen *seen = &place->seen[standby->site->index];
	bool copying = ship_sync_active(ship->sync);

	if (ship->state != SHIP_STREAMING || ship->generation == seen->stale_generation)
		return;
	/* Its epoch is durable there: from here on what it acknowledges counts. */
	if (ship->received_seq >= ship->start.from_seq || !ship->start.reset)
		note_promise(place, standby, ship->durable_seq);
	if (seen->generation != ship->generation) {
		seen->generation = ship->generation;
		if (place->branch->parent)
			REACH(SITES_FOLLOWED);
		if (ship->start.reset)
			REACH(SITES_RESET);
		if (ship->start.sync && place->branch->parent)
			REACH(SITES_RESYNC);
	}
	if (seen->copying && !copying && !ship->peer->needs_sync)
		REACH(SITES_COPIED);
	seen->copying = copying;
}

void sites_look(struct sites *sites)
{
	struct place *place;

	sites_each_place(sites, place)
	{
		sites_look_engine(place);
		if (!place->agent || !place->agent_up || !place->agent->served)
			continue;
		for (unsigned i = 0; i < place->agent->ship_count; i++)
			look_at_ship(place, place->agent->ships[i]);
		if (place->agent->journal.floor_seq > place->branch->base_seq &&
		    place->branch->parent)
			REACH(SITES_WRAPPED);
	}
}

void place_disown(struct place *place)
{
	struct place *primary;

	place->promise = NULL;
	sites_each_place(place->sites, primary)
	{
		if (primary->tree != place->tree || !primary->agent)
			continue;
		for (unsigned i = 0; i < primary->agent->ship_count; i++) {
			const struct ship *ship = primary->agent->ships[i];

			if (place_of(primary, ship->conf->node) == place)
				primary->seen[place->site->index].stale_generation =
					ship->generation;
		}
	}
}

bool place_streams_to(const struct place *place, const struct sites_site *site,
		      uint64_t *ret_durable)
{
	if (!place->agent || !place->agent_up)
		return false;
	for (unsigned i = 0; i < place->agent->ship_count; i++) {
		const struct ship *ship = place->agent->ships[i];

		if (strcmp(ship->conf->node, site->name) != 0)
			continue;
		*ret_durable = ship->durable_seq;
		return ship->state == SHIP_STREAMING && !ship_sync_active(ship->sync) &&
		       !ship->peer->needs_sync;
	}
	return false;
}

bool place_refused_by(const struct place *place, const struct sites_site *site)
{
	if (!place->agent || !place->agent_up)
		return false;
	for (unsigned i = 0; i < place->agent->ship_count; i++) {
		const struct ship *ship = place->agent->ships[i];

		if (!strcmp(ship->conf->node, site->name))
			return ship->refused && (strstr(ship->error, "diverged") ||
						 strstr(ship->error, "does not have") ||
						 strstr(ship->error, "higher one"));
	}
	return false;
}

bool place_has_room(const struct place *place)
{
	return list_empty(&place->agent->stalled) && !place->agent->journal.blocked &&
	       !place->agent->mark_op &&
	       place->agent->ring.used_bytes < place->agent->ring.size_bytes / 4;
}

bool place_is_marking(const struct place *place)
{
	return place->agent->mark_op != NULL;
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

bool place_disk_dropped(const struct place *place)
{
	const struct journal *journal = place->agent ? &place->agent->journal : NULL;

	if (!journal || !journal->opened)
		return false;
	return journal->internal->failing ||
	       (journal->rewrites && (any_again(&journal->queue) || any_again(&journal->flight)));
}
