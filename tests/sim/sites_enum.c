/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Short scripts on two and three sites, crashed and failed at points all along.
 *
 * A script is what an operator does in an ordinary week and in the worst one: fail over, return,
 * switch over and back, resync, two primaries, an older disk. The enumerator crashes every host's
 * agent and engine after events, fails disk operations once and for good, and tears what is in
 * flight; a step that can no longer happen is left after a while. Whatever was in the way, then the
 * operator settles it and all sites must become the same (sites_heal.c).
 *
 * There are more points than make test has time for: without --cases-max every script is thinned
 * out to CASES_DEFAULT.
 */
#include <string.h>

#include "core/base/macros.h"
#include "tests/sim/enumerate.h"
#include "tests/sim/sites.h"
#include "tests/sim/sites_internal.h"

#define CASES_DEFAULT 40u
#define STEP_LIMIT_NS (4 * SIM_SECOND)
#define STEPS_MAX     14u

enum step_kind {
	STEP_END,
	STEP_FUA,     /* a: at the site; durable there when it is answered */
	STEP_WRITE,   /* a: at the site */
	STEP_SYNC,    /* until all sites are the same */
	STEP_DOWN,    /* a: power off */
	STEP_UP,      /* a: power on */
	STEP_ALONE,   /* a: cut from everybody */
	STEP_HEAL,    /* all links */
	STEP_PROMOTE, /* a: by force */
	STEP_TRY,     /* a: promote by force, and do not wait for it */
	STEP_REJOIN,  /* a: demote */
	STEP_SWITCH,  /* a to b */
	STEP_ASK,     /* the same, and do not wait for it */
	STEP_RESYNC,  /* a: copies everything to everybody */
	STEP_COMPARE, /* the same, by comparison */
	STEP_VERIFY,  /* a: compares everybody with itself */
	STEP_STOP,    /* a: clean stop of the agent */
	STEP_START,   /* a: and start */
	STEP_IMAGE,   /* a: of its disk */
	STEP_RESTORE, /* a: that image is put back */
	STEP_MOMENT,  /* a milliseconds */
};

struct step {
	enum step_kind kind;
	unsigned a, b;
};

struct script {
	const char *name;
	unsigned sites;
	struct step steps[STEPS_MAX];
};

#define FUA(a)                                                                                     \
	{                                                                                          \
		STEP_FUA, a, 0                                                                     \
	}
#define WRITE(a)                                                                                   \
	{                                                                                          \
		STEP_WRITE, a, 0                                                                   \
	}
#define SYNC                                                                                       \
	{                                                                                          \
		STEP_SYNC, 0, 0                                                                    \
	}
#define DOWN(a)                                                                                    \
	{                                                                                          \
		STEP_DOWN, a, 0                                                                    \
	}
#define UP(a)                                                                                      \
	{                                                                                          \
		STEP_UP, a, 0                                                                      \
	}
#define ALONE(a)                                                                                   \
	{                                                                                          \
		STEP_ALONE, a, 0                                                                   \
	}
#define HEAL                                                                                       \
	{                                                                                          \
		STEP_HEAL, 0, 0                                                                    \
	}
#define PROMOTE(a)                                                                                 \
	{                                                                                          \
		STEP_PROMOTE, a, 0                                                                 \
	}
#define TRY(a)                                                                                     \
	{                                                                                          \
		STEP_TRY, a, 0                                                                     \
	}
#define REJOIN(a)                                                                                  \
	{                                                                                          \
		STEP_REJOIN, a, 0                                                                  \
	}
#define SWITCH(a, b)                                                                               \
	{                                                                                          \
		STEP_SWITCH, a, b                                                                  \
	}
#define ASK(a, b)                                                                                  \
	{                                                                                          \
		STEP_ASK, a, b                                                                     \
	}
#define RESYNC(a)                                                                                  \
	{                                                                                          \
		STEP_RESYNC, a, 0                                                                  \
	}
#define COMPARE(a)                                                                                 \
	{                                                                                          \
		STEP_COMPARE, a, 0                                                                 \
	}
#define VERIFY(a)                                                                                  \
	{                                                                                          \
		STEP_VERIFY, a, 0                                                                  \
	}
#define STOP(a)                                                                                    \
	{                                                                                          \
		STEP_STOP, a, 0                                                                    \
	}
#define START(a)                                                                                   \
	{                                                                                          \
		STEP_START, a, 0                                                                   \
	}
#define IMAGE(a)                                                                                   \
	{                                                                                          \
		STEP_IMAGE, a, 0                                                                   \
	}
#define RESTORE(a)                                                                                 \
	{                                                                                          \
		STEP_RESTORE, a, 0                                                                 \
	}
#define MOMENT(ms)                                                                                 \
	{                                                                                          \
		STEP_MOMENT, ms, 0                                                                 \
	}

/* clang-format off */
static const struct script scripts[] = {
	{ "fail-over", 2, { FUA(0), SYNC, DOWN(0), PROMOTE(1), FUA(1) } },
	{ "fail-over-behind", 2, { FUA(0), SYNC, FUA(0), WRITE(0), DOWN(0), PROMOTE(1) } },
	{ "return", 2, { FUA(0), SYNC, DOWN(0), PROMOTE(1), FUA(1), UP(0), SYNC } },
	{ "return-diverged", 2,
	  { FUA(0), SYNC, ALONE(0), FUA(0), PROMOTE(1), FUA(1), HEAL, MOMENT(300), REJOIN(0),
	    SYNC } },
	{ "switchover", 2, { FUA(0), SYNC, SWITCH(0, 1), FUA(1), SYNC } },
	{ "switchover-and-back", 2,
	  { FUA(0), SYNC, SWITCH(0, 1), FUA(1), SYNC, SWITCH(1, 0), FUA(0) } },
	{ "switchover-cut", 2,
	  { FUA(0), SYNC, ASK(0, 1), MOMENT(12), ALONE(0), MOMENT(500), HEAL } },
	{ "failback", 2,
	  { FUA(0), SYNC, DOWN(0), PROMOTE(1), FUA(1), UP(0), SYNC, SWITCH(1, 0), FUA(0) } },
	{ "resync", 2, { FUA(0), SYNC, RESYNC(0), FUA(0), SYNC } },
	{ "resync-compared", 2, { FUA(0), SYNC, COMPARE(0), FUA(0), SYNC } },
	{ "resync-interrupted", 2,
	  { FUA(0), SYNC, RESYNC(0), MOMENT(8), ALONE(1), FUA(0), HEAL, SYNC } },
	{ "promote-in-resync", 2, { FUA(0), SYNC, RESYNC(0), MOMENT(8), PROMOTE(1), FUA(1) } },
	{ "stop-in-resync", 2, { FUA(0), SYNC, RESYNC(0), MOMENT(5), STOP(0), START(0), SYNC } },
	{ "verify", 2, { FUA(0), SYNC, VERIFY(0), FUA(0), SYNC } },
	{ "force-alive", 2, { FUA(0), SYNC, PROMOTE(1), FUA(1), MOMENT(300) } },
	{ "force-twice", 2, { FUA(0), SYNC, PROMOTE(1), FUA(1), MOMENT(300), PROMOTE(0), FUA(0) } },
	{ "demote", 2, { FUA(0), SYNC, STOP(0), REJOIN(0), PROMOTE(1), FUA(1), SYNC } },
	{ "older-disk", 2, { FUA(0), SYNC, IMAGE(0), FUA(0), SYNC, RESTORE(0), MOMENT(800) } },
	{ "older-standby", 2, { FUA(0), SYNC, IMAGE(1), FUA(0), SYNC, RESTORE(1), FUA(0), SYNC } },
	{ "third-ahead", 3,
	  { FUA(0), SYNC, ALONE(1), FUA(0), MOMENT(50), ALONE(0), HEAL, DOWN(0), PROMOTE(1), FUA(1),
	    REJOIN(2) } },
	{ "two-primaries", 3,
	  { FUA(0), SYNC, ALONE(0), TRY(1), TRY(2), MOMENT(300), FUA(1), FUA(2), HEAL,
	    MOMENT(300) } },
	{ "two-fail-overs", 3,
	  { FUA(0), SYNC, DOWN(0), PROMOTE(1), FUA(1), DOWN(1), PROMOTE(2), FUA(2), UP(0),
	    UP(1) } },
};
/* clang-format on */

struct run {
	struct sites *sites;
	const struct script *script;
	unsigned step, at;
	bool issued;
	uint64_t since_ns;
};

static const struct script *current;

static struct run *run_of(struct sim_world *world)
{
	return ((struct sites *)sim_user(world))->script;
}

static void start(struct sim_world *world)
{
	struct sites *sites = sites_new(world, current->sites, 1, 1, 4);
	struct run *run = sim_alloc(world, sizeof(*run));

	sites->failing_ok = true;
	sites->script = run;
	sites->quiet = true;
	run->sites = sites;
	run->script = current;
	sites_up(sites);
	sim_check(world, sim_run_until(world, sites_converged, sites, 60 * SIM_SECOND));
	sim_enum_begin(world);
}

static void alone(struct sites *sites, unsigned site)
{
	for (unsigned i = 0; i < sites->site_count; i++)
		if (i != site)
			sim_cut_both(sites->sites[i].engine_node, sites->sites[site].engine_node,
				     SIM_CUT_RESET);
}

/* False: not now, again after the next event. */
static bool issue(struct run *run, const struct step *step)
{
	struct sites *sites = run->sites;
	struct place *place = sites_place(sites, step->kind == STEP_MOMENT ? 0 : step->a, 0);
	struct sites_site *site = place->site;

	switch (step->kind) {
	case STEP_FUA:
	case STEP_WRITE:
		if (!sites_submit(place, EXPORT_WRITE, 0, 8 * run->at, 16,
				  step->kind == STEP_FUA ? EXPORT_FUA : 0))
			return false;
		run->at++;
		return true;
	case STEP_DOWN:
		site_power_off(site);
		return true;
	case STEP_UP:
		site_power_on(site);
		return true;
	case STEP_ALONE:
		alone(sites, step->a);
		return true;
	case STEP_HEAL:
		sim_heal_all(sites->world);
		return true;
	case STEP_PROMOTE:
	case STEP_TRY:
		place_promote(place, true);
		return place->promoting || place_serving(place);
	case STEP_REJOIN:
		place_rejoin(place);
		return place->tasking;
	case STEP_SWITCH:
	case STEP_ASK:
		place_switchover(place, &sites->sites[step->b]);
		return place_serving(place);
	case STEP_RESYNC:
	case STEP_COMPARE:
		place_resync(place, NULL, true, step->kind == STEP_COMPARE);
		return place_serving(place);
	case STEP_VERIFY:
		place_verify(place, false);
		return place_serving(place);
	case STEP_STOP:
		place->agent_off = true;
		place_stop_agent(place);
		return true;
	case STEP_START:
		place->agent_off = false;
		return true;
	case STEP_IMAGE:
		site_take_image(site);
		return true;
	case STEP_RESTORE:
		site_restore_image(site);
		site_power_on(site);
		return true;
	case STEP_SYNC:
	case STEP_MOMENT:
	case STEP_END:
		return true;
	}
	return true;
}

static bool completed(struct run *run, const struct step *step)
{
	struct sites *sites = run->sites;
	struct place *place = sites_place(sites, step->kind == STEP_MOMENT ? 0 : step->a, 0);

	switch (step->kind) {
	case STEP_FUA:
	case STEP_WRITE:
		return sites_work_idle(sites);
	case STEP_SYNC:
		return sites_converged(sites);
	case STEP_PROMOTE:
		if (!place->promoting && !place_serving(place))
			place_promote(place, true); /* again, until it is done */
		return place_serving(place);
	case STEP_SWITCH:
		return place_serving(sites_place(sites, step->b, 0));
	case STEP_REJOIN:
		return !place->tasking;
	case STEP_STOP:
		return !place->agent;
	case STEP_MOMENT:
		return sim_now(sites->world) >= run->since_ns + step->a * SIM_MS;
	default:
		return true;
	}
}

static bool done(struct sim_world *world)
{
	struct run *run = run_of(world);

	while (run->step < STEPS_MAX && run->script->steps[run->step].kind != STEP_END) {
		const struct step *step = &run->script->steps[run->step];

		if (!run->since_ns)
			run->since_ns = sim_now(world);
		if (!run->issued)
			run->issued = issue(run, step);
		/* What cannot happen any more is left. */
		if (!(run->issued && completed(run, step)) &&
		    sim_now(world) < run->since_ns + STEP_LIMIT_NS)
			return false;
		run->issued = false;
		run->since_ns = 0;
		run->step++;
	}
	return true;
}

static void crashed(struct sim_world *world, struct sim_node *node)
{
	struct sites *sites = sim_user(world);
	bool agent = false;
	struct sites_site *site = sites_of(sites, node, &agent);
	bool power = !sim_node_is_up(site->engine_node) && !sim_node_is_up(site->agent_node);

	/* The enumerator does not say how: without both processes the site had no power. */
	sites->dead = true;
	sites_node_lost(sites, node, power ? SIM_POWER : SIM_KILL);
	sites->dead = false;
	site_power_on(site);
}

static void check(struct sim_world *world)
{
	struct run *run = run_of(world);
	struct sites *sites = run->sites;

	sim_heal_all(world);
	sites_operator_stop(sites);
	sites_heal(sites);
	sites_audit(sites);
}

static void enumerate(const struct sim_enum_options *options, struct sim_enum_result *result)
{
	struct sim_enum_options mine = *options;

	if (!mine.cases_max)
		mine.cases_max = CASES_DEFAULT;
	for (unsigned i = 0; i < array_len(scripts); i++) {
		struct sim_enum_script script = {
			.name = scripts[i].name,
			.start = start,
			.done = done,
			.crashed = crashed,
			.check = check,
			.targets = 2 * scripts[i].sites,
			.no_fail_allocs = true,
			.limit_ns = 600 * SIM_SECOND,
		};

		current = &scripts[i];
		sim_enumerate(&script, &mine, result);
	}
}

const struct sim_scenario sites_scripts = {
	.name = "sites-scripts",
	.about = "two and three sites: fail over, return, switchover, resync; crashed and failed",
	.enumerate = enumerate,
};
