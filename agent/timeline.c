/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/timeline.h"

#include <inttypes.h>
#include <stdio.h>

#include "agent/ship.h"
#include "core/base/log.h"
#include "core/group/openings.h"

enum timeline timeline_of(const struct ship *ship, uint64_t seq)
{
	uint64_t ours = openings_at(&ship->group->dir.sb, seq), theirs = ship->welcome.writer;

	if (seq == 0)
		return TIMELINE_OURS;
	if (seq > ship->group->journal.durable_seq)
		return TIMELINE_UNKNOWN;
	if (ours && theirs)
		return ours == theirs ? TIMELINE_OURS : TIMELINE_OTHER;
	return seq <= ship->peer->durable_seq ? TIMELINE_OURS : TIMELINE_UNKNOWN;
}

static void part(struct ship *ship, enum parted parted)
{
	if (ship->parted == parted)
		return;
	ship->parted = parted;
	log_warning(parted == PARTED_RIVAL ? "another node is primary under the same epoch"
					   : "a standby is of another timeline",
		    "group=%s node=%s epoch=%" PRIu64, ship->group->conf->name, ship->conf->node,
		    ship->group->dir.sb.epoch);
}

void timeline_parted(struct ship *ship, const char *text)
{
	/* Of an older epoch than ours it waits for its own operator: ours has decided. */
	if (ship->welcome.durable.epoch == ship->group->dir.sb.epoch)
		part(ship, PARTED_STANDBY);
	held_by_chain(ship);
	ship->refused = true;
	ship_return_refuse(ship);
	ship_disconnect(ship, text);
}

void timeline_refused(struct ship *ship, const struct link_refuse *refuse)
{
	held_by_refusal(ship, refuse);
	if (refuse->code == LINK_REFUSE_DIVERGED)
		part(ship, PARTED_STANDBY);
	else if (refuse->code == LINK_REFUSE_NOT_STANDBY)
		part(ship, PARTED_RIVAL);
}

void timeline_joined(struct ship *ship)
{
	ship->parted = PARTED_NOT;
}
