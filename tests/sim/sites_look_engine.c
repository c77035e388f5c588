/* SPDX-License-Identifier: Apache-2.0 */
/* What a standby came across; see sites_look.c. Apart, because agent and engine share no headers.
 */
#include "engine/internal.h"
#include "tests/sim/reach.h"
#include "tests/sim/sites.h"

void sites_look_engine(struct place *place)
{
	const struct engine_group *group = place->engine;

	if (!group)
		return;
	/* A start that failed goes on by itself, and does not say so again. */
	place->engine_up = group->state == ENGINE_READY;
	place->engine_elsewhere = group->state == ENGINE_FOREIGN;
	if (!place->engine_up)
		return;
	if (group->applied_seq < group->journal.appended_seq &&
	    group->dir.sb.flags & SUPERBLOCK_SYNCING)
		REACH(SITES_COPY_BEHIND);
}
