/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One seed of a pair: work under faults, heal and converge, then lose the primary and promote.
 *
 *   phase 1  workload while the nemesis kills, cuts, corrupts nothing, delays; after every restart
 * the recovered head must be allowed and what is served must be its state (I1, I2, I12, I13, I15,
 * I19) phase 2  no more faults: standby and primary must become equal, byte for byte (I3, I11, I20)
 *   phase 3  the primary is killed, cut off or left alive; promote; the new primary serves exactly
 * the state at the promoted position, which is not below anything that was ever acknowledged as
 * durable there (I4, I5); the old one comes back and must learn that it is fenced (I6)
 */
#include <errno.h>
#include <string.h>

#include "core/base/macros.h"
#include "tests/sim/pair.h"
#include "tests/sim/reach.h"

static struct site *site_of(struct pair *pair, struct sim_node *node, bool *ret_agent)
{
	for (unsigned i = 0; i < 2; i++) {
		*ret_agent = pair->sites[i].agent_node == node;
		if (*ret_agent || pair->sites[i].engine_node == node)
			return &pair->sites[i];
	}
	return NULL;
}

/* Just before: what the process holds can still be looked at. */
static void lose_agent(struct site *site, enum sim_crash kind)
{
	if (pair_copying(site))
		REACH(COPY_LOST_PRIMARY);
	/* What was acknowledged as written, a disk that failed has dropped, and only this process
	 * still had. */
	if (kind == SIM_KILL && pair_disk_dropped(site))
		kind = SIM_POWER;
	site_lost_agent(site, kind);
}

static void lose_engine(struct site *site)
{
	if (site->engine && pair_copying(site->pair->primary))
		REACH(COPY_LOST_STANDBY);
	site_lost_engine(site);
}

static bool may_crash(void *context, struct sim_node *node, enum sim_crash kind)
{
	struct pair *pair = context;
	bool agent;
	struct site *site = site_of(pair, node, &agent);

	if (!site->inited)
		return false;
	pair_sample(pair);
	if (agent || kind == SIM_POWER)
		lose_agent(site, kind);
	if (!agent || kind == SIM_POWER)
		lose_engine(site);
	return true;
}

static void restart(void *context, struct sim_node *node)
{
	struct pair *pair = context;
	bool agent;
	struct site *site = site_of(pair, node, &agent);

	if (agent && site->agent_wanted)
		site_start_agent(site);
	if (!agent && site->engine_wanted)
		site_start_engine(site);
}

static void strike_over(void *context)
{
	struct pair *pair = context;
	struct site *alpha = &pair->sites[0];

	if (!pair->strike_ppm)
		return; /* the nemesis' end has brought everything back */
	if (!sim_node_is_up(alpha->engine_node)) {
		sim_node_restart(alpha->engine_node);
		restart(pair, alpha->engine_node);
	}
	if (!sim_node_is_up(alpha->agent_node)) {
		sim_node_restart(alpha->agent_node);
		restart(pair, alpha->agent_node);
	}
}

struct strike {
	struct pair *pair;
	enum sim_crash kind;
};

static void strike_now(void *context)
{
	const struct strike *strike = context;
	struct pair *pair = strike->pair;
	struct sim_node *node = pair->sites[0].agent_node;

	if (!pair->strike_ppm || !sim_node_is_up(node) || !may_crash(pair, node, strike->kind))
		return;
	REACH(STRUCK);
	sim_node_crash(node, strike->kind);
	sim_after(pair->world, sim_between(pair->world, 0, 100) * SIM_MS, strike_over, pair);
}

/* The primary crashes right behind an acknowledgement. */
static void strike_soon(struct pair *pair, enum sim_crash kind)
{
	struct strike *strike = sim_alloc(pair->world, sizeof(*strike));
	/* Now, or when the next flush or checkpoint may be on its way. */
	uint64_t most_us = 1ull << sim_between(pair->world, 0, 18);

	*strike = (struct strike){ pair, kind };
	sim_after(pair->world, sim_between(pair->world, 0, most_us) * SIM_US, strike_now, strike);
}

static void sampler(void *context)
{
	struct pair *pair = context;

	pair_sample(pair);
	sim_after(pair->world, 20 * SIM_MS, sampler, pair);
}

static bool has_errors(const struct sim_options *o)
{
	return o->read_error_ppm || o->write_error_ppm || o->flush_error_ppm || o->no_space_ppm;
}

static bool fenced(void *context)
{
	return ((struct pair *)context)->sites[0].fenced;
}

static bool gone(void *context)
{
	return !((struct pair *)context)->sites[0].agent;
}

static bool decided(void *context)
{
	const struct site *alpha = &((struct pair *)context)->sites[0];

	return alpha->agent_up || alpha->fenced;
}

/* Clients of the old primary go on as long as it lets them. */
static void haunt(void *context)
{
	struct pair *pair = context;
	struct site *alpha = &pair->sites[0];

	if (alpha->agent_up)
		work_ghost(pair, alpha);
	if (!alpha->fenced)
		sim_after(pair->world, sim_between(pair->world, 50, 500) * SIM_US, haunt, pair);
}

/* The old primary is reachable again: it learns that it is none, and does not forget it (I6). */
static void come_back(struct pair *pair)
{
	struct sim_world *world = pair->world;
	struct site *alpha = &pair->sites[0];

	sim_heal_all(world);
	pair->links_up = true;
	if (!alpha->agent) {
		if (!sim_node_is_up(alpha->agent_node))
			sim_node_restart(alpha->agent_node);
		site_start_agent(alpha);
	}
	if (!sim_run_until(world, fenced, pair, 60 * SIM_SECOND))
		sim_fail(world, "the old primary is not fenced");
	sim_check(world, !alpha->agent_up);
	if (!sim_run_until(world, gone, pair, 60 * SIM_SECOND))
		sim_fail(world, "the fenced primary does not come to rest");
	if (work_waiting(pair, alpha))
		sim_fail(world, "a request to the fenced primary has no answer");
	sim_cut_both(alpha->engine_node, pair->sites[1].engine_node, SIM_CUT_SILENT);
	pair->links_up = false;
	site_start_agent(alpha);
	sim_check(world, sim_run_until(world, decided, pair, 60 * SIM_SECOND));
	if (alpha->agent_up)
		sim_fail(world, "a fenced primary serves again after a restart");
	REACH(FENCED_RECORDED);
}

static void lose_primary(struct pair *pair)
{
	struct site *alpha = &pair->sites[0], *beta = &pair->sites[1];
	struct sim_world *world = pair->world;

	switch (sim_between(world, 0, 3)) {
	case 0:
		may_crash(pair, alpha->agent_node, SIM_KILL);
		sim_node_crash(alpha->agent_node, SIM_KILL);
		break;
	case 1:
		may_crash(pair, alpha->engine_node, SIM_POWER);
		sim_node_crash(alpha->engine_node, SIM_POWER);
		break;
	case 2:
		sim_cut_both(alpha->engine_node, beta->engine_node, SIM_CUT_SILENT);
		break;
	default:
		break; /* alive and connected: only --force */
	}
}

/* The swarm's rates are for long runs: here a run is seconds. */
static void more_harm(struct sim_world *world)
{
	struct sim_options *o = sim_options(world);
	uint64_t *rates[] = { &o->kill_every_ns,      &o->power_every_ns, &o->pause_every_ns,
			      &o->wall_jump_every_ns, &o->cut_every_ns,	  &o->cut_one_way_every_ns,
			      &o->reset_every_ns };

	for (unsigned i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
		if (*rates[i])
			*rates[i] = sim_between(world, 100, 2000) * SIM_MS;
	/* A kill strikes one process of four, and the agent's acknowledgements promise most. */
	if (o->kill_every_ns)
		o->kill_every_ns = sim_between(world, 20, 400) * SIM_MS;
	o->down_ns_max >>= sim_between(world, 0, 5);
	o->write_error_ppm *= sim_between(world, 1, 8);
	if (o->flush_error_ppm && sim_chance(world, 400000))
		o->flush_error_ppm = sim_between(world, 2000, 6000);
	o->flush_error_ppm *= sim_between(world, 1, 8);
	o->down_ns_max = o->down_ns_max > SIM_SECOND ? SIM_SECOND : o->down_ns_max;
	o->pause_ns_max = o->pause_ns_max > SIM_SECOND ? SIM_SECOND : o->pause_ns_max;
	o->cut_ns_max = o->cut_ns_max > 3 * SIM_SECOND ? 3 * SIM_SECOND : o->cut_ns_max;
}

/* A standby that applies slowly has something left to do when it is promoted. */
static void slow_volumes(struct site *site)
{
	struct sim_fault fault = {
		.node = site->engine_node,
		.pattern = "/vol/*",
		.ops = SIM_WRITE | SIM_DISCARD,
		.action = SIM_DELAY,
		.delay_ns = sim_between(site->pair->world, 5, 100) * SIM_MS,
		.count = 500,
	};

	sim_fault_add(site->pair->world, &fault);
}

/* While a volume is read for a copy, memory fills and writes wait: what happens at its end? */
static void slow_reads(struct site *site)
{
	struct sim_fault fault = {
		.node = site->agent_node,
		.pattern = "/vol/*",
		.ops = SIM_READ,
		.action = SIM_DELAY,
		.delay_ns = sim_between(site->pair->world, 10, 200) * SIM_MS,
		.count = 40,
	};

	sim_fault_add(site->pair->world, &fault);
}

static void choose_mode(struct pair *pair)
{
	struct sim_world *world = pair->world;
	bool sync = sim_chance(world, 300000), all = sim_chance(world, 300000);

	if (!sync)
		return;
	REACH(MODE_SYNC);
	pair->sync_freeze = sim_chance(world, 500000);
	for (unsigned i = 0; i < 2; i++) {
		struct conf_group *group = pair->sites[i].conf_group;

		group->mode = all ? CONF_SYNC_ALL : CONF_SYNC_ONE;
		group->on_sync_loss = pair->sync_freeze ? CONF_LOSS_FREEZE : CONF_LOSS_ASYNC;
		group->sync_timeout_ns = sim_between(world, 20, 600) * SIM_MS;
	}
}

static void limit_bandwidth(struct pair *pair)
{
	struct sim_world *world = pair->world;
	struct conf_peer *peer = &pair->sites[0].conf_group->peers[0];
	bool coalesce = sim_chance(world, 100000), narrow = sim_chance(world, 100000);
	uint64_t most = coalesce ? 256 : 4096; /* KiB */

	if (!coalesce && !narrow)
		return;
	REACH(BANDWIDTH);
	peer->bandwidth_bytes = sim_between(world, 64, most) << 10;
	peer->windows[0].to_min = 1 + (unsigned)sim_between(world, 0, 1439);
	peer->windows[0].from_min = (unsigned)sim_between(world, 0, 1439);
	peer->windows[0].rate_bytes = sim_between(world, 64, most) << 10;
	peer->window_count = 1;
	if (coalesce)
		peer->coalesce_bytes = sim_between(world, 16, 200) << 10;
}

static void choose_comparing(struct pair *pair)
{
	static const enum conf_compare ways[] = { CONF_COMPARE_AUTO, CONF_COMPARE_AUTO,
						  CONF_COMPARE_ALWAYS, CONF_COMPARE_NEVER };
	struct sim_world *world = pair->world;
	enum conf_compare way = ways[sim_between(world, 0, array_len(ways) - 1)];
	bool verifies = sim_chance(world, 500000);
	uint64_t interval_ns = sim_between(world, 10, 500) * SIM_MS;

	pair->unreadable = sim_options(world)->read_error_ppm;
	for (unsigned i = 0; i < 2; i++) {
		struct conf_group *group = pair->sites[i].conf_group;

		group->peers[0].compare = way;
		group->peers[0].sync_share = (unsigned)sim_between(world, 1, 100);
		group->verify_interval_ns = verifies ? interval_ns : 0;
		group->verify_rate_bytes = sim_between(world, 1, 64) << 20;
	}
}

static int run(struct sim_world *world, uint64_t seed)
{
	struct sim_nemesis nemesis = { restart, may_crash, NULL };
	uint32_t slots = (uint32_t)sim_between(world, 3, sim_chance(world, 400000) ? 6 : 24);
	struct pair *pair = pair_new(world, 96u << 10, slots);

	(void)seed;
	nemesis.context = pair;
	pair->failing_ok = has_errors(sim_options(world));
	more_harm(world);
	choose_mode(pair);
	limit_bandwidth(pair);
	choose_comparing(pair);
	if (sim_chance(world, 300000))
		slow_reads(&pair->sites[0]);
	pair_up(pair);
	sampler(pair);
	work_start(pair);
	pair->strike = strike_soon;
	if (sim_chance(world, 500000))
		pair->strike_ppm = sim_between(world, 1000, 20000);
	sim_nemesis_start(world, &nemesis);
	sim_run_for(world, sim_between(world, 300, 2500) * SIM_MS);

	pair->strike_ppm = 0;
	sim_nemesis_stop(world);
	sim_fault_clear(world);
	sim_options_heal(sim_options(world));
	work_stop(pair);
	pair_converge(pair);
	pair_check_served(pair, "after healing");
	pair_converge(pair);
	pair_check_volumes(pair, &pair->sites[1], pair->model.head, "standby after healing");
	pair_check_volumes(pair, &pair->sites[0], pair->model.head, "primary after healing");

	pair->failing_ok = false;
	if (sim_chance(world, 400000))
		slow_volumes(&pair->sites[1]);
	work_start(pair);
	sim_run_for(world, sim_between(world, 0, 300) * SIM_MS);
	pair_sample(pair);
	lose_primary(pair);
	sim_run_for(world, sim_between(world, 0, 100) * SIM_MS);
	if (sim_chance(world, 250000)) {
		may_crash(pair, pair->sites[1].engine_node, SIM_POWER);
		sim_node_crash(pair->sites[1].engine_node, SIM_POWER);
		REACH(PROMOTE_AFTER_CRASH);
	} else if (sim_chance(world, 300000)) /* killed at some moment of it, and run again */
		sim_node_crash_soon(pair->sites[1].engine_node, SIM_KILL);
	pair_fail_over(pair);
	sim_fault_clear(world);
	haunt(pair);
	work_stop(pair);
	pair_check_served(pair, "after promote");
	work_start(pair);
	sim_run_for(world, 100 * SIM_MS);
	pair_check_served(pair, "on the new primary");

	come_back(pair);
	return 0;
}

const struct sim_scenario pair_scenario = {
	.name = "pair",
	.about = "agent and engine under faults: recovery, convergence, promote, fencing",
	.run = run,
};
