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

#include "tests/sim/pair.h"

static struct site *site_of(struct pair *pair, struct sim_node *node, bool *ret_agent)
{
	for (unsigned i = 0; i < 2; i++) {
		*ret_agent = pair->sites[i].agent_node == node;
		if (*ret_agent || pair->sites[i].engine_node == node)
			return &pair->sites[i];
	}
	return NULL;
}

static void sample_promise(struct pair *pair)
{
	static struct status_group status;

	if (!pair->sites[0].agent)
		return;
	agent_group_status(pair->sites[0].agent, &status);
	if (status.peer_count && status.peers[0].durable_seq > pair->promised)
		pair->promised = status.peers[0].durable_seq;
}

static bool may_crash(void *context, struct sim_node *node, enum sim_crash kind)
{
	struct pair *pair = context;
	bool agent;
	struct site *site = site_of(pair, node, &agent);

	if (!site->inited)
		return false;
	sample_promise(pair);
	if (agent || kind == SIM_POWER)
		site_lost_agent(site, kind);
	if (!agent || kind == SIM_POWER)
		site_lost_engine(site);
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

static void sampler(void *context)
{
	struct pair *pair = context;

	sample_promise(pair);
	sim_after(pair->world, 5 * SIM_MS, sampler, pair);
}

static bool in_sync(void *context)
{
	return pair_in_sync(context);
}

static bool has_errors(const struct sim_options *o)
{
	return o->read_error_ppm || o->write_error_ppm || o->flush_error_ppm || o->no_space_ppm;
}

static void converge(struct pair *pair)
{
	static struct status_group a, e;
	struct site *primary = pair->primary;
	struct site *standby = &pair->sites[primary == &pair->sites[0]];

	if (sim_run_until(pair->world, in_sync, pair, 90 * SIM_SECOND))
		return;
	memset(&a, 0, sizeof(a));
	memset(&e, 0, sizeof(e));
	if (primary->agent)
		agent_group_status(primary->agent, &a);
	if (standby->engine)
		engine_group_status(standby->engine, &e);
	sim_fail(pair->world,
		 "does not converge: primary %s (%s) head %llu durable %llu applied %llu, link %s "
		 "(%s) "
		 "acked %llu; standby %s (%s) durable %llu applied %llu syncing %d; requests idle "
		 "%d",
		 a.state, a.detail, (unsigned long long)a.head_seq,
		 (unsigned long long)a.durable_seq, (unsigned long long)a.applied_seq,
		 a.peers[0].state, a.peers[0].error, (unsigned long long)a.peers[0].durable_seq,
		 e.state, e.detail, (unsigned long long)e.durable_seq,
		 (unsigned long long)e.applied_seq, e.syncing, work_idle(pair));
}

static bool fenced(void *context)
{
	return ((struct pair *)context)->fenced > 0;
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

static void promote(struct pair *pair)
{
	struct site *beta = &pair->sites[1];
	struct sim_world *world = pair->world;
	struct engine_promote result = { 0 };
	int r = -EAGAIN;

	if (sim_chance(world, 300000)) /* killed at some moment of it, and run again */
		sim_node_crash_soon(beta->engine_node, SIM_KILL);
	for (unsigned i = 0; i < 4 && r == -EAGAIN; i++) {
		if (!beta->engine || !sim_node_is_up(beta->engine_node)) {
			site_lost_engine(beta);
			if (!sim_node_is_up(beta->engine_node))
				sim_node_restart(beta->engine_node);
			site_start_engine(beta);
			sim_run_for(world, SIM_SECOND);
		}
		r = pair_promote(pair, beta, i >= 2, &result);
		if (r == -EAGAIN)
			sim_run_for(world, 3 * SIM_SECOND);
	}
	if (r)
		sim_fail(world, "promote: %d %s", r, result.text);
	sample_promise(pair);
	if (result.seq < pair->promised)
		sim_fail(world, "promoted at seq %llu, but %llu was acknowledged as durable",
			 (unsigned long long)result.seq, (unsigned long long)pair->promised);
	if (result.seq > pair->model.head)
		sim_fail(world, "promoted at seq %llu, but only %llu were written",
			 (unsigned long long)result.seq, (unsigned long long)pair->model.head);
	sim_check(world, result.epoch == pair->epoch + 1);
	pair->epoch = result.epoch;
	pair->model.head = pair->model.acked = pair->model.durable = result.seq;
	pair->promised = 0;
	pair->promotes++;
	pair->incarnation++;
	pair->power_lost = false;
	pair->primary = beta;
	/* As the daemon does: the engine opens the group again, to answer by role and epoch. */
	engine_group_free(beta->engine);
	beta->engine = NULL;
	sim_node_crash(beta->engine_node, SIM_KILL);
	sim_node_restart(beta->engine_node);
	site_start_engine(beta);
	site_start_agent(beta);
}

static bool beta_serves(void *context)
{
	return ((struct pair *)context)->sites[1].agent_up;
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
			*rates[i] = sim_between(world, 200, 3000) * SIM_MS;
	o->down_ns_max = o->down_ns_max > SIM_SECOND ? SIM_SECOND : o->down_ns_max;
	o->pause_ns_max = o->pause_ns_max > SIM_SECOND ? SIM_SECOND : o->pause_ns_max;
	o->cut_ns_max = o->cut_ns_max > 3 * SIM_SECOND ? 3 * SIM_SECOND : o->cut_ns_max;
}

static void body(struct sim_world *world, void *context)
{
	struct sim_nemesis nemesis = { restart, may_crash, NULL };
	struct pair *pair = pair_new(world, 96u << 10, (uint32_t)sim_between(world, 6, 24));

	(void)context;
	nemesis.context = pair;
	pair->failing_ok = has_errors(sim_options(world));
	more_harm(world);
	pair_up(pair);
	sampler(pair);
	work_start(pair);
	sim_nemesis_start(world, &nemesis);
	sim_run_for(world, sim_between(world, 300, 2500) * SIM_MS);

	sim_nemesis_stop(world);
	sim_fault_clear(world);
	sim_options_heal(sim_options(world));
	work_stop(pair);
	converge(pair);
	pair_check_served(pair, "after healing");
	converge(pair);
	pair_check_volumes(pair, &pair->sites[1], pair->model.head, "standby after healing");
	pair_check_volumes(pair, &pair->sites[0], pair->model.head, "primary after healing");

	pair->failing_ok = false;
	work_start(pair);
	sim_run_for(world, sim_between(world, 0, 300) * SIM_MS);
	sample_promise(pair);
	lose_primary(pair);
	sim_run_for(world, sim_between(world, 0, 100) * SIM_MS);
	promote(pair);
	work_stop(pair);
	sim_check(world, sim_run_until(world, beta_serves, pair, 60 * SIM_SECOND));
	pair_check_served(pair, "after promote");
	work_start(pair);
	sim_run_for(world, 100 * SIM_MS);
	pair_check_served(pair, "on the new primary");

	sim_heal_all(world);
	if (!pair->sites[0].agent) {
		struct site *alpha = &pair->sites[0];

		if (!sim_node_is_up(alpha->agent_node))
			sim_node_restart(alpha->agent_node);
		site_start_agent(alpha);
	}
	if (!sim_run_until(world, fenced, pair, 60 * SIM_SECOND))
		sim_fail(world, "the old primary is not fenced");
	sim_check(world, !pair->sites[0].agent_up);
}

static int run(struct sim_world *world, uint64_t seed)
{
	(void)seed;
	return sim_run(world, body, NULL) ? 0 : 1;
}

const struct sim_scenario pair_scenario = {
	.name = "pair",
	.about = "agent and engine under faults: recovery, convergence, promote, fencing",
	.run = run,
};
