/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One seed of two or three sites.
 *
 *   safety   clients work, the operator operates, the nemesis harms; everything that starts,
 *            promotes, reads or rests is checked against the tree of histories as it happens
 *   healing  no more harm: the operator settles what is in conflict, and all sites must become the
 *            same in bounded time, with the clients at work for a while
 *   audit    every byte of every site
 */
#include "core/base/macros.h"
#include "tests/sim/reach.h"
#include "tests/sim/sites.h"
#include "tests/sim/sites_internal.h"

static void restart(void *context, struct sim_node *node)
{
	sites_node_started(context, node);
}

static bool may_crash(void *context, struct sim_node *node, enum sim_crash kind)
{
	sites_node_lost(context, node, kind);
	return true;
}

/* ---- strikes ----------------------------------------------------------------------------------
 */

struct strike {
	struct sites_site *site;
	enum sim_crash kind;
};

static void strike_over(void *context)
{
	site_power_on(context);
}

static void strike_now(void *context)
{
	const struct strike *strike = context;
	struct sites_site *site = strike->site;
	struct sim_world *world = site->sites->world;

	if (site->sites->quiet || !sim_node_is_up(site->agent_node))
		return;
	REACH(SITES_STRUCK);
	site_crash(site, site->agent_node, strike->kind);
	sim_after(world, sim_between(world, 0, 100) * SIM_MS, strike_over, site);
}

static void strike_after(struct sites_site *site, enum sim_crash kind, uint64_t ns)
{
	struct strike *strike = sim_alloc(site->sites->world, sizeof(*strike));

	*strike = (struct strike){ site, kind };
	sim_after(site->sites->world, ns, strike_now, strike);
}

void sites_strike(struct place *place)
{
	struct sim_world *world = place->sites->world;
	/* Now, or when the next flush or checkpoint may be on its way. */
	uint64_t most_us = 1ull << sim_between(world, 0, 18);

	strike_after(place->site, sim_chance(world, 600000) ? SIM_POWER : SIM_KILL,
		     sim_between(world, 0, most_us) * SIM_US);
}

void sites_crash_soon(struct sites_site *site, enum sim_crash kind)
{
	strike_after(site, kind, 0);
}

/* ---- a seed -----------------------------------------------------------------------------------
 */

static bool has_errors(const struct sim_options *o)
{
	return o->read_error_ppm || o->write_error_ppm || o->flush_error_ppm || o->no_space_ppm;
}

/* The swarm's rates are for long runs: here a run is seconds. */
static void more_harm(struct sim_world *world)
{
	struct sim_options *o = sim_options(world);
	uint64_t *rates[] = { &o->kill_every_ns,      &o->power_every_ns, &o->pause_every_ns,
			      &o->wall_jump_every_ns, &o->cut_every_ns,	  &o->cut_one_way_every_ns,
			      &o->reset_every_ns };

	for (unsigned i = 0; i < array_len(rates); i++)
		if (*rates[i])
			*rates[i] = sim_between(world, 100, 2500) * SIM_MS;
	o->down_ns_max = min_u64(o->down_ns_max >> sim_between(world, 0, 5), SIM_SECOND);
	o->pause_ns_max = min_u64(o->pause_ns_max, 2 * SIM_SECOND);
	o->cut_ns_max = min_u64(o->cut_ns_max, 3 * SIM_SECOND);
	o->slow_link_ns = min_u64(o->slow_link_ns, SIM_SECOND);
	o->slow_io_ns = min_u64(o->slow_io_ns, 500 * SIM_MS);
}

/* A standby that applies slowly has something left to do when it is promoted. */
static void slow_volumes(struct sites_site *site)
{
	struct sim_fault fault = {
		.node = site->engine_node,
		.pattern = "/vol/*",
		.ops = SIM_WRITE | SIM_DISCARD,
		.action = SIM_DELAY,
		.delay_ns = sim_between(site->sites->world, 2, 50) * SIM_MS,
		.count = 300,
	};

	sim_fault_add(site->sites->world, &fault);
}

static int run(struct sim_world *world, uint64_t seed)
{
	struct sim_nemesis nemesis = { restart, may_crash, NULL };
	unsigned site_count = sim_chance(world, 700000) ? 3 : 2;
	unsigned group_count = sim_chance(world, 250000) ? 2 : 1;
	unsigned volume_count = (unsigned)sim_between(world, 1, SITES_VOLUMES_MAX);
	struct sites *sites = sites_new(world, site_count, group_count, volume_count,
					(uint32_t)sim_between(world, 3, 8));

	(void)seed;
	sites->failing_ok = has_errors(sim_options(world));
	sites->careless = sim_chance(world, 400000);
	sites->admin_ms = (unsigned)sim_between(world, 40, sim_chance(world, 500000) ? 150 : 600);
	if (sim_chance(world, 500000))
		more_harm(world);
	else
		sim_options_heal(sim_options(world)); /* operation alone is hard enough */
	nemesis.context = sites;
	sites_up(sites);
	if (sim_chance(world, 300000))
		slow_volumes(&sites->sites[sim_between(world, 0, site_count - 1)]);
	sites_work_start(sites);
	if (sim_chance(world, 400000))
		sites->strike_ppm = sim_between(world, 500, 10000);
	sim_nemesis_start(world, &nemesis);
	sites_operator_start(sites);
	sim_run_for(world, sim_between(world, 300, 4000) * SIM_MS);

	sites->strike_ppm = 0;
	sim_nemesis_stop(world);
	sim_fault_clear(world);
	sim_options_heal(sim_options(world));
	sites_operator_stop(sites);
	sim_run_for(world, sim_between(world, 0, 1000) * SIM_MS);
	sites_work_stop(sites);
	sites->failing_ok = false;
	sites_heal(sites);
	sites_audit(sites);
	if (sim_chance(world, 250000))
		sites_check_verify(sites, sites_ruler(sites, 0));

	sites_work_start(sites);
	sim_run_for(world, sim_between(world, 0, 200) * SIM_MS);
	sites_work_stop(sites);
	sites_heal(sites);
	sites_audit(sites);
	return 0;
}

const struct sim_scenario sites_scenario = {
	.name = "sites",
	.about = "two and three sites, and an operator: every history, healing, audit",
	.run = run,
};
