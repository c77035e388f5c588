/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Short scripts on a pair, crashed and failed at every point.
 *
 * Each script is up to three operations on a primary with a standby. The enumerator crashes agent
 * host or engine host after every event, fails every disk operation once and for good, and tears
 * what is in flight. Afterwards everything is started again and must come to the same end: allowed
 * prefix, right content, both sides equal.
 */
#include <string.h>

#include "tests/sim/enumerate.h"
#include "tests/sim/pair.h"

enum step_kind {
	STEP_END,
	STEP_WRITE,
	STEP_FUA,
	STEP_ZERO,
	STEP_TRIM,
	STEP_FLUSH,
	STEP_READ,
	STEP_REST,	/* long enough for apply and checkpoint */
	STEP_SYNC,	/* until the standby holds and has applied all */
	STEP_STOP,	/* clean stop of the agent, then start */
	STEP_FAIL_OVER, /* last: in the check */
};

struct step {
	enum step_kind kind;
	unsigned volume, sector, count;
};

struct script {
	const char *name;
	struct step steps[4];
};

static const struct script scripts[] = {
	{ "write", { { STEP_WRITE, 0, 4, 8 } } },
	{ "write-flush", { { STEP_WRITE, 0, 4, 8 }, { STEP_FLUSH, 0, 0, 0 } } },
	{ "fua", { { STEP_FUA, 0, 4, 8 } } },
	{ "trim-flush", { { STEP_TRIM, 0, 0, 16 }, { STEP_FLUSH, 0, 0, 0 } } },
	{ "zero-flush", { { STEP_ZERO, 1, 3, 9 }, { STEP_FLUSH, 0, 0, 0 } } },
	{ "write-write", { { STEP_WRITE, 0, 4, 8 }, { STEP_WRITE, 1, 4, 8 } } },
	{ "overwrite",
	  { { STEP_WRITE, 0, 4, 8 }, { STEP_WRITE, 0, 6, 8 }, { STEP_FLUSH, 0, 0, 0 } } },
	{ "overwrite-fua", { { STEP_WRITE, 0, 4, 8 }, { STEP_FUA, 0, 4, 8 } } },
	{ "write-trim",
	  { { STEP_WRITE, 0, 4, 8 }, { STEP_TRIM, 0, 6, 4 }, { STEP_FLUSH, 0, 0, 0 } } },
	{ "trim-write",
	  { { STEP_TRIM, 0, 4, 8 }, { STEP_WRITE, 0, 6, 4 }, { STEP_FLUSH, 0, 0, 0 } } },
	{ "zero-write", { { STEP_ZERO, 0, 4, 8 }, { STEP_FUA, 0, 6, 1 } } },
	{ "write-rest", { { STEP_WRITE, 0, 4, 8 }, { STEP_REST, 0, 0, 0 } } },
	{ "write-rest-write",
	  { { STEP_WRITE, 0, 4, 8 }, { STEP_REST, 0, 0, 0 }, { STEP_FUA, 0, 0, 32 } } },
	{ "write-sync", { { STEP_WRITE, 0, 4, 8 }, { STEP_SYNC, 0, 0, 0 } } },
	{ "write-sync-write",
	  { { STEP_WRITE, 0, 4, 8 }, { STEP_SYNC, 0, 0, 0 }, { STEP_WRITE, 0, 6, 8 } } },
	{ "big-write-flush", { { STEP_WRITE, 0, 0, 96 }, { STEP_FLUSH, 0, 0, 0 } } },
	{ "slot-change",
	  { { STEP_WRITE, 0, 0, 128 }, { STEP_WRITE, 1, 0, 128 }, { STEP_FUA, 0, 0, 1 } } },
	{ "write-read-write",
	  { { STEP_WRITE, 0, 4, 8 }, { STEP_READ, 0, 0, 32 }, { STEP_FUA, 0, 0, 8 } } },
	{ "write-stop", { { STEP_WRITE, 0, 4, 8 }, { STEP_STOP, 0, 0, 0 } } },
	{ "write-stop-write",
	  { { STEP_WRITE, 0, 4, 8 }, { STEP_STOP, 0, 0, 0 }, { STEP_FUA, 0, 6, 2 } } },
	{ "flush-write-flush",
	  { { STEP_FLUSH, 0, 0, 0 }, { STEP_WRITE, 1, 0, 1 }, { STEP_FLUSH, 0, 0, 0 } } },
	{ "write-sync-promote",
	  { { STEP_WRITE, 0, 4, 8 }, { STEP_SYNC, 0, 0, 0 }, { STEP_FAIL_OVER, 0, 0, 0 } } },
	{ "write-promote",
	  { { STEP_FUA, 0, 4, 8 }, { STEP_WRITE, 1, 4, 8 }, { STEP_FAIL_OVER, 0, 0, 0 } } },
	{ "copy", { { STEP_SYNC, 0, 0, 0 } } }, /* the initial copy itself, begun in the script */
};

struct run {
	struct pair *pair;
	const struct script *script;
	unsigned step;
	bool issued, stopping;
	uint64_t since_ns, begun_ns;
};

static const struct script *current;

static struct run *run_of(struct sim_world *world)
{
	return ((struct pair *)sim_user(world))->script;
}

static bool in_sync(void *context)
{
	struct pair *pair = context;

	if (sim_now(pair->world) < pair->ask_ns)
		return false;
	pair->ask_ns = sim_now(pair->world) + SIM_MS;
	return pair_in_sync(pair);
}

static void start(struct sim_world *world)
{
	struct pair *pair = pair_new(world, 96u << 10, 6);
	struct run *run = sim_alloc(world, sizeof(*run));

	pair->failing_ok = true;
	pair->script = run;
	run->pair = pair;
	run->script = current;
	pair_up(pair);
	if (strcmp(current->name, "copy") != 0)
		sim_check(world, sim_run_until(world, in_sync, pair, 60 * SIM_SECOND));
	run->begun_ns = sim_now(world);
	sim_enum_begin(world);
}

static bool issue(struct run *run, const struct step *step)
{
	struct pair *pair = run->pair;

	switch (step->kind) {
	case STEP_WRITE:
	case STEP_FUA:
		return work_write(pair, step->volume, step->sector, step->count,
				  step->kind == STEP_FUA ? EXPORT_FUA : 0);
	case STEP_ZERO:
	case STEP_TRIM:
		return work_zero(pair, step->volume, step->sector, step->count,
				 step->kind == STEP_TRIM);
	case STEP_FLUSH:
		return work_flush(pair);
	case STEP_READ:
		return work_read(pair, step->volume, step->sector, step->count);
	case STEP_STOP:
		if (!pair->primary->agent_up)
			return false;
		pair->primary->agent_up = false;
		agent_group_stop(pair->primary->agent);
		return true;
	case STEP_REST:
	case STEP_SYNC:
	case STEP_FAIL_OVER:
	case STEP_END:
		return true;
	}
	return true;
}

static bool completed(struct run *run, const struct step *step)
{
	switch (step->kind) {
	case STEP_REST:
		return sim_now(run->pair->world) > run->since_ns + 300 * SIM_MS;
	case STEP_SYNC:
		return in_sync(run->pair);
	case STEP_STOP:
		return run->pair->primary->agent_up;
	case STEP_WRITE:
	case STEP_FUA:
	case STEP_ZERO:
	case STEP_TRIM:
	case STEP_FLUSH:
	case STEP_READ:
	case STEP_FAIL_OVER:
	case STEP_END:
		return work_idle(run->pair);
	}
	return true;
}

static bool done(struct sim_world *world)
{
	struct run *run = run_of(world);

	if (sim_now(world) >= run->pair->sampled_ns + SIM_MS)
		pair_sample(run->pair);
	while (run->script->steps[run->step].kind != STEP_END) {
		const struct step *step = &run->script->steps[run->step];

		/* Broken for good: that is an end, too. */
		if (sim_now(world) > run->begun_ns + 20 * SIM_SECOND)
			return true;
		if (!run->issued) {
			run->issued = issue(run, step);
			run->since_ns = sim_now(world);
		}
		if (!run->issued || !completed(run, step))
			return false;
		run->issued = false;
		run->step++;
	}
	return true;
}

static void up_again(struct pair *pair)
{
	for (unsigned i = 0; i < 2; i++) {
		struct site *site = &pair->sites[i];

		if (!sim_node_is_up(site->agent_node)) {
			site_lost_agent(site, SIM_KILL);
			sim_node_restart(site->agent_node);
			if (site->agent_wanted)
				site_start_agent(site);
		}
		if (!sim_node_is_up(site->engine_node)) {
			site_lost_engine(site);
			sim_node_restart(site->engine_node);
			if (site->engine_wanted)
				site_start_engine(site);
		}
	}
}

static void crashed(struct sim_world *world, struct sim_node *node)
{
	struct pair *pair = sim_user(world);
	struct site *alpha = &pair->sites[0];

	/* The enumerator does not say how: without its engine the site had no power. */
	if (!sim_node_is_up(alpha->agent_node))
		site_lost_agent(alpha, sim_node_is_up(alpha->engine_node) ? SIM_KILL : SIM_POWER);
	(void)node;
	up_again(pair);
}

static bool serving(void *context)
{
	return pair_agent_serving(context);
}

static void check(struct sim_world *world)
{
	struct run *run = run_of(world);
	struct pair *pair = run->pair;

	up_again(pair);
	sim_check(world, sim_run_until(world, serving, pair, 120 * SIM_SECOND));
	for (unsigned i = 0; run->script->steps[i].kind != STEP_END; i++)
		if (run->script->steps[i].kind == STEP_FAIL_OVER) {
			pair_fail_over(pair);
			pair_check_served(pair, "after promote");
			return;
		}
	pair_converge(pair);
	pair_check_served(pair, "after the crash");
	pair_check_volumes(pair, &pair->sites[0], pair->model.head, "primary");
	pair_check_volumes(pair, &pair->sites[1], pair->model.head, "standby");
}

static void enumerate(const struct sim_enum_options *options, struct sim_enum_result *result)
{
	for (unsigned i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		struct sim_enum_script script = {
			.name = scripts[i].name,
			.start = start,
			.done = done,
			.crashed = crashed,
			.check = check,
			.targets = 4,
			.no_fail_allocs = true,
		};

		current = &scripts[i];
		sim_enumerate(&script, options, result);
	}
}

const struct sim_scenario pair_scripts = {
	.name = "scripts",
	.about = "a pair: short scripts, crashed and failed at every point",
	.enumerate = enumerate,
};
