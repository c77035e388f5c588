/* SPDX-License-Identifier: Apache-2.0 */
/* What a standby came across; see pair_reach.c. Apart, because agent and engine share no headers.
 */
#include "engine/internal.h"
#include "tests/sim/pair.h"
#include "tests/sim/reach.h"

void pair_look_engine(struct site *site)
{
	const struct engine_group *group = site->engine;
	struct seen_engine *seen = &site->seen_engine;
	bool failed;

	if (!group || !sim_node_is_up(site->engine_node)) /* killed: gone with its node */
		return;
	failed = group->state == ENGINE_FAILED;
	if (failed && !seen->failed)
		REACH(ENGINE_FAILED);
	if (group->tail_open && group->tail.disk_reads > seen->disk_reads)
		REACH(STANDBY_READ_BACK);
	seen->failed = failed;
	seen->disk_reads = group->tail_open ? group->tail.disk_reads : 0;
}

bool pair_behind(const struct site *site)
{
	const struct engine_group *group = site->engine;

	return group->journal_open && group->applied_seq < group->journal.appended_seq;
}
