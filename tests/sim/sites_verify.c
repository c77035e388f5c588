/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A verification at the end: it finds a byte that is wrong on a standby, and nothing where nothing
 * is wrong; what it repairs is the same again.
 */
#include <string.h>

#include "agent/agent.h"
#include "core/conf/conf.h"
#include "tests/sim/reach.h"
#include "tests/sim/sites.h"
#include "tests/sim/sites_internal.h"

static struct status_group status;

static const struct status_verify *result_of(struct place *ruler, const struct place *standby)
{
	agent_group_status(ruler->agent, &status);
	for (unsigned i = 0; i < status.peer_count; i++)
		if (!strcmp(status.peers[i].node, standby->site->name))
			return &status.peers[i].verify;
	sim_fail(ruler->sites->world, "%s does not know its standby %s", ruler->site->name,
		 standby->site->name);
}

static bool over(void *context)
{
	struct place *ruler = context;
	struct sites *sites = ruler->sites;

	if (sim_now(sites->world) < sites->ask_ns)
		return false;
	sites->ask_ns = sim_now(sites->world) + 20 * SIM_MS;
	for (unsigned i = 0; i < sites->site_count; i++)
		if (i != ruler->site->index &&
		    result_of(ruler, sites_place(sites, i, ruler->group))->active)
			return false;
	return true;
}

/* What no write of anybody's put there. */
static void spoil(struct place *place)
{
	struct sim_world *world = place->sites->world;
	uint8_t bytes[SIM_SECTOR_BYTES];
	unsigned volume = (unsigned)sim_between(world, 0, place->sites->volume_count - 1);

	memset(bytes, 0x99, sizeof(bytes));
	sim_file_poke(place->site->engine_node, place->agent_conf->volumes[volume].path,
		      sim_between(world, 0, SITES_SECTORS - 1) * SIM_SECTOR_BYTES, bytes,
		      sizeof(bytes));
}

void sites_check_verify(struct sites *sites, struct place *ruler)
{
	struct sim_world *world = sites->world;
	unsigned wrong = (unsigned)sim_between(world, 0, 2 * sites->site_count);

	if (wrong < sites->site_count && wrong != ruler->site->index)
		spoil(sites_place(sites, wrong, ruler->group));
	place_verify(ruler, true);
	sites->ask_ns = sim_now(world) + 100 * SIM_MS;
	if (!sim_run_until(world, over, ruler, 120 * SIM_SECOND))
		sim_fail(world, "%s/%s: a verification does not come to its end", ruler->site->name,
			 ruler->name);
	for (unsigned i = 0; i < sites->site_count; i++) {
		struct place *standby = sites_place(sites, i, ruler->group);
		const struct status_verify *verify;

		if (standby == ruler)
			continue;
		verify = result_of(ruler, standby);
		if (verify->failed)
			sim_fail(world, "%s/%s: the verification of %s has failed",
				 ruler->site->name, ruler->name, standby->site->name);
		if ((verify->differing_ranges > 0) != (i == wrong))
			sim_fail(world, "%s/%s: %s differs in %llu ranges, says the verification",
				 ruler->site->name, ruler->name, standby->site->name,
				 (unsigned long long)verify->differing_ranges);
		if (i == wrong)
			REACH(SITES_VERIFY_FOUND);
		else
			REACH(SITES_VERIFIED);
	}
	sites_heal(sites);
	sites_audit(sites);
}
