/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A primary whose disk was put back to an older state: its history and the standby's part where the
 * backup was taken. The standby holds what the primary has forgotten, so it is left alone, whether
 * the primary has written less or more since, and says why (I7, I11, I14).
 */
#include <errno.h>
#include <string.h>

#include "tests/sim/pair.h"
#include "tests/sim/reach.h"

struct images {
	uint8_t bytes[PAIR_VOLUMES][PAIR_VOLUME_BYTES];
};

static void keep_images(struct pair *pair, struct site *site, struct images *images)
{
	for (unsigned v = 0; v < PAIR_VOLUMES; v++)
		sim_file_peek(site->engine_node, site->conf_group->volumes[v].path, 0,
			      images->bytes[v], PAIR_VOLUME_BYTES);
	(void)pair;
}

static void power_off(struct site *site)
{
	site_lost_agent(site, SIM_POWER);
	site_lost_engine(site);
	sim_node_crash(site->engine_node, SIM_POWER);
}

static void power_on(struct pair *pair, struct site *site)
{
	sim_node_restart(site->engine_node);
	sim_node_restart(site->agent_node);
	site_start_agent(site);
	(void)pair;
}

static bool serving(void *context)
{
	return pair_agent_serving(context);
}

static bool serving_or_held(void *context)
{
	struct pair *pair = context;

	return pair_agent_serving(pair) || pair->sites[0].held;
}

static void accepted(struct agent_task *task)
{
	(void)task;
}

/* It has asked its standby: it does not serve, and touches nothing, before the operator says so. */
static void accept_older(struct pair *pair, const struct images *before)
{
	struct images *now = sim_alloc(pair->world, sizeof(*now));
	struct agent_task *task = sim_alloc(pair->world, sizeof(*task));

	sim_run_for(pair->world, sim_between(pair->world, 0, 10) * SIM_SECOND);
	if (pair->sites[0].agent_up)
		sim_fail(pair->world, "a held primary serves");
	keep_images(pair, &pair->sites[1], now);
	if (memcmp(before, now, sizeof(*now)) != 0)
		sim_fail(pair->world, "the standby of a held primary was written to");
	REACH(HELD);
	do { /* not while something is under way */
		*task = (struct agent_task){ .kind = AGENT_ACCEPT, .done = accepted };
		agent_group_task(pair->sites[0].agent, task);
		sim_run_for(pair->world, 100 * SIM_MS);
	} while (task->res == -EAGAIN);
	sim_check(pair->world, task->res == 0);
}

static bool refused(void *context)
{
	static struct status_group status;
	struct pair *pair = context;
	const char *error = status.peers[0].error;

	if (sim_now(pair->world) < pair->ask_ns || !pair->primary->agent_up)
		return false;
	pair->ask_ns = sim_now(pair->world) + 5 * SIM_MS;
	agent_group_status(pair->primary->agent, &status);
	return !strcmp(status.peers[0].state, "refused") &&
	       (strstr(error, "diverged") || strstr(error, "holdfast demote") ||
		strstr(error, "does not have"));
}

static void work_for(struct pair *pair, uint64_t ns)
{
	work_start(pair);
	sim_run_for(pair->world, ns);
	work_stop(pair);
}

static int run(struct sim_world *world, uint64_t seed)
{
	struct pair *pair = pair_new(world, 96u << 10, 24);
	struct site *alpha = &pair->sites[0], *beta = &pair->sites[1];
	struct images *before = sim_alloc(world, sizeof(*before));
	struct images *after = sim_alloc(world, sizeof(*after));
	const struct sim_disk_copy *backup;
	uint64_t kept_seq;

	(void)seed;
	sim_options_heal(sim_options(world));
	pair->pace_us = (unsigned)sim_between(world, 1000, 5000);
	pair_up(pair);
	work_for(pair, sim_between(world, 1, 100) * SIM_MS);
	pair_converge(pair);
	power_off(alpha);
	backup = sim_disk_save(alpha->engine_node);
	power_on(pair, alpha);
	pair_converge(pair);
	do
		work_for(pair, sim_between(world, 10, 100) * SIM_MS);
	while (pair->model.head == pair->model.durable);
	pair_converge(pair);
	keep_images(pair, beta, before);
	kept_seq = pair->model.head;

	power_off(alpha);
	sim_disk_restore(alpha->engine_node, backup);
	pair->model.acked = pair->model.durable = 0; /* the operator took that back */
	pair->held_ok = true;
	if (sim_chance(world, 700000)) /* the standby finds out when the primary is ahead again */
		sim_cut_both(alpha->engine_node, beta->engine_node, SIM_CUT_RESET);
	power_on(pair, alpha);
	sim_check(world, sim_run_until(world, serving_or_held, pair, 60 * SIM_SECOND));
	if (alpha->held)
		accept_older(pair, before);
	sim_check(world, sim_run_until(world, serving, pair, 60 * SIM_SECOND));
	sim_check(world, pair->model.head < kept_seq);
	work_for(pair, sim_between(world, 0, 200) * SIM_MS);
	sim_heal_all(world);
	if (!sim_run_until(world, refused, pair, 60 * SIM_SECOND))
		sim_fail(world, "the standby does not tell the primary that histories differ");
	/* Not for longer than the journal reaches back: behind that nobody can tell any more. */
	work_for(pair, sim_between(world, 0, 200) * SIM_MS);
	if (!sim_run_until(world, refused, pair, 60 * SIM_SECOND))
		sim_fail(world, "histories differ, and then no more");
	keep_images(pair, beta, after);
	if (memcmp(before, after, sizeof(*before)) != 0)
		sim_fail(world, "a standby with another history was written to");
	pair_check_served(pair, "the restored primary");
	REACH(DIVERGED);
	return 0;
}

const struct sim_scenario pair_diverge = {
	.name = "diverge",
	.about = "a primary restored from a backup leaves its standby alone",
	.run = run,
};
